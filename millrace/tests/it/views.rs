//! `verify` and `rebuild`, beside running processes and without them.

use millrace_testkit::{http, http_get, wait_until};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::cluster::{Cluster, assert_right};
use crate::run::{Up, WITHIN, stderr, stdout};

#[test]
fn verifies_and_rebuilds_the_archive_with_and_without_the_process() {
    let mut up = Up::start();
    for timestamp in [123, 4_000_000, 4_000_001] {
        assert_eq!(up.post(&format!("/analytics?timestamp={timestamp}&user=kek&click")).status, 204);
    }
    let read = || http_get(up.query, "/analytics?timestamp=4000000").unwrap().into_text();
    assert!(wait_until(WITHIN, || read() == "unique_users,1\nclicks,2\nimpressions,0\n"), "{}", read());

    let fine = "archive: 2 counts equal to the log, 0 differ\n";
    assert!(wait_until(WITHIN, || stdout(&up.tool(&["verify"])) == fine), "{}", stdout(&up.tool(&["verify"])));
    let one = up.tool(&["verify", "--from", "1970-01-01T01Z", "--json"]);
    assert!(one.status.success() && stdout(&one).contains(r#""equal":1"#), "{} {}", stdout(&one), stderr(&one));

    // The end is exclusive, and within an hour it includes that hour.
    for (to, equal) in [("1970-01-01T01Z", 1), ("3600000", 1), ("1970-01-01T01:00:00.001Z", 2), ("0", 0)] {
        let output = up.tool(&["verify", "--to", to, "--json"]);
        assert!(
            stdout(&output).contains(&format!(r#""equal":{equal}"#)),
            "{to}: {}{}",
            stdout(&output),
            stderr(&output)
        );
    }

    let rebuilt = up.tool(&["rebuild", "archive", "--yes"]);
    assert!(rebuilt.status.success(), "{}", stderr(&rebuilt));
    assert!(stdout(&rebuilt).starts_with("archive: rebuilt from "), "{}", stdout(&rebuilt));
    assert!(wait_until(WITHIN, || read() == "unique_users,1\nclicks,2\nimpressions,0\n"), "{}", read());
    let refused = up.tool(&["rebuild", "redis", "--yes"]);
    assert!(!refused.status.success() && stderr(&refused).contains("no Redis"), "{}", stderr(&refused));
    let asked = up.tool(&["rebuild", "archive"]);
    assert!(!asked.status.success() && stderr(&asked).contains("--yes"), "{}", stderr(&asked));

    let status = up.service.shut_down(WITHIN);
    assert!(status.is_some_and(|status| status.success()), "{status:?}: {}", up.service.log());
    let rebuilt = up.tool(&["rebuild", "archive", "--yes"]);
    assert!(rebuilt.status.success(), "{}", stderr(&rebuilt));
    let verified = up.tool(&["verify"]);
    assert!(verified.status.success() && stdout(&verified) == fine, "{}{}", stdout(&verified), stderr(&verified));
}

/// A report as JSON, and whether the process succeeded.
fn report(cluster: &Cluster) -> (Value, bool) {
    let output = cluster.tool(&["verify", "--json"]);
    let text = stdout(&output);
    let report = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{}", stderr(&output)));
    (report, output.status.success())
}

/// One count of the archive becomes another.
fn tamper(cluster: &Cluster) {
    let schema = cluster.setting("postgres.schema");
    let change = format!(
        "UPDATE {schema}.hourly SET clicks = clicks + 1
         WHERE (hour, partition) = (SELECT hour, partition FROM {schema}.hourly LIMIT 1)"
    );
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut connection = PgConnection::connect(cluster.setting("postgres.url")).await.unwrap();
        connection.execute(AssertSqlSafe(change)).await.unwrap();
    });
}

#[test]
fn verifies_stores_under_load_and_reports_every_difference() {
    let Some(cluster) = Cluster::on_shared_servers("verify and rebuild", 1) else { return };
    let load =
        cluster.load(&["--events", "30000", "--users", "5000", "--rate", "3000", "--hours", "24", "--late", "30"]);
    // Under load nothing differs, whatever changes.
    for _ in 0..3 {
        let (report, _) = report(&cluster);
        for store in report["stores"].as_array().unwrap() {
            assert_eq!((&store["different"], &store["error"]), (&Value::from(0), &Value::Null), "{report}");
        }
    }
    for store in ["redis", "archive"] {
        let rebuilt = cluster.tool(&["rebuild", store, "--yes"]);
        assert!(rebuilt.status.success(), "{store}: {}", stderr(&rebuilt));
    }
    assert_right(load, 30_000);
    assert!(wait_until(WITHIN, || report(&cluster).1), "{}", report(&cluster).0);
    let (fine, _) = report(&cluster);
    assert!(fine["stores"].as_array().unwrap().iter().all(|store| store["equal"].as_u64().unwrap() > 24), "{fine}");

    // Redis has the live hours only, according to the report.
    let from = |store: usize| &fine["stores"][store]["live_from"];
    assert!(from(0).is_string() && from(1).is_null(), "{fine}");

    // A changed count.
    tamper(&cluster);
    let (found, right) = report(&cluster);
    let archive = &found["stores"].as_array().unwrap()[1];
    assert!(!right && archive["store"] == "archive" && archive["different"] == 1, "{found}");
    assert!(archive["differences"][0]["hour"].is_string(), "{found}");
    let rebuilt = cluster.tool(&["rebuild", "archive", "--yes"]);
    assert!(rebuilt.status.success(), "{}", stderr(&rebuilt));
    assert!(wait_until(WITHIN, || report(&cluster).1), "{}", report(&cluster).0);
}

#[test]
fn redis_serves_an_older_hour_after_its_first_read() {
    let Some(cluster) = Cluster::on_shared_servers("refill", 1) else { return };
    let (command, query) = (cluster.publics("command")[0], cluster.publics("query")[0]);
    let post = |user: &str| {
        let target = format!("/analytics?timestamp=123&user={user}&click");
        assert_eq!(http(command, "POST", &target, &[], "").unwrap().status, 204);
    };
    let read = || http_get(query, "/analytics?timestamp=123").unwrap();
    post("kek");
    assert!(wait_until(WITHIN, || read().text() == "unique_users,1\nclicks,1\nimpressions,0\n"), "{:?}", read());
    assert!(wait_until(WITHIN, || read().header("millrace-tier") == Some("redis")), "{:?}", read());
    post("lol");
    assert!(wait_until(WITHIN, || read().text() == "unique_users,2\nclicks,2\nimpressions,0\n"), "{:?}", read());
}
