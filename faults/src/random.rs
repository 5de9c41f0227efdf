//! A random run: load, watchers and nemesis for a while; then everything is mended, compared, and tried once more.

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

/// After everything was mended: until every number is right.
pub const SETTLE: Duration = Duration::from_secs(90);
/// Until a fresh event is visible.
pub const FRESH: Duration = Duration::from_secs(30);
/// Different users of a run that is not about users.
pub const USERS: u64 = 3_000;
/// Events that are sent at the end, undisturbed, to hold the metrics against.
const LAST: u64 = 300;
/// Shorter runs need not have met everything.
const LONG_RUN: Duration = Duration::from_mins(2);

/// What a random run is to be.
#[derive(Debug, Clone)]
pub struct RandomRun {
    /// What runs.
    pub setup: Setup,
    /// Decides events and schedule.
    pub seed: u64,
    /// How long faults are injected.
    pub length: Duration,
    /// How fast is sent.
    pub pace: Pace,
    /// Whether the binary has fail points.
    pub fail_points: bool,
}

/// A run of the current hour on this system, with event ids if the binary takes them.
pub fn new_run(system: &System, seed: u64, users: u64, hot: u64) -> Arc<Run> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    // Without a timestamp no event comes of it; which fault is named tells whether the parameter is known.
    let asked = system.commands().first().map(|address| http(*address, "POST", "/analytics?event_id=x", &[], ""));
    let ids = !asked.is_some_and(|answer| answer.is_ok_and(|answer| answer.text().contains("event_id")));
    let shape = Shape { seed, base_hour: now / 3_600, ids, users, hot };
    Run::new(shape, system.commands())
}

/// Runs it.
///
/// # Errors
/// If the system cannot be started.
pub fn random(name: &str, plan: &RandomRun) -> Result<Part, String> {
    let begun = Instant::now();
    let mut part = Part::new(name, "Load, watchers and a seeded nemesis; then everything mended and compared.");
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
    let done = nemesis::execute(&mut system, &schedule, plan.length);
    if let Err(why) = system.heal().and_then(|()| system.wait_ready()) {
        part.differences.push(why);
    }
    load.finish(Duration::from_secs(30));
    let outcome = check::settle(&mut system, &run, SETTLE);
    part.must(
        outcome.differences.is_empty(),
        format!("everything equal {:.1} s after healing", outcome.took.as_secs_f64()),
    );
    part.differences.extend(outcome.differences.iter().cloned());
    if part.differences.is_empty() {
        last_batch(&mut part, &mut system, &run, &meter);
    }
    part.tally = done.tally;
    part.differences.extend(done.troubles);
    report_run(&mut part, &system, &run, &outcome, &meter);
    report_reads(&mut part, &watcher);
    expect(&mut part, plan, &run, &system);
    part.took = begun.elapsed();
    Ok(part)
}

/// Undisturbed events: visible soon, and the metrics say exactly how many they were.
pub fn last_batch(part: &mut Part, system: &mut System, run: &Run, meter: &Meter) {
    let accepted = |meter: &Meter| meter.total("millrace_command_events_total", "accepted");
    meter.look();
    let (before, acknowledged) = (accepted(meter), run.oracle.answered("acknowledged"));
    for _ in 0..LAST {
        if let Err(why) = run.send_one(FRESH) {
            part.differences.push(why);
            return;
        }
    }
    let outcome = check::settle(system, run, FRESH);
    part.must(
        outcome.differences.is_empty(),
        format!("fresh events visible within {:.1} s", outcome.took.as_secs_f64()),
    );
    part.differences.extend(outcome.differences);
    meter.look();
    let (counted, sent) = (accepted(meter) - before, run.oracle.answered("acknowledged") - acknowledged);
    part.must(counted == sent, format!("the metrics say {counted} accepted, the oracle {sent}"));
}

/// What was sent, answered, stored and restarted.
pub fn report_run(part: &mut Part, system: &System, run: &Run, outcome: &Comparison, meter: &Meter) {
    let answers: Vec<String> = run.oracle.answers().iter().map(|(word, count)| format!("{word} {count}")).collect();
    part.fact(format!("answers: {}", answers.join(", ")));
    part.fact(format!(
        "log: {} records, {} repeats of an event id; of the unknown {} were stored, {} were not",
        outcome.records, outcome.repeats, outcome.unknown_stored, outcome.unknown_lost
    ));
    let ends: Vec<String> =
        system.nodes.iter().flat_map(|node| node.ends.iter().map(|end| format!("{}: {end}", node.name))).collect();
    part.fact(format!("processes that ended by themselves and were started again: {}", ends.len()));
    part.fact(format!(
        "aborted steps {}, rebuilt partitions {}, duplicates left out {}",
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

/// What the sessions saw.
pub fn report_reads(part: &mut Part, watcher: &Watcher) {
    let seen = watcher.seen();
    part.fact(format!(
        "watchers: {} reads, {} rebuilding, {} failed, {} fell as another read model answered; longest gap {} ms",
        seen.reads, seen.rebuilding, seen.failed, seen.behind, seen.longest_gap_ms
    ));
    part.differences.extend(seen.falls);
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
    let felt = |word: &str| part.tally.iter().filter(|(kind, _)| kind.contains(word)).map(|(_, t)| t.felt).sum::<u64>();
    let kinds = ["kill -9", "freeze", "SIGTERM", "link"].map(|word| (word, felt(word)));
    for (word, count) in kinds {
        part.sometimes(&format!("felt: {word}"), count);
    }
    let unknown = run.oracle.answered("no answer") + run.oracle.answered("outcome-unknown");
    part.sometimes("unknown outcomes", unknown);
    part.sometimes("events sent again", run.oracle.answered("no connection") + run.oracle.answered("503"));
    if plan.fail_points {
        let crashes = part.tally.iter().filter(|(kind, _)| kind.starts_with("crash")).map(|(_, t)| t.felt).sum();
        part.sometimes("felt: crashes at fail points", crashes);
    }
    if plan.setup.engine == Engine::Kafka {
        let fenced: u64 = system.nodes.iter().map(|node| node.log().matches("fenced").count() as u64).sum();
        part.fact(format!("lines of logs that tell of fencing: {fenced}"));
    }
}
