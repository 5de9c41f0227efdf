//! `millrace load` against a running process: equality, with and without a kill.

use std::process::{Output, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use millrace_testkit::{Child, free_port, http_get, wait_until};
use serde_json::Value;

use crate::run::{Up, WITHIN, stderr, stdout, tool};

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
fn detects_a_wrong_number() {
    let up = Up::start();
    let shape = ["load", "--events", "500", "--users", "50", "--hours", "1", "--run", "again", "--settle", "2s"];
    assert!(up.tool(&shape).status.success());
    // The same users once more: they are not new, so fewer are counted than a load of new users expects.
    let output = up.tool(&shape);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("FAILED: 1 of 1 hour is wrong"), "{}", stdout(&output));
}

#[test]
fn a_load_that_reaches_nobody_states_why() {
    let up = Up::start();
    let dead = format!("http://127.0.0.1:{}", free_port());
    let output = up.tool(&["load", "--events", "10", "--command", &dead, "--patience", "200ms"]);
    let error = stderr(&output);
    assert_eq!((output.status.code(), &*stdout(&output)), (Some(1), ""), "{error}");
    let start = format!("millrace: no event was acknowledged: {dead}: ");
    assert!(error.starts_with(&start) && error.to_lowercase().contains("refused"), "{error}");
}

/// What `make demo` runs: a day, then events as time goes on, until an interrupt.
#[test]
fn a_day_goes_on_until_an_interrupt() {
    let up = Up::start();
    let mut load =
        tool(&["load", "--day", "4000", "--events", "1000000", "--rate", "100", "--clicks", "5", "--summary"]);
    let load = load.args(["--users", "300", "--connections", "4"]).args(up.arguments());
    let mut load = Child::spawn(load, &up.directory.path().join("load.log")).unwrap();
    assert!(wait_until(WITHIN, || up.stored() > 4_020), "it goes on after the day: {}", load.log());
    load.interrupt();
    let status = load.wait(WITHIN);
    let log = load.log();
    assert!(status.is_some_and(|status| status.success()), "{log}");
    let summary = log.lines().last().unwrap_or_default();
    let acknowledged = summary.split_once(" events in 2").map(|(number, _)| number.parse());
    assert_eq!(acknowledged, Some(Ok(up.stored())), "{log}");
    assert!(summary.ends_with("Every number is right."), "{log}");
    let now = now_ms();
    let range = http_get(up.query, &format!("/analytics/range?from={}&to={now}", now - 23 * 3_600_000)).unwrap().json();
    let of = |row: &Value, name: &str| row[name].as_f64().unwrap();
    let (clicks, impressions) = (of(&range["totals"], "clicks"), of(&range["totals"], "impressions"));
    assert!((0.03..0.07).contains(&(clicks / (clicks + impressions))), "{range}");
    let mut hours: Vec<f64> = range["rows"].as_array().unwrap().iter().map(|row| of(row, "impressions")).collect();
    // The current hour is not over.
    hours.pop();
    let (least, most) = (hours.iter().copied().fold(f64::MAX, f64::min), hours.iter().copied().fold(0.0, f64::max));
    assert!(most > 5.0 * least, "an evening and a night: {hours:?}");
}

#[test]
fn a_killed_process_loses_no_acknowledged_event() {
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

/// Resends by id settle every event: no outcome stays unknown, and no number has a range.
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
    assert!(up.stored() > 21_000, "the duplicates are in the log, but not counted");
}

/// For every outcome, and across a kill: counters begin at 0 and are exact.
#[test]
fn metrics_equal_the_oracle() {
    let mut up = Up::start();
    let (mut acknowledged, mut copies) = (0, 0);
    for more in [&["--batch", "1"][..], &["--batch", "50"], &["--batch", "20", "--duplicates", "10"]] {
        let shape = ["load", "--json", "--events", "3000", "--users", "50"];
        let report = report(&up.tool(&[&shape[..], more].concat()));
        acknowledged += report["acknowledged"].as_u64().unwrap();
        copies += report["duplicated"].as_u64().unwrap();
    }
    let refused = |up: &Up| {
        for query in ["user=&timestamp=1&click", "user=a&timestamp=x&click", "user=a&timestamp=1&event=view"] {
            assert_eq!(up.post(&format!("/analytics?{query}")).status, 400);
        }
        assert_eq!(up.post(&format!("/analytics?user=a&timestamp={}&click", i64::MAX)).status, 422);
    };
    refused(&up);
    assert!(acknowledged == 9_000 && copies > 100, "{acknowledged} and {copies} copies");
    let answered = |up: &Up, code| up.metric(&format!("millrace_command_events_total{{outcome=\"{code}\"}}"));
    let other = ["invalid-field", "outside-window", "outcome-unknown", "overloaded"];
    assert_eq!((answered(&up, "accepted"), up.stored()), (9_000 + copies, 9_000 + copies));
    assert_eq!(other.map(|code| answered(&up, code)), [3, 1, 0, 0]);
    let processed = |up: &Up| ["counted", "duplicates", "id_conflicts", "late"].map(|what| up.processed(what));
    let (counted, late) = (|up: &Up| up.processed("counted"), up.processed("late"));
    assert!(wait_until(WITHIN, || counted(&up) + up.processed("duplicates") == up.stored()), "{:?}", processed(&up));
    assert_eq!(processed(&up), [9_000, copies, 0, late]);
    caught_up(&up);
    let gauges = |up: &Up| {
        let forms = ["memory", "disk", "sketch"];
        let hours = forms.map(|form| up.metric(&format!("millrace_processor_hours{{form=\"{form}\"}}")));
        (hours.iter().sum::<u64>(), up.metric("millrace_processor_event_ids"))
    };
    let before = gauges(&up);
    assert!(before.0 == 24 && before.1 >= 3_000, "{before:?}");

    up.service.restart();
    up.service.wait_ready(up.command);
    assert_eq!((processed(&up), answered(&up, "accepted")), ([0; 4], 0));
    assert_eq!(gauges(&up), before, "gauges are restored before the first count");
    let event = |up: &Up, hours_ago: u64, rest: &str| {
        let timestamp = now_ms() - hours_ago * 3_600_000;
        assert_eq!(up.post(&format!("/analytics?user=a&timestamp={timestamp}&{rest}")).status, 204);
    };
    refused(&up);
    event(&up, 0, "click");
    event(&up, 50, "impression");
    event(&up, 5, "event=click&event_id=x");
    let at = now_ms();
    for kind in ["click", "click", "impression"] {
        let same = format!("/analytics?user=b&timestamp={at}&event={kind}&event_id=y");
        assert_eq!(up.post(&same).status, 204);
    }
    assert_eq!((answered(&up, "accepted"), up.stored()), (6, 9_006 + copies));
    assert_eq!(other.map(|code| answered(&up, code)), [3, 1, 0, 0]);
    assert!(wait_until(WITHIN, || processed(&up) == [4, 2, 1, 2]), "{:?}", processed(&up));
    caught_up(&up);
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    u64::try_from(now).unwrap()
}

/// Waits until stage and sink are at the end of the log, with empty queues and no restore.
fn caught_up(up: &Up) {
    let lag = |role| up.metric_if_any(&format!("millrace_lag_records{{role=\"{role}\",partition=\"0\"}}"));
    let lags = || ["processor", "materializer-archive"].map(lag);
    assert!(wait_until(WITHIN, || lags() == [Some(0), Some(0)]), "{:?}", lags());
    for at_rest in [
        "millrace_append_queue_records",
        "millrace_append_queue_bytes",
        "millrace_restore_offsets{role=\"processor\"}",
        "millrace_restore_offsets_done{role=\"processor\"}",
    ] {
        assert_eq!(up.metric_if_any(at_rest), Some(0), "{at_rest}");
    }
}
