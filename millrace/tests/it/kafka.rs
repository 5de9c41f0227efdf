//! The whole pipeline on real servers, from the outside: every number equals the oracle's, whatever dies.

use std::time::{SystemTime, UNIX_EPOCH};

use millrace_testkit::{Kafka, http, http_get, not_run, wait_until};

use crate::cluster::{Cluster, ROLES, assert_right};
use crate::run::WITHIN;

#[test]
fn two_of_each_service_count_every_event() {
    let Some(cluster) = Cluster::on_shared_servers("two of each service", 2) else { return };
    let load = cluster.load(&["--events", "100000", "--users", "10000", "--hours", "24", "--late", "5", "--seed", "7"]);
    assert_right(load, 100_000);
    let topics = String::from_utf8(cluster.tool(&["topics", "--json"]).stdout).unwrap();
    assert!(topics.contains("analytics.hourly"), "{topics}");
    let tail = String::from_utf8(cluster.tool(&["tail", "analytics.events", "--max", "3"]).stdout).unwrap();
    assert!(tail.lines().count() == 3 && tail.contains("\"user\""), "{tail}");
    let doctor = cluster.tool(&["doctor"]);
    assert!(doctor.status.success(), "{}", String::from_utf8_lossy(&doctor.stdout));
    let found = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(found.contains("intake.journal: 1 partition\n"), "{found}");
    for store in ["redis", "archive"] {
        assert!(found.contains(&format!("ok    {store} positions: the log has the records")), "{found}");
    }
}

#[test]
fn serves_an_event_of_any_hour_in_its_hour() {
    let Some(cluster) = Cluster::on_shared_servers("one of each service", 1) else { return };
    let (command, query) = (cluster.publics("command")[0], cluster.publics("query")[0]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let hour = 3_600_000;
    // The current hour from memory, the last day's from Redis, older ones (Redis has dropped them) from the archive.
    for (timestamp, tier) in
        [(now, "memory"), (now - 3 * hour, "redis"), (now - 30 * hour, "archive"), (123, "archive")]
    {
        let posted =
            http(command, "POST", &format!("/analytics?timestamp={timestamp}&user=kek&click"), &[], "").unwrap();
        assert_eq!(posted.status, 204, "{}", posted.text());
        assert!(posted.header("millrace-position").unwrap().contains("analytics.events/"));
        let read = || http_get(query, &format!("/analytics?timestamp={timestamp}")).unwrap();
        assert!(wait_until(WITHIN, || read().text() == "unique_users,1\nclicks,1\nimpressions,0\n"), "{:?}", read());
        // A read of an older hour asks that Redis be filled with it, so the next one may come from there.
        let refilled = tier == "archive" && read().header("millrace-tier") == Some("redis");
        assert!(refilled || read().header("millrace-tier") == Some(tier), "{timestamp}: {:?}", read());
    }
}

#[test]
fn kill_nine_of_each_service_under_load_changes_no_count() {
    let Some(mut cluster) = Cluster::on_shared_servers("kill -9 of each service", 1) else { return };
    let arguments = ["--events", "120000", "--users", "10000", "--rate", "5000", "--connections", "32", "--seed", "11"];
    let load = cluster.load(&arguments);
    for role in ROLES {
        // Whatever is killed, the processor is counting: there is uncommitted work everywhere behind it.
        cluster.node("processor").wait_busy("millrace_processor_counted_total");
        let node = cluster.node(role);
        node.service.kill();
        node.service.restart();
        node.wait_ready();
    }
    assert_right(load, 120_000);
}

/// A recount of old events would make the second load find more than it sent.
#[test]
fn a_processor_killed_while_idle_counts_nothing_again() {
    let Some(mut cluster) = Cluster::on_shared_servers("a kill -9 of an idle processor", 1) else { return };
    let load = |cluster: &Cluster, events: u64, seed: &str| {
        let events_text = events.to_string();
        let load = cluster.load(&["--events", &events_text, "--users", "1000", "--hours", "1", "--seed", seed]);
        assert_right(load, events);
    };
    load(&cluster, 20_000, "17");
    let processor = cluster.node("processor");
    processor.service.kill();
    processor.service.restart();
    processor.wait_ready();
    load(&cluster, 2_000, "19");
    let processor = cluster.node("processor");
    let told = || processor.total("millrace_processor_counted_total");
    assert!(wait_until(WITHIN, || told() == 2_000), "{}: its metrics begin anew and are exact", told());
    assert!(wait_until(WITHIN, || processor.total("millrace_lag_records") == 0));
}

#[test]
fn a_broker_restart_in_the_middle_of_a_load_changes_no_count() {
    let suite = "a broker restart";
    let mut kafka = match Kafka::start() {
        Ok(kafka) => kafka,
        Err(why) => return not_run(suite, "Apache Kafka", &why),
    };
    let Some(mut cluster) = Cluster::start(&kafka.brokers(), suite, 1) else { return };
    let arguments = ["--events", "80000", "--users", "10000", "--rate", "5000", "--connections", "32", "--seed", "13"];
    let load = cluster.load(&arguments);
    cluster.node("processor").wait_busy("millrace_processor_counted_total");
    kafka.kill();
    kafka.restart().unwrap();
    assert_right(load, 80_000);
}
