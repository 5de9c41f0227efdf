//! `millrace up`: one event through all services, an orderly shutdown, and the exclusive directory.

use millrace_testkit::{free_port, wait_until};

use crate::run::{self, Up, WITHIN, stderr};

#[test]
fn counts_an_acknowledged_event() {
    let up = Up::start();
    assert_eq!(up.lines(123), "unique_users,0\nclicks,0\nimpressions,0\n");
    let answer = up.post("/analytics?timestamp=123&user=kek&click");
    assert_eq!((answer.status, answer.text()), (204, ""));
    assert_eq!(answer.header("millrace-position"), Some("millrace.analytics.events/0@0"));
    let counted = || up.lines(123) == "unique_users,1\nclicks,1\nimpressions,0\n";
    assert!(wait_until(WITHIN, counted), "{}", up.lines(123));
    assert_eq!(up.post("/analytics?timestamp=3599999&user=kek&event=impression").status, 204);
    let counted = || up.lines(0) == "unique_users,1\nclicks,1\nimpressions,1\n";
    assert!(wait_until(WITHIN, counted), "{}", up.lines(0));
}

#[test]
fn sigterm_shuts_down_without_loss() {
    let mut up = Up::start();
    assert_eq!(up.post("/analytics?timestamp=5&user=a&click").status, 204);
    let status = up.service.shut_down(WITHIN).expect("it ends within shutdown_grace");
    assert!(status.success(), "{status}: {}", up.service.log());
    up.service.restart();
    up.service.wait_ready(up.command);
    let counted = || up.lines(5) == "unique_users,1\nclicks,1\nimpressions,0\n";
    assert!(wait_until(WITHIN, counted), "{}", up.lines(5));
}

#[test]
fn refuses_a_second_process_on_the_directory() {
    let up = Up::start();
    let mut others = run::settings(up.directory.path());
    others.retain(|(key, _)| *key != "embedded.directory");
    others.push(("command.tcp.enabled", "false".into()));
    let mut second = run::tool(&["up"]);
    second.args(up.arguments());
    for (key, value) in others {
        second.args(["--set", &format!("{key}={value}")]);
    }
    let output = second.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let process = up.service.id().unwrap().to_string();
    assert!(stderr(&output).contains(&process), "the holder is named: {}", stderr(&output));
    assert_eq!(up.post("/analytics?timestamp=5&user=a&click").status, 204, "the first one goes on");
}

#[test]
fn reports_an_occupied_port_with_its_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut up = run::tool(&["up"]);
    for (key, value) in run::settings(directory.path()) {
        up.args(["--set", &format!("{key}={value}")]);
    }
    up.args(["--set", &format!("query.listen={}", taken.local_addr().unwrap())]);
    let output = up.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let last = stderr(&output).lines().last().unwrap_or_default().to_owned();
    assert!(last.starts_with("millrace: query.listen: cannot listen on 127.0.0.1:"), "{}", stderr(&output));
    assert!(!directory.path().join("data").exists(), "nothing is started half");
}

#[test]
fn single_services_refuse_the_embedded_engine() {
    for service in ["command", "processor", "materializer", "query"] {
        let admin = format!("{service}.admin=127.0.0.1:{}", free_port());
        let output = run::tool(&[service, "--set", &admin]).output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{service}");
        assert!(stderr(&output).contains("millrace up"), "{}", stderr(&output));
    }
}
