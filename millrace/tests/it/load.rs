//! `millrace load` against a running process: equality, with and without a kill.

use std::process::{Output, Stdio};

use millrace_testkit::wait_until;
use serde_json::Value;

use crate::run::{Up, WITHIN, metric, stderr, stdout, tool};

pub(crate) fn report(output: &Output) -> Value {
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
    assert!(wait_until(WITHIN, || up.stored() > 2_000), "the load goes on when the process is killed");
    up.service.restart();
    let output = load.wait_with_output().unwrap();
    let report = report(&output);
    assert!(output.status.success(), "{report}");
    assert!(report["acknowledged"].as_u64() > Some(15_000), "{report}");
    let sum =
        ["acknowledged", "refused", "unknown", "not_sent"].iter().filter_map(|key| report[key].as_u64()).sum::<u64>();
    assert_eq!(sum, 20_000, "{report}");
}

/// Every event that was sent is settled by its id: nothing is left in doubt, and no number has a range.
#[test]
fn with_ids_the_counts_are_exact_across_a_kill() {
    let mut up = Up::start();
    let arguments = ["load", "--json", "--events", "20000", "--users", "500", "--rate", "5000", "--timeout", "5s"];
    let mut load = tool(&arguments);
    load.args(["--batch", "20", "--resend-unknown", "--duplicates", "10"]).args(up.arguments());
    let load = load.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    assert!(wait_until(WITHIN, || up.stored() > 2_000), "the load goes on when the process is killed");
    up.service.restart();
    let output = load.wait_with_output().unwrap();
    let report = report(&output);
    assert!(output.status.success(), "{report}");
    assert_eq!((&report["acknowledged"], &report["unknown"]), (&20_000.into(), &0.into()), "{report}");
    assert!(report["duplicated"].as_u64() > Some(1_000), "{report}");
    let hours = report["hours"].as_array().unwrap();
    assert!(hours.iter().all(|hour| hour["least"] == hour["most"] && hour["got"] == hour["least"]), "{report}");
    assert!(up.stored() > 21_000, "the copies are in the log, and were not counted");
}

#[test]
fn metrics_say_what_the_oracle_says() {
    let up = Up::start();
    let mut acknowledged = 0;
    for batch in ["1", "50"] {
        let output = up.tool(&["load", "--json", "--events", "3000", "--users", "50", "--batch", batch]);
        acknowledged += report(&output)["acknowledged"].as_u64().unwrap();
    }
    for query in ["user=&timestamp=1&click", "user=a&timestamp=x&click", "user=a&timestamp=1&event=view"] {
        assert_eq!(up.post(&format!("/analytics?{query}")).status, 400);
    }
    assert_eq!(up.post(&format!("/analytics?user=a&timestamp={}&click", i64::MAX)).status, 422);
    let answered = |code| metric(up.admin, &format!("millrace_command_events_total{{outcome=\"{code}\"}}"));
    assert_eq!((acknowledged, answered("accepted"), up.stored()), (6_000, 6_000, 6_000));
    assert_eq!(["invalid-field", "outside-window", "outcome-unknown", "overloaded"].map(answered), [3, 1, 0, 0]);
}
