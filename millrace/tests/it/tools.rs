//! `topics`, `tail` and `doctor`, beside a running process and without one.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::run::{Up, WITHIN, stderr, stdout, tool};

#[test]
fn reads_the_log_through_the_process_and_without_it() {
    let mut up = Up::start();
    for user in ["kek", "lol", "kek"] {
        assert_eq!(up.post(&format!("/analytics?timestamp=123&user={user}&click")).status, 204);
    }
    let tail = ["tail", "analytics.events", "--max", "2", "--from", "1"];
    let through = up.tool(&tail);
    let lines = stdout(&through);
    assert!(through.status.success(), "{}", stderr(&through));
    assert_eq!(lines.lines().count(), 2, "{lines}");
    assert!(lines.starts_with("0@1  ") && lines.contains(r#""user":"lol""#), "{lines}");
    let topics = stdout(&up.tool(&["topics"]));
    assert!(topics.contains("│ millrace.analytics.events ┆ 1 "), "{topics}");
    assert!(topics.lines().all(|line| line.chars().count() <= 80), "{topics}");
    let one = stdout(&up.tool(&["topics", "analytics.events"]));
    assert!(one.contains("key      user\n") && one.contains("│ 0         ┆ 0     ┆ 3   │"), "{one}");

    let status = up.service.shut_down(WITHIN);
    assert!(status.is_some_and(|status| status.success()), "{status:?}: {}", up.service.log());
    let without = up.tool(&tail);
    assert_eq!(stdout(&without), lines, "{}", stderr(&without));
    let json = stdout(&up.tool(&["tail", "millrace.analytics.events", "--json", "--partition", "0"]));
    let users: Vec<_> =
        json.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["value"]["user"].clone()).collect();
    assert_eq!(users, ["kek", "lol", "kek"]);
}

#[test]
fn tail_follows() {
    let up = Up::start();
    let mut follow = tool(&["tail", "analytics.events", "--follow"]);
    let mut follow = follow.args(up.arguments()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    for user in ["first", "second"] {
        assert_eq!(up.post(&format!("/analytics?timestamp=123&user={user}&click")).status, 204);
        let line = lines.next().unwrap().unwrap();
        assert!(line.contains(user), "{line}");
    }
    follow.kill().unwrap();
    follow.wait().unwrap();
}

#[test]
fn reports_unknown_topics_and_partitions() {
    let up = Up::start();
    let output = up.tool(&["tail", "no.such.topic"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("valid are analytics.events"), "{}", stderr(&output));
    let output = up.tool(&["tail", "analytics.events", "--partition", "7"]);
    assert!(stderr(&output).contains("no partition 7"), "{}", stderr(&output));
}

#[test]
fn doctor_checks_a_running_process_and_a_directory_without_one() {
    let mut up = Up::start();
    let output = up.tool(&["doctor"]);
    let text = stdout(&output);
    assert!(output.status.success() && text.contains("command.admin: a process responds"), "{text}");
    assert!(text.contains("ok    log: opens; records: millrace.analytics.events 0"), "{text}");
    let status = up.service.shut_down(WITHIN);
    assert!(status.is_some_and(|status| status.success()), "{status:?}: {}", up.service.log());
    let text = stdout(&up.tool(&["doctor"]));
    assert!(text.contains("process: none is running here") && text.contains("ok    log: opens"), "{text}");

    let taken = std::net::TcpListener::bind(up.command).unwrap();
    let output = up.tool(&["doctor"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("FAIL  command.listen"), "{}", stdout(&output));
    drop(taken);

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = format!("command.tcp.listen={}", taken.local_addr().unwrap());
    let text = stdout(&up.tool(&["doctor", "--set", "command.tcp.enabled=true", "--set", &tcp]));
    assert!(text.contains("FAIL  command.tcp.listen"), "{text}");
}
