//! kill -9 of a process that appends: acknowledged records survive.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use millrace_contracts::Topic;
use millrace_log::{NewRecord, Outcome};
use rand::{Rng, SeedableRng};

use crate::support;

const VARIABLE: &str = "MILLRACE_KILL_TEST_FOLDER";

/// Appends for ever and prints the number of acknowledged records. As a test it returns at once.
#[test]
fn child() {
    let Ok(folder) = std::env::var(VARIABLE) else { return };
    let log = support::open(&support::config(Path::new(&folder)));
    let mut number = support::read_all(&log, Topic::EVENTS, 0).unwrap().len() as u64;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut out = std::io::stdout();
    loop {
        let made: Vec<(String, Vec<u8>)> = (number..number + 7).map(|n| (n.to_string(), support::value(n))).collect();
        let records: Vec<NewRecord<'_>> = made
            .iter()
            .map(|(key, value)| NewRecord { topic: Topic::EVENTS, partition: 0, key: key.as_bytes(), value })
            .collect();
        for (n, outcome) in (number..).zip(runtime.block_on(log.append(&records))) {
            assert_eq!(outcome, Outcome::Acknowledged(n));
        }
        number += 7;
        writeln!(out, "acknowledged {number}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn acknowledged_records_survive_kills() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    let mut acknowledged = 0;
    for round in 0..6 {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["kill::child", "--exact", "--nocapture", "--test-threads=1"]);
        let mut child = command.env(VARIABLE, directory.path()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let until = random.random_range(1..400);
        let number = |line: &str| line.split("acknowledged ").nth(1).and_then(|number| number.parse::<u64>().ok());
        let mut seen = 0;
        for line in lines.by_ref().map_while(Result::ok) {
            if let Some(number) = number(&line) {
                acknowledged = number;
                seen += 1;
            }
            if seen == until {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // The lines printed before its end count too.
        acknowledged = lines.map_while(Result::ok).filter_map(|line| number(&line)).last().unwrap_or(acknowledged);
        assert_eq!(seen, until, "round {round}: the child ended by itself");
        let log = support::open(&support::config(directory.path()));
        let records = support::read_all(&log, Topic::EVENTS, 0).unwrap();
        let there = records.len() as u64;
        assert!(
            (acknowledged..=acknowledged + 7).contains(&there),
            "round {round}: {acknowledged} acknowledged, {there} found"
        );
        for (n, (offset, key, value)) in (0..).zip(records) {
            assert!(offset == n && key == n.to_string() && value == support::value(n), "@{n} is wrong");
        }
    }
    assert!(acknowledged > 0);
}
