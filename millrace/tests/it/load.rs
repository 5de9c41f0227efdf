//! `millrace load` against a running process: equality, with and without a kill.

use std::process::{Output, Stdio};

use millrace_testkit::wait_until;
use serde_json::Value;

use crate::run::{Up, WITHIN, stderr, stdout, tool};

fn report(output: &Output) -> Value {
    serde_json::from_str(&stdout(output)).unwrap_or_else(|e| panic!("{e}: {}{}", stdout(output), stderr(output)))
}

#[test]
fn every_number_is_right() {
    let up = Up::start();
    let shape = ["load", "--json", "--events", "20000", "--users", "500", "--connections", "32"];
    for more in [&["--batch", "1"][..], &["--batch", "100", "--late", "50"]] {
        let output = up.tool(&[&shape[..], more].concat());
        let report = report(&output);
        assert!(output.status.success() && report["ok"] == true, "{report}");
        assert_eq!((&report["acknowledged"], &report["unknown"]), (&20_000.into(), &0.into()), "{report}");
        assert_eq!(report["hours"].as_array().map(Vec::len), Some(24));
    }
}

#[test]
fn a_wrong_number_is_found() {
    let up = Up::start();
    let shape = ["load", "--events", "500", "--users", "50", "--hours", "1", "--run", "again", "--settle", "2s"];
    assert!(up.tool(&shape).status.success());
    // The same users once more: they are not new, so fewer are counted than a load of new users expects.
    let output = up.tool(&shape);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("FAILED: 1 of 1 hours are wrong"), "{}", stdout(&output));
}

#[test]
fn a_killed_process_loses_nothing_that_was_acknowledged() {
    let mut up = Up::start();
    let arguments = ["load", "--json", "--events", "20000", "--users", "500", "--rate", "5000", "--timeout", "5s"];
    let mut load = tool(&arguments);
    load.args(up.arguments()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let load = load.spawn().unwrap();
    assert!(wait_until(WITHIN, || stored(&up) > 2_000), "the load goes on when the process is killed");
    up.service.restart();
    let output = load.wait_with_output().unwrap();
    let report = report(&output);
    assert!(output.status.success(), "{report}");
    assert!(report["acknowledged"].as_u64() > Some(15_000), "{report}");
    let sum =
        ["acknowledged", "refused", "unknown", "not_sent"].iter().filter_map(|key| report[key].as_u64()).sum::<u64>();
    assert_eq!(sum, 20_000, "{report}");
}

/// Number of events in the log.
fn stored(up: &Up) -> u64 {
    let topics: Value = serde_json::from_str(&stdout(&up.tool(&["topics", "--json"]))).unwrap_or_default();
    let partitions = topics[0]["partitions"].as_array().cloned().unwrap_or_default();
    partitions.iter().filter_map(|partition| partition["end"].as_u64()).sum()
}
