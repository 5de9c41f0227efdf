//! The servers start, respond, and keep their port and data after a kill.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use millrace_testkit::{Child, Kafka, Postgres, Redis, not_run, scratch_dir, wait_until};

/// The server, or `None` after reporting that this test did not run.
fn have<S>(server: Result<S, String>, suite: &str, needs: &str) -> Option<S> {
    server.map_err(|why| not_run(suite, needs, &why)).ok()
}

fn redis_reply(url: &str, request: &str) -> String {
    let address = url.strip_prefix("redis://").expect("a URL of the testkit");
    let mut stream = TcpStream::connect(address).expect("Redis listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout is valid");
    stream.write_all(format!("{request}\r\n").as_bytes()).expect("Redis reads");
    let mut answer = [0; 64];
    let read = stream.read(&mut answer).expect("Redis answers");
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

#[test]
fn redis_keeps_its_data_after_a_kill_until_it_is_deleted() {
    let Some(mut redis) = have(Redis::start(), "testkit redis", "Redis") else { return };
    let url = redis.url();
    assert_eq!(redis_reply(&url, "SET a 1"), "+OK\r\n");
    redis.kill();
    redis.restart().expect("it starts again");
    assert_eq!(redis_reply(&url, "GET a"), "$1\r\n1\r\n");
    assert!(redis_reply(&url, "CONFIG GET maxmemory-policy").contains("noeviction"));
    redis.delete_data();
    redis.restart().expect("it starts empty");
    assert_eq!(redis_reply(&url, "GET a"), "$-1\r\n");
}

#[test]
fn kafka_restarts_on_its_port_after_a_kill() {
    let Some(mut kafka) = have(Kafka::start(), "testkit kafka", "Apache Kafka") else { return };
    let brokers = kafka.brokers();
    kafka.kill();
    assert!(TcpStream::connect(&brokers).is_err());
    kafka.restart().expect("it starts again");
    assert_eq!(kafka.brokers(), brokers);
    TcpStream::connect(&brokers).expect("Kafka listens");
}

#[test]
fn postgres_restarts_on_its_port_after_a_kill() {
    let Some(mut postgres) = have(Postgres::start(), "testkit postgres", "PostgreSQL") else { return };
    let url = postgres.url();
    postgres.kill();
    postgres.restart().expect("it starts again");
    assert_eq!(postgres.url(), url);
    let address = url.split(['@', '/']).nth(3).expect("a URL of the testkit").to_owned();
    TcpStream::connect(address).expect("PostgreSQL listens");
}

#[test]
fn writes_the_childs_output_to_its_log() {
    let folder = scratch_dir("log");
    let mut child = Child::spawn(Command::new("sh").args(["-c", "echo hello"]), &folder.join("log")).expect("sh runs");
    assert!(wait_until(Duration::from_secs(10), || child.ended().is_some()));
    assert_eq!(std::fs::read_to_string(folder.join("log")).expect("the log is there"), "hello\n");
}
