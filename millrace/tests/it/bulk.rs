//! `import` and `export`: every event counts once, whatever is killed, and the export equals the import.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use millrace_testkit::{http, wait_until};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::run::{Up, WITHIN, stderr, stdout, tool};

const HOUR: u64 = 3_600_000;
/// A day without other events, long ago.
const DAY: u64 = 20_000 * 24 * HOUR;

/// The expected users, clicks and impressions of each hour.
type Oracle = BTreeMap<u64, (BTreeSet<String>, u64, u64)>;

struct Event {
    timestamp: u64,
    user: String,
    click: bool,
}

/// Events over some hours, with recurring users.
fn events(count: u64) -> Vec<Event> {
    let event = |n: u64| Event {
        timestamp: DAY + (n % 5) * HOUR + n % HOUR,
        user: format!("u \"{}\", ü", n.wrapping_mul(2_654_435_761) % 701),
        click: n.is_multiple_of(3),
    };
    (0..count).map(event).collect()
}

fn oracle(events: &[Event]) -> Oracle {
    let mut oracle = Oracle::new();
    for event in events {
        let (users, clicks, impressions) = oracle.entry(event.timestamp - event.timestamp % HOUR).or_default();
        users.insert(event.user.clone());
        *if event.click { clicks } else { impressions } += 1;
    }
    oracle
}

fn kind(event: &Event) -> &'static str {
    if event.click { "click" } else { "impression" }
}

fn ndjson(events: &[Event]) -> String {
    let line = |e: &Event| serde_json::json!({"timestamp": e.timestamp, "user": e.user, "event": kind(e)}).to_string();
    events.iter().map(|event| line(event) + "\n").collect()
}

fn csv(events: &[Event]) -> String {
    let mut text = "event,user,timestamp\r\n".to_owned();
    for event in events {
        let _ = write!(text, "{},\"{}\",{}\r\n", kind(event), event.user.replace('"', "\"\""), event.timestamp);
    }
    text
}

fn file(folder: &Path, name: &str, content: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    path
}

fn import(up: &Up, file: &Path, more: &[&str]) -> Output {
    let arguments = [&["import", "--json", file.to_str().unwrap()], more].concat();
    up.tool(&arguments)
}

fn report(output: &Output) -> Value {
    serde_json::from_str(stdout(output).trim()).unwrap_or_else(|e| panic!("{e}: {}{}", stdout(output), stderr(output)))
}

/// Runs a tool against the services under test.
type Run<'a> = &'a dyn Fn(&[&str]) -> Output;

/// The export of the day's hours.
fn export_day(run: Run<'_>, format: &str) -> String {
    let (from, to) = (DAY.to_string(), (DAY + 24 * HOUR).to_string());
    let output = run(&["export", "--from", &from, "--to", &to, "--format", format]);
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output)
}

/// Waits until the day's hours equal the oracle.
fn assert_counted(up: &Up, oracle: &Oracle) {
    assert_counted_by(&|arguments| up.tool(arguments), oracle);
}

fn assert_counted_by(run: Run<'_>, oracle: &Oracle) {
    let mut expected = String::new();
    for hour in (0..24).map(|hour| DAY + hour * HOUR) {
        let none = (BTreeSet::new(), 0, 0);
        let (users, clicks, impressions) = oracle.get(&hour).unwrap_or(&none);
        let _ = writeln!(expected, "{hour},{},{clicks},{impressions}", users.len());
    }
    let read = || {
        let rows = export_day(run, "csv");
        let rows = rows.lines().skip(1).map(|row| row.split(',').skip(1).take(4).collect::<Vec<_>>().join(",") + "\n");
        rows.collect::<String>()
    };
    assert!(wait_until(WITHIN, || read() == expected), "expected\n{expected}got\n{}", read());
}

#[test]
fn export_equals_import() {
    let up = Up::start();
    let folder = up.directory.path();
    let events = events(6_000);
    let oracle_of_all = oracle(&events);
    let (first, second) = events.split_at(3_500);
    for (path, count) in [
        (file(folder, "a.ndjson", &ndjson(first)), 3_500),
        (file(folder, "b.csv", &format!("\u{feff}{}", csv(second))), 2_500),
    ] {
        let output = import(&up, &path, &["--batch", "300"]);
        let report = report(&output);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!((&report["accepted"], &report["bad"]), (&count.into(), &0.into()), "{report}");
    }
    assert_counted(&up, &oracle_of_all);

    let target = format!("/analytics/range?from={DAY}&to={}", DAY + 24 * HOUR);
    for (format, media) in [("csv", "text/csv"), ("json", "application/json"), ("ndjson", "application/x-ndjson")] {
        let served = http(up.query, "GET", &target, &[("accept", media)], "").unwrap().into_text();
        assert_eq!(
            export_day(&|arguments| up.tool(arguments), format),
            served,
            "the export equals the response of the service"
        );
    }
    let by_day = |more: &[&str]| {
        // Eighty days need several requests.
        let to = (DAY + 80 * 24 * HOUR).to_string();
        up.tool(
            &[&["export", "--from", &DAY.to_string(), "--to", &to, "--step", "day", "--format", "json"], more].concat(),
        )
    };
    let days: Value = serde_json::from_str(&stdout(&by_day(&[]))).unwrap();
    assert_eq!(days["rows"].as_array().unwrap().len(), 80);
    assert_eq!((&days["totals"]["clicks"], &days["totals"]["hours"]), (&2_000.into(), &1_920.into()));
    let path = folder.join("days.json");
    assert!(by_day(&["--output", path.to_str().unwrap()]).status.success());
    assert_eq!(serde_json::from_slice::<Value>(&fs::read(&path).unwrap()).unwrap(), days);
}

/// Kills an import twice in the middle and resumes it. `run` and `arguments` both select the services.
fn assert_killed_imports_resume(run: Run<'_>, arguments: &[String]) {
    let folder = tempfile::tempdir().unwrap();
    let events = events(60_000);
    let path = file(folder.path(), "events.csv", &csv(&events));
    let path = path.to_str().unwrap();
    let checkpoint = folder.path().join("events.csv.millrace-import");
    let line = || {
        let text = fs::read_to_string(&checkpoint).unwrap_or_default();
        serde_json::from_str::<Value>(&text).ok().and_then(|value| value["mark"]["line"].as_u64()).unwrap_or_default()
    };
    for beyond in [5_000, 25_000] {
        let mut import = tool(&["import", "--batch", "100", "--connections", "3", path]);
        let mut import = import.args(arguments).stdout(Stdio::null()).spawn().unwrap();
        assert!(wait_until(WITHIN, || line() > beyond || import.try_wait().unwrap().is_some()));
        import.kill().unwrap();
        let status = import.wait().unwrap();
        assert!(status.code().is_none() && (beyond..60_001).contains(&line()), "killed in the middle: {}", line());
    }
    let output = run(&["import", "--json", path]);
    let report = report(&output);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(report["from_line"].as_u64() > Some(25_000), "{report}");
    assert_eq!((&report["accepted"], &report["lines"]), (&60_000.into(), &60_001.into()), "{report}");
    assert_counted_by(run, &oracle(&events));
}

#[test]
fn a_killed_import_resumes() {
    let up = Up::start();
    assert_killed_imports_resume(&|arguments| up.tool(arguments), &up.arguments());
    assert!(up.stored() >= 60_000, "{}", up.stored());
}

#[test]
fn a_killed_import_resumes_on_kafka() {
    let Some(cluster) = Cluster::on_shared_servers("a killed import", 1) else { return };
    let at = |role| format!("http://{}", cluster.publics(role)[0]);
    let (command, query) = (at("command"), at("query"));
    let run = |arguments: &[&str]| {
        let to = if arguments[0] == "import" { ["--command", &command] } else { ["--query", &query] };
        cluster.tool(&[arguments, &to].concat())
    };
    assert_killed_imports_resume(&run, &["--command".to_owned(), command.clone()]);
}

#[test]
fn import_waits_for_an_unavailable_service() {
    let mut up = Up::start();
    let events = events(20_000);
    let path = file(up.directory.path(), "events.ndjson", &ndjson(&events));
    let mut import = tool(&["import", "--json", "--batch", "50", path.to_str().unwrap()]);
    let import = import.args(up.arguments()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    assert!(wait_until(WITHIN, || up.stored() > 1_000), "the import goes on when the process is killed");
    up.service.restart();
    up.service.wait_ready(up.command);
    let output = import.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(report(&output)["accepted"], 20_000);
    assert_counted(&up, &oracle(&events));
}

#[test]
fn import_reports_rejected_lines_and_sends_all_others() {
    let up = Up::start();
    let folder = up.directory.path();
    let far = DAY * 10;
    let long = "x".repeat(100);
    let good = format!(r#"{{"timestamp":{DAY},"user":"u","event":"click"}}"#);
    let text = format!(
        "{good}\n{{\"timestamp\":{far},\"user\":\"u\",\"event\":\"click\"}}\n\nnonsense\n{good}\n\
         {{\"timestamp\":1,\"user\":\"u\",\"event\":\"{long}\"}}\n"
    );
    let path = file(folder, "mixed.ndjson", &text);

    let output = up.tool(&["import", "--dry-run", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let said = stdout(&output);
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[0].starts_with("line 4: malformed-body: "), "{said}");
    assert!(lines[1].starts_with("line 6: invalid-field: event is click or impression"), "{said}");
    assert!(!said.contains(&long[..65]), "{said}");
    assert_eq!(lines[2], "3 events, 2 lines invalid; nothing was sent");
    assert_eq!(up.stored(), 0);

    let output = import(&up, &path, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let report = report(&output);
    assert_eq!((&report["accepted"], &report["bad"]), (&2.into(), &2.into()), "{report}");
    assert_eq!(report["refused"], serde_json::json!({"outside-window": 1}));
    let rejects = fs::read_to_string(folder.join("mixed.ndjson.millrace-rejects")).unwrap();
    let rejects: Vec<Value> = rejects.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let named: Vec<_> = rejects.iter().map(|r| (r["line"].as_u64().unwrap(), r["code"].as_str().unwrap())).collect();
    assert_eq!(named, [(2, "outside-window"), (4, "malformed-body"), (6, "invalid-field")]);
    assert_eq!(rejects[0]["field"], "timestamp");
}

#[test]
fn import_refuses_an_imported_file_without_again() {
    let up = Up::start();
    let folder = up.directory.path();
    let events = events(100);
    let path = file(folder, "events.ndjson", &ndjson(&events));
    assert!(import(&up, &path, &[]).status.success());
    let refused = import(&up, &path, &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("--again"), "{}", stderr(&refused));
    // The checkpoint lost, the same lines have the same ids: nothing counts twice.
    let state = folder.join("state");
    fs::create_dir(&state).unwrap();
    let elsewhere = import(&up, &path, &["--state", state.to_str().unwrap()]);
    assert!(elsewhere.status.success(), "{}", stderr(&elsewhere));
    assert!(state.join("events.ndjson.millrace-import").exists());
    assert_counted(&up, &oracle(&events));
    assert!(import(&up, &path, &["--again"]).status.success());
    let twice: Vec<Event> = self::events(100).into_iter().chain(self::events(100)).collect();
    assert_counted(&up, &oracle(&twice));

    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"\n").unwrap();
    for more in [&[][..], &["--again"]] {
        let refused = import(&up, &path, more);
        assert_eq!(refused.status.code(), Some(2));
        assert!(stderr(&refused).contains("not the file"), "{}", stderr(&refused));
    }
    assert_eq!(up.stored(), 300);
}

/// The state of an import is of one log: into another one the same file is new, and the first remembers it all the same.
#[test]
fn an_import_into_another_log_is_another_import() {
    let (one, other) = (Up::start(), Up::start());
    let events = events(200);
    let path = file(one.directory.path(), "events.ndjson", &ndjson(&events));
    for up in [&one, &other] {
        let output = import(up, &path, &[]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_counted(up, &oracle(&events));
    }
    for up in [&one, &other] {
        let refused = import(up, &path, &[]);
        let service = format!("already imported into the log of http://{}", up.command);
        assert_eq!(refused.status.code(), Some(2));
        assert!(stderr(&refused).contains(&service), "{}", stderr(&refused));
        assert_eq!(up.stored(), 200);
    }
    // One that is not complete is not replaced.
    let checkpoint = one.directory.path().join("events.ndjson.millrace-import");
    let incomplete = fs::read_to_string(&checkpoint).unwrap().replace("\"completed\": true", "\"completed\": false");
    fs::write(&checkpoint, incomplete).unwrap();
    let refused = import(&one, &path, &[]);
    assert_eq!(refused.status.code(), Some(2));
    let why = format!("its import into the log of http://{} is not complete", other.command);
    assert!(stderr(&refused).contains(&why), "{}", stderr(&refused));
}

#[test]
fn a_second_import_of_a_file_at_once_is_refused() {
    let up = Up::start();
    let path = file(up.directory.path(), "events.ndjson", &ndjson(&events(10)));
    let first = fs::File::open(&path).unwrap();
    first.lock().unwrap();
    let refused = import(&up, &path, &[]);
    assert_eq!(refused.status.code(), Some(2));
    let why = format!("{}: another import of this file is running", path.display());
    assert!(stderr(&refused).contains(&why), "{}", stderr(&refused));
    assert_eq!(up.stored(), 0);
    drop(first);
    assert!(import(&up, &path, &[]).status.success());
}

#[test]
fn imports_standard_input() {
    let up = Up::start();
    let events = events(1_500);
    let mut import = tool(&["import", "--json", "--format", "csv", "-"]);
    import.args(up.arguments()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut import = import.spawn().unwrap();
    let mut stdin = import.stdin.take().unwrap();
    stdin.write_all((csv(&events) + "no,record\n").as_bytes()).unwrap();
    drop(stdin);
    let output = import.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("line 1502: malformed-body: 2 columns"), "{}", stderr(&output));
    assert_eq!(report(&output)["accepted"], 1_500);
    assert_counted(&up, &oracle(&events));
}

#[test]
fn import_and_export_report_why_they_stop() {
    let up = Up::start();
    let folder = up.directory.path();
    let no_header = file(folder, "a.csv", "1,u,click\n");
    let unknown = file(folder, "a.txt", "");
    let closed = format!("http://127.0.0.1:{}", millrace_testkit::free_port());
    let fine = file(folder, "b.ndjson", &ndjson(&events(3)));
    let from_to = ["--from", "1970-01-02", "--to", "1970-01-01"];
    let range = ["--from", "1970-01-01", "--to", "1970-01-02"];
    for (arguments, code, why) in [
        (vec!["import", no_header.to_str().unwrap()], 2, "unknown column \"1\""),
        (vec!["import", unknown.to_str().unwrap()], 2, "--format"),
        (vec!["import", folder.to_str().unwrap(), "--format", "csv"], 2, "not a file"),
        (vec!["import", "/no/such.csv"], 2, "/no/such.csv: No such file"),
        (vec!["import", fine.to_str().unwrap(), "--command", &closed, "--patience", "300ms"], 2, "gave up"),
        ([&["export"][..], &from_to].concat(), 2, "later than --from"),
        ([&["export"][..], &range, &["--query", &closed, "--timeout", "100ms"]].concat(), 1, "try again later"),
        ([&["export"][..], &range, &["--output", "/no/such/file"]].concat(), 2, "/no/such/file"),
    ] {
        let output = up.tool(&arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(why), "{arguments:?}: {}", stderr(&output));
        assert!(arguments[0] != "export" || output.stdout.is_empty(), "{arguments:?}: {}", stdout(&output));
        assert!(!stdout(&output).contains("resumes"), "{arguments:?}: {}", stdout(&output));
    }
    // The import that gave up resumes.
    assert!(import(&up, &fine, &[]).status.success());
    assert_counted(&up, &oracle(&events(3)));
}
