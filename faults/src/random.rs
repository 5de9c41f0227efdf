//! A random run: load, readers and nemesis for some time; then the repair, the comparison, and new events.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millrace_testkit::http;

use crate::check::{self, Comparison};
use crate::event::Shape;
use crate::load::{Load, Pace, Run};
use crate::meter::Meter;
use crate::nemesis;
use crate::print;
use crate::report::Part;
use crate::system::{Engine, Setup, System};
use crate::watcher::Watcher;

/// The longest wait after the repair until every count is equal.
pub const SETTLE: Duration = Duration::from_secs(90);
/// The longest wait until a new event is visible.
pub const FRESH: Duration = Duration::from_secs(30);
/// The default number of distinct users.
pub const USERS: u64 = 3_000;
/// Events sent after the comparison, without faults, to check the metrics.
const LAST: u64 = 300;
/// Shorter runs may miss some kinds of faults.
const LONG_RUN: Duration = Duration::from_mins(2);

/// The parameters of a random run.
#[derive(Debug, Clone)]
pub struct RandomRun {
    /// The system.
    pub setup: Setup,
    /// Determines events and schedule.
    pub seed: u64,
    /// The length of the schedule.
    pub length: Duration,
    /// The pace of the load.
    pub pace: Pace,
    /// Whether the binary has fail points.
    pub fail_points: bool,
}

/// A run of the current hour on this system, with event ids if the binary supports them.
pub fn new_run(system: &System, seed: u64, users: u64, hot: u64) -> Arc<Run> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    // Without a timestamp the request is invalid; its error names event_id only if that is an unknown parameter.
    let probe = system.commands().first().map(|address| http(*address, "POST", "/analytics?event_id=x", &[], ""));
    let ids = !probe.is_some_and(|response| response.is_ok_and(|response| response.text().contains("event_id")));
    let shape = Shape { seed, base_hour: now / 3_600, ids, users, hot };
    Run::new(shape, system.commands())
}

/// Executes a random run.
///
/// # Errors
/// If the system cannot be started.
pub fn random(name: &str, plan: &RandomRun) -> Result<Part, String> {
    let begun = Instant::now();
    let mut part = Part::new(name, "Load, readers and a seeded nemesis; then repair and comparison.");
    let schedule = nemesis::schedule(plan.setup.engine, plan.seed, plan.length, plan.fail_points);
    print(&format!("{name}: {} faults in {} s", schedule.len(), plan.length.as_secs()));
    for act in &schedule {
        print(&format!("  {act}"));
    }
    let mut system = System::start(&plan.setup)?;
    let run = new_run(&system, plan.seed, USERS, 0);
    let meter = Meter::start(system.admins());
    let watcher = Watcher::start(&system.queries(), &run.shape);
    let load = Load::start(&run, plan.pace);
    let execution = nemesis::execute(&mut system, &schedule, plan.length);
    if let Err(why) = system.repair_all().and_then(|()| system.wait_ready()) {
        part.differences.push(why);
    }
    load.finish(Duration::from_secs(30));
    let outcome = check::settle(&mut system, &run, SETTLE);
    part.must(
        outcome.differences.is_empty(),
        format!("everything equal {:.1} s after the repair", outcome.took.as_secs_f64()),
    );
    part.differences.extend(outcome.differences.iter().cloned());
    if part.differences.is_empty() {
        last_batch(&mut part, &mut system, &run, &meter);
    }
    part.tally = execution.tally;
    part.differences.extend(execution.failures);
    report_run(&mut part, &system, &run, &outcome, &meter);
    report_reads(&mut part, &watcher);
    expect(&mut part, plan, &run, &system);
    part.took = begun.elapsed();
    Ok(part)
}

/// Sends events without faults: they become visible, and the metrics report their exact number.
pub fn last_batch(part: &mut Part, system: &mut System, run: &Run, meter: &Meter) {
    let accepted = |meter: &Meter| meter.total("millrace_command_events_total", "accepted");
    meter.scrape();
    let (before, acknowledged) = (accepted(meter), run.oracle.answered("acknowledged"));
    for _ in 0..LAST {
        if let Err(why) = run.send_one(FRESH) {
            part.differences.push(why);
            return;
        }
    }
    let outcome = check::settle(system, run, FRESH);
    part.must(outcome.differences.is_empty(), format!("new events visible within {:.1} s", outcome.took.as_secs_f64()));
    part.differences.extend(outcome.differences);
    meter.scrape();
    let (counted, sent) = (accepted(meter) - before, run.oracle.answered("acknowledged") - acknowledged);
    part.must(counted == sent, format!("{counted} accepted by the metrics, {sent} by the oracle"));
}

/// Adds answers, records, restarts and metrics to a report.
pub fn report_run(part: &mut Part, system: &System, run: &Run, outcome: &Comparison, meter: &Meter) {
    let answers: Vec<String> = run.oracle.answers().iter().map(|(word, count)| format!("{word} {count}")).collect();
    part.fact(format!("answers: {}", answers.join(", ")));
    part.fact(format!(
        "log: {} records, {} repeats of an event id; of the unknown {} were stored, {} were not",
        outcome.records, outcome.repeats, outcome.unknown_stored, outcome.unknown_lost
    ));
    let ends: Vec<String> =
        system.nodes.iter().flat_map(|node| node.ends.iter().map(|end| format!("{}: {end}", node.name))).collect();
    part.fact(format!("unexpected exits of processes, each followed by a restart: {}", ends.len()));
    part.fact(format!(
        "aborted steps {}, rebuilt partitions {}, duplicates dropped {}",
        meter.total("millrace_stage_aborts_total", ""),
        meter.total("millrace_materializer_rebuilds_total", ""),
        meter.total("millrace_processor_duplicates_total", ""),
    ));
    for node in &system.nodes {
        for line in node.log().lines().filter(|line| line.contains("panicked at")) {
            part.differences.push(format!("{}: {line}", node.name));
        }
    }
}

/// Adds the results of the reader sessions to a report.
pub fn report_reads(part: &mut Part, watcher: &Watcher) {
    let stats = watcher.stats();
    part.fact(format!(
        "readers: {} reads, {} rebuilding, {} failed, {} counts fell with a change of read model; longest gap {} ms",
        stats.reads, stats.rebuilding, stats.failed, stats.behind, stats.longest_gap_ms
    ));
    part.differences.extend(stats.falls);
}

fn expect(part: &mut Part, plan: &RandomRun, run: &Run, system: &System) {
    for (kind, tally) in &part.tally {
        if tally.fired < tally.scheduled {
            part.unmet.push(format!("{kind} was scheduled {} times and fired {}", tally.scheduled, tally.fired));
        }
    }
    let acknowledged = run.oracle.acknowledged();
    part.sometimes("events acknowledged", acknowledged);
    if plan.length < LONG_RUN {
        return;
    }
    let effective =
        |word: &str| part.tally.iter().filter(|(kind, _)| kind.contains(word)).map(|(_, t)| t.effective).sum::<u64>();
    let kinds = ["kill -9", "freeze", "SIGTERM", "link"].map(|word| (word, effective(word)));
    for (word, count) in kinds {
        part.sometimes(&format!("{word} took effect"), count);
    }
    let unknown = run.oracle.answered("no answer") + run.oracle.answered("outcome-unknown");
    part.sometimes("unknown outcomes", unknown);
    part.sometimes("events sent again", run.oracle.answered("no connection") + run.oracle.answered("503"));
    if plan.fail_points {
        let crashes = part.tally.iter().filter(|(kind, _)| kind.starts_with("crash")).map(|(_, t)| t.effective).sum();
        part.sometimes("crashes at fail points took effect", crashes);
    }
    if plan.setup.engine == Engine::Kafka {
        let fenced: u64 = system.nodes.iter().map(|node| node.log().matches("fenced").count() as u64).sum();
        part.fact(format!("log lines about fencing: {fenced}"));
    }
}
