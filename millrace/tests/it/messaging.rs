//! The tools of topics: `topic`, `subscription`, `publish`, `consume`, and the examples of a worker.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use millrace_testkit::{http, millrace_bin, not_run, repository, wait_until};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::run::{Up, WITHIN, stderr, stdout, tool};

/// The tools with one write side.
#[derive(Clone)]
struct Tools(String);

impl Tools {
    fn of(command: SocketAddr) -> Self {
        Self(format!("http://{command}"))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = tool(arguments);
        command.args(["--command", &self.0]);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The output of a tool that must succeed.
    fn expect(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        stdout(&output)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.expect(arguments)).unwrap()
    }

    /// What a tool reports that must fail with this code.
    fn refused(&self, arguments: &[&str], code: i32) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}{}", stdout(&output), stderr(&output));
        stderr(&output)
    }

    fn publish_input(&self, arguments: &[&str], input: &[u8]) -> Value {
        let mut command = self.command(arguments);
        let mut child = command.arg("--json").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn manage(tools: &Tools) {
    let created = ["topic", "create", "orders", "--retention", "24h", "--description", "of the shop"];
    assert_eq!(tools.expect(&created), "topic orders: created\n");
    assert_eq!(tools.expect(&created), "topic orders: exists, with these settings\n");
    let conflict = tools.refused(&["topic", "create", "orders", "--retention", "1h"], 1);
    assert!(conflict.starts_with("millrace: 409 (exists: "), "{conflict}");
    let described = tools.expect(&["topic", "describe", "orders"]);
    assert!(described.contains("settings.retention          24h\n"), "{described}");
    let subscribed = ["subscription", "create", "orders/worker", "--filter", r#"{"prefix":{"kind":"order-"}}"#];
    assert_eq!(tools.expect(&subscribed), "subscription orders/worker: created\n");
    tools.expect(&["subscription", "create", "orders/other", "--order-by-key", "--ack-deadline", "1m"]);
    let listed = tools.json(&["subscription", "list", "orders", "--json"]);
    let names: Vec<&Value> = listed.as_array().unwrap().iter().map(|subscription| &subscription["name"]).collect();
    assert_eq!(names, ["other", "worker"]);
    let other = tools.json(&["subscription", "describe", "orders/other", "--json"]);
    assert_eq!((&other["order"], &other["ack_deadline"]), (&json!("key"), &json!("1m")));
    assert!(tools.expect(&["subscription", "suspend", "orders/other"]).contains("suspended"));
    assert!(tools.expect(&["subscription", "resume", "orders/other"]).contains("active"));
    let kept = tools.refused(&["subscription", "delete", "orders/other"], 1);
    assert!(kept.contains("confirm with --yes"), "{kept}");
    assert_eq!(
        tools.expect(&["subscription", "delete", "orders/other", "--yes"]),
        "subscription orders/other: deleted\n"
    );
    assert!(tools.expect(&["topic", "list"]).contains("orders"));
    assert!(tools.refused(&["topic", "describe", "absent"], 1).starts_with("millrace: 404 (not-found: "));
    tools.refused(&["topic", "describe", "a.b"], 2);
    tools.refused(&["subscription", "describe", "orders"], 2);
}

fn publish_and_consume(tools: &Tools) {
    let published = tools.expect(&["publish", "orders", "first", "--attr", "kind=order-created", "--key", "c1"]);
    assert!(published.starts_with("orders: partition "), "{published}");
    let twice = ["publish", "orders", "twice", "--attr", "kind=order-paid", "--idempotency-key", "k1", "--json"];
    let (one, other) = (tools.json(&twice), tools.json(&twice));
    assert_eq!((&one["duplicate"], &other["duplicate"]), (&json!(false), &json!(true)));
    assert_eq!(one["id"], other["id"]);
    let typed = ["publish", "orders", "--attr", "kind=order-shipped", "--attr", "ce-subject=café", "--content-type"];
    tools.publish_input(&[&typed[..], &["application/json"]].concat(), b"{\"n\": 1.50}");
    tools.expect(&["publish", "orders", "unwanted", "--attr", "kind=invoice"]);
    // Without --drain and --max it would follow.
    assert_eq!(tools.expect(&["consume", "orders/worker", "--max", "1"]), "first\n");
    let rest = tools.expect(&["consume", "orders/worker", "--drain", "--json"]);
    let rest: Vec<&str> = rest.lines().collect();
    assert_eq!(rest.len(), 2, "{rest:?}");
    assert!(rest[1].contains(r#""body":{"n": 1.50}"#) && rest[1].contains(r#""ce-subject":"café""#), "{}", rest[1]);
    assert_eq!(tools.expect(&["consume", "orders/worker", "--drain"]), "", "all are acknowledged");
    tools.expect(&["subscription", "seek", "orders/worker", "earliest"]);
    let all = tools.expect(&["consume", "orders/worker", "--drain", "--batch", "1", "--lease", "1m"]);
    assert_eq!(all, "first\ntwice\n{\"n\": 1.50}\n");
    let due = tools.json(&["publish", "orders", "later", "--attr", "kind=order-x", "--after", "500ms", "--json"]);
    let later: Value =
        serde_json::from_str(&tools.expect(&["consume", "orders/worker", "--max", "1", "--json"])).unwrap();
    assert_eq!(later["id"], due["id"]);
    assert!(tools.refused(&["consume", "orders/absent"], 1).starts_with("millrace: 404 (not-found: "));
    assert!(tools.refused(&["publish", "orders", "x", "--attr", "ce=a\u{1}"], 1).contains("not printable"));
    assert_eq!(tools.expect(&["topic", "delete", "orders", "--yes"]), "topic orders: deleted\n");
}

#[test]
fn tools_on_the_embedded_engine() {
    let mut up = Up::start();
    let tools = Tools::of(up.command);
    manage(&tools);
    publish_and_consume(&tools);
    up.service.kill();
    let unavailable = tools.refused(&["topic", "list", "--patience", "300ms"], 75);
    assert!(unavailable.starts_with(&format!("millrace: {}: ", tools.0)), "{unavailable}");
}

#[test]
fn tools_on_kafka() {
    let Some(cluster) = Cluster::on_shared_servers("the tools of topics on Kafka", 1) else { return };
    let tools = Tools::of(cluster.publics("command")[0]);
    manage(&tools);
    publish_and_consume(&tools);
}

/// A process whose lines are read.
struct Reader {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    seen: Vec<String>,
}

impl Reader {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, seen: Vec::new() }
    }

    /// Reads on to this line. What was not acknowledged yet when the service was killed comes again.
    fn expect(&mut self, expected: &str) {
        loop {
            let line = self.lines.next().unwrap().unwrap();
            if line == expected {
                return self.seen.push(line);
            }
            assert!(self.seen.contains(&line), "{line:?}, not {expected:?}");
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whatever prints the messages of `jobs/worker` goes on where it was after the service was killed and started again.
fn survives_a_restart(up: &mut Up, reader: &mut Command) {
    let tools = Tools::of(up.command);
    tools.expect(&["topic", "create", "jobs"]);
    tools.expect(&["subscription", "create", "jobs/worker"]);
    let mut reader = Reader::start(reader);
    for n in 0..4 {
        tools.expect(&["publish", "jobs", &format!("job {n}")]);
        reader.expect(&format!("job {n}"));
        if n == 1 {
            up.service.kill();
            up.service.restart();
            up.service.wait_ready(up.command);
        }
    }
    let backlog = || tools.json(&["subscription", "describe", "jobs/worker", "--json"])["backlog"] == json!(0);
    assert!(wait_until(WITHIN, backlog), "all are acknowledged");
}

#[test]
fn consume_survives_a_restart() {
    let mut up = Up::start();
    let mut consume = Tools::of(up.command).command(&["consume", "jobs/worker"]);
    survives_a_restart(&mut up, &mut consume);
}

#[test]
fn the_worker_in_python_survives_a_restart() {
    if Command::new("python3").arg("--version").output().is_err() {
        return not_run("the worker in Python", "python3", "not found");
    }
    let mut up = Up::start();
    let mut worker = Command::new("python3");
    worker.arg(repository().join("examples/topics/worker.py")).arg(format!("http://{}", up.command));
    worker.args(["jobs", "worker"]);
    survives_a_restart(&mut up, &mut worker);
}

#[test]
fn the_worker_in_rust_survives_a_restart() {
    let built = millrace_bin().with_file_name("examples").join("topics-worker");
    if !built.exists() {
        return not_run("the worker in Rust", "target/debug/examples/topics-worker", "it is not built");
    }
    let mut up = Up::start();
    let mut worker = Command::new(built);
    worker.arg(format!("http://{}", up.command)).args(["jobs", "worker"]);
    survives_a_restart(&mut up, &mut worker);
}

#[test]
fn a_reader_that_ends_acknowledges_what_it_read() {
    let up = Up::start();
    let tools = Tools::of(up.command);
    tools.expect(&["topic", "create", "t"]);
    tools.expect(&["subscription", "create", "t/s"]);
    for n in 0..3 {
        http(up.command, "POST", "/v1/topics/t/messages", &[], &n.to_string()).unwrap();
    }
    assert_eq!(tools.expect(&["consume", "t/s", "--max", "2", "--batch", "1"]), "0\n1\n");
    assert_eq!(tools.json(&["subscription", "describe", "t/s", "--json"])["backlog"], json!(1));
}
