//! Reads of one's own writes, and what the read side shows while nothing is counted.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use millrace_testkit::{Response, http, http_get, repository, wait_until};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::run::{Up, WITHIN};

const HOUR: u128 = 3_600_000;
const ROUNDS: u64 = 50;

fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}

fn post(command: SocketAddr, target: &str, body: &str) -> Response {
    let headers: &[(&str, &str)] = if body.is_empty() { &[] } else { &[("content-type", "application/json")] };
    http(command, "POST", target, headers, body).unwrap()
}

/// Posts, then reads with the position, without a pause: never a wrong number, whichever store answers.
///
/// The wait is shorter than the client's timeout, so that one that runs out fails with its code.
fn reads_its_own_writes(command: SocketAddr, query: SocketAddr) {
    // The current hour, one of the last day, an older one and an ancient one. The first is read for the hour it is in now.
    let now = now();
    let hours = [now, now - 3 * HOUR, now - 30 * HOUR, 123];
    let complete = |hour: &u128| http_get(query, &format!("/analytics?timestamp={hour}")).unwrap().status == 200;
    assert!(wait_until(WITHIN, || hours.iter().all(complete)), "the stores are built");
    for round in 1..=ROUNDS {
        for hour in hours {
            let target = format!("/analytics?timestamp={hour}");
            // Without a position: caches of low counts are filled.
            assert_eq!(http_get(query, &target).unwrap().status, 200);
            let posted = post(command, &format!("{target}&user=user-{round}&click"), "");
            assert_eq!(posted.status, 204, "{}", posted.text());
            let position = posted.header("millrace-position").unwrap();
            let read = http_get(query, &format!("{target}&min-position={position}&wait=9s")).unwrap();
            let expected = format!("unique_users,{round}\nclicks,{round}\nimpressions,0\n");
            assert_eq!((read.status, read.text()), (200, &*expected), "{hour}, round {round}, {position}: {read:?}");
        }
    }
    // A batch: one position for all of its events, which may be in several partitions. A duplicate counts nothing, and its
    // position is reached all the same.
    for round in 1..=10_u64 {
        let items: Vec<String> = (0..20)
            .map(|user| format!(r#"{{"timestamp":7200000,"user":"user-{user}","event":"click","event_id":"{user}"}}"#))
            .collect();
        let posted = post(command, "/analytics/batch", &format!("[{}]", items.join(",")));
        assert_eq!(posted.status, 200, "{}", posted.text());
        let position = posted.header("millrace-position").unwrap();
        let headers = [("millrace-min-position", position)];
        let read = http(query, "GET", "/analytics?timestamp=7200000&wait=9s", &headers, "").unwrap();
        assert_eq!(read.text(), "unique_users,20\nclicks,20\nimpressions,0\n", "round {round}, {position}");
        let target = format!("/analytics/range?from=7200000&to=7200001&min-position={position}&wait=9s");
        let range: Value = serde_json::from_slice(&http_get(query, &target).unwrap().body).unwrap();
        assert_eq!(range["totals"]["clicks"], 20, "round {round}: {range}");
    }
    // One that the log has not reached.
    let posted = post(command, "/analytics?timestamp=1&user=topic&impression", "");
    let topic = posted.header("millrace-position").unwrap().rsplit_once('/').unwrap().0;
    let target = |topic: &str| format!("/analytics?timestamp=123&wait=0ms&min-position={topic}/0@999999999999");
    let early = http_get(query, &target(topic)).unwrap();
    assert_eq!((early.status, early.code()), (503, "not-yet-visible".to_owned()));
    assert!(early.header("retry-after").is_some());
    let stale = http_get(query, &format!("{}&stale=ok", target(topic))).unwrap();
    assert_eq!((stale.status, stale.header("millrace-stale")), (200, Some("true")));
    assert_eq!(stale.header("cache-control"), Some("no-store"));
    assert_eq!(http_get(query, &target("other")).unwrap().status, 400);
}

/// Pastes the two lines of the banner, as the README has them, again and again without a pause: never a wrong number.
fn pastes_the_lines_of_the_readme(command: SocketAddr, query: SocketAddr) {
    const TIMES: usize = 200;
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let is_pasted = |line: &&str| line.starts_with("  at=$(curl ") || line.starts_with("  curl \"http");
    let lines: Vec<&str> = readme.lines().filter(is_pasted).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    let lines = lines.join("\n").replace("127.0.0.1:8081", &command.to_string());
    let lines = lines.replace("127.0.0.1:8082", &query.to_string());
    let script = format!("for n in $(seq {TIMES}); do\n{lines}\nprintf '\\0'\ndone");
    let output = std::process::Command::new("bash").args(["-c", &script]).output().unwrap();
    let answers = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<&str> = answers.split_terminator('\0').collect();
    assert_eq!(answers.len(), TIMES, "{answers:?}");
    let right = |at: usize| answers[at] == format!("unique_users,1\nclicks,{}\nimpressions,0\n", at + 1);
    // On a busy machine an event may take longer than the wait. That is stated, and no number.
    let wrong = (0..TIMES).find(|&at| !right(at) && !answers[at].contains("not-yet-visible"));
    assert_eq!(wrong, None, "{:?}", wrong.map(|at| answers[at]));
    assert!((0..TIMES).filter(|&at| right(at)).count() > TIMES / 2, "{answers:?}");
}

#[test]
fn reads_its_own_writes_on_the_embedded_engine() {
    let up = Up::start();
    reads_its_own_writes(up.command, up.query);
    pastes_the_lines_of_the_readme(up.command, up.query);
    let caught_up = || {
        let read = http_get(up.query, "/analytics?timestamp=123").unwrap();
        read.header("millrace-counted-up-to").is_some() && read.header("millrace-stale").is_none()
    };
    assert!(wait_until(WITHIN, caught_up));
    assert_eq!(http_get(up.query, "/readyz").unwrap().text(), "ready\n");
    assert_eq!(up.metric("millrace_query_events_waiting{store=\"archive\"}"), 0);
}

#[test]
fn reads_its_own_writes_on_kafka() {
    let Some(cluster) = Cluster::on_shared_servers("one of each service", 1) else { return };
    reads_its_own_writes(cluster.publics("command")[0], cluster.publics("query")[0]);
    pastes_the_lines_of_the_readme(cluster.publics("command")[0], cluster.publics("query")[0]);
}

/// Nobody reports the lag of a process that was killed: the reader of the log finds it.
#[test]
fn counting_that_stopped_is_shown_everywhere() {
    let Some(mut cluster) = Cluster::on_shared_servers("one of each service", 1) else { return };
    let (command, query) = (cluster.publics("command")[0], cluster.publics("query")[0]);
    let hour = now() - 3 * HOUR;
    let read = || -> Value {
        let headers = [("accept", "application/json")];
        let read = http(query, "GET", &format!("/analytics?timestamp={hour}"), &headers, "").unwrap();
        serde_json::from_slice(&read.body).unwrap()
    };
    let post_one = |user: u64| {
        assert_eq!(post(command, &format!("/analytics?timestamp={hour}&user=user-{user}&click"), "").status, 204);
    };
    for user in 0..100 {
        post_one(user);
    }
    assert!(wait_until(WITHIN, || read()["clicks"] == 100 && read()["stale"] == false), "{}", read());
    let ready = || http_get(query, "/readyz").unwrap();
    for role in ["processor", "materializer"] {
        cluster.node(role).service.kill();
        for user in 0..50 {
            post_one(user);
        }
        assert!(wait_until(WITHIN, || read()["stale"] == true), "{role}: {}", read());
        let shown = || {
            let (ready, status) = (ready(), http_get(query, "/status").unwrap());
            let status: Value = serde_json::from_slice(&status.body).unwrap();
            let waits = |text: &str| text.contains("counting stopped") && text.contains("50 events waiting");
            ready.status == 200 && waits(ready.text()) && waits(status["counting"].as_str().unwrap_or_default())
        };
        assert!(wait_until(WITHIN, shown), "{role}: {:?}", ready());
        for store in ["redis", "archive"] {
            let waiting = cluster.node("query").total(&format!("millrace_query_events_waiting{{store=\"{store}\"}}"));
            assert_eq!(waiting, 50, "{role}: {store}");
        }
        let node = cluster.node(role);
        node.service.restart();
        node.wait_ready();
        let done = || read()["stale"] == false && ready().text() == "ready\n";
        assert!(wait_until(WITHIN, done), "{role}: {} {:?}", read(), ready());
    }
    assert_eq!(read()["clicks"], 200);
}
