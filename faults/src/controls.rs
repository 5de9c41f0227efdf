//! Negative controls: each sabotage of the product must turn the harness red, or the harness proves nothing.

#![expect(clippy::unnecessary_wraps, reason = "every script has the one type, whether it can fail or not")]

use std::process::Command;
use std::time::{Duration, Instant};

use millrace_testkit::Link;

use crate::cluster::{Cluster, Script};
use crate::fault::Fault;
use crate::intake::journal_writes;
use crate::options::Options;
use crate::order;
use crate::report::Part;
use crate::scenarios::{
    lost_end, lost_replies, messages_and_a_kill_of_the_writer, messages_and_kills_of_up, messages_and_one_kill,
    messages_behind_a_cut_link, messages_behind_a_missing_one, messages_sent_twice, push_setup, pushes_and_kills,
    rewind_group,
};
use crate::synced;
use crate::system::{Engine, READY, Setup};

/// A short wait: wrong counts stay wrong.
const SETTLE: Duration = Duration::from_secs(15);

/// In every difference of counts and of the log: "7, not 8". A process that is not ready proves nothing.
const COUNTS: &str = ", not ";
/// What a processor states that refuses a state whose position is not the offset committed with it.
const REFUSAL: &str = " contains position ";
/// In every difference between answers over TCP and a journal: a message stands there too often or too rarely, or before one
/// that came earlier.
const JOURNAL: &str = " stands ";

/// A sabotage, and the script that reveals it.
struct Control {
    sabotage: &'static str,
    /// Further fail points, after a semicolon.
    also: &'static str,
    /// Part of each difference that reveals it.
    reveals: &'static str,
    /// The longest wait for processes to be ready once they have started: short where the sabotage keeps one from it.
    ready: Duration,
    setup: fn(Engine) -> Setup,
    play: Script,
}

impl Control {
    /// One of the usual system, without further fail points: counts must reveal it.
    const fn new(sabotage: &'static str, play: Script) -> Self {
        Self { sabotage, also: "", reveals: COUNTS, ready: READY, setup: Setup::new, play }
    }

    /// One of offsets that run ahead of the state: the processor refuses to go on, and is not ready.
    const fn of_offsets(play: Script) -> Self {
        Self { reveals: REFUSAL, ready: SETTLE, ..Self::new("offset-before-state", play) }
    }

    /// One of the clients of row `topics`.
    const fn of_topics(sabotage: &'static str) -> Self {
        Self { reveals: "handed out after its acknowledgement", ..Self::new(sabotage, messages_and_one_kill) }
    }

    /// One of messages over TCP, without any events: the journal must reveal it.
    const fn of_tcp(sabotage: &'static str, play: Script) -> Self {
        Self { reveals: JOURNAL, setup: Setup::with_intake, ..Self::new(sabotage, play) }
    }

    /// One of the system that row `push` has.
    const fn of_push(sabotage: &'static str, reveals: &'static str) -> Self {
        Self { reveals, setup: push_setup, ..Self::new(sabotage, pushes_and_kills) }
    }
}

/// The journal refuses its files.
const CUT_JOURNAL_SHORT: Control =
    Control { ready: SETTLE, ..Control::of_tcp("cut-journal-short", messages_and_a_kill_of_the_writer) };

const EMBEDDED: &[Control] = &[
    Control::new("answer-early", kills_of_up),
    Control::of_offsets(crashes_of_up),
    Control::new("skip-dedup", repeated_ids),
    Control::of_topics("answer-acks-early"),
    Control::of_tcp("answer-early", messages_and_kills_of_up),
    Control::of_tcp("skip-dedup", messages_sent_twice),
    Control::of_tcp("forget-ranges", messages_sent_twice),
    Control::of_tcp("ignore-missing-index", messages_behind_a_missing_one),
    CUT_JOURNAL_SHORT,
    Control::of_push("settle-before-answer", "was never taken"),
    Control::of_push("forget-retries", "was never taken"),
    Control::of_push("ignore-bulkhead", "violated: slow endpoints had"),
];

const KAFKA: &[Control] = &[
    Control::new("answer-early", kills_behind_a_cut_link),
    Control::of_offsets(crashes_of_processors),
    Control {
        also: order::STALL,
        reveals: "newer than their offsets",
        ..Control::new("produce-after-offsets", late_records)
    },
    Control::new("skip-dedup", repeated_ids),
    Control::new("skip-position-check", rewound_offsets),
    Control { reveals: "refuses records", ..Control::new("ignore-position-identity", lost_end) },
    Control::new("skip-producer-numbers", lost_replies),
    Control::of_topics("answer-acks-early"),
    Control::of_tcp("answer-early", messages_behind_a_cut_link),
    Control::of_tcp("skip-dedup", messages_sent_twice),
    Control::of_tcp("forget-ranges", messages_sent_twice),
    Control::of_tcp("ignore-missing-index", messages_behind_a_missing_one),
    CUT_JOURNAL_SHORT,
    Control::of_push("settle-before-answer", "was never taken"),
    Control::of_push("forget-retries", "was never taken"),
    Control::of_push("ignore-bulkhead", "violated: slow endpoints had"),
];

/// Runs the controls of an engine; a part is green if the comparison detects its sabotage.
pub fn run(engine: Engine, options: &Options, take: &mut dyn FnMut(Part)) {
    let controls = match engine {
        Engine::Embedded => EMBEDDED,
        Engine::Kafka => KAFKA,
    };
    for control in controls {
        take(one(engine, options, control));
    }
    if engine == Engine::Embedded {
        take(skip_sync(options, "embedded control skip-sync", "responses", synced::answers));
        take(skip_sync(options, "embedded control skip-sync, tcp", "writes to the journal", journal_writes));
    }
}

/// Runs one control by name.
pub fn named(engine: Engine, options: &Options, sabotage: &str) -> Option<Part> {
    let controls = if engine == Engine::Embedded { EMBEDDED } else { KAFKA };
    controls.iter().find(|control| control.sabotage == sabotage).map(|control| one(engine, options, control))
}

fn one(engine: Engine, options: &Options, control: &Control) -> Part {
    let begun = Instant::now();
    let name =
        format!("{engine} control {}{}", control.sabotage, if control.reveals == JOURNAL { ", tcp" } else { "" });
    let mut part = Part::new(&name, "The product sabotaged; the comparison must detect it.");
    crate::print(&name);
    if !options.fail_points {
        part.unmet.push("the binary has no fail points".to_owned());
        return part;
    }
    let variable = ("FAILPOINTS".to_owned(), format!("sabotage::{}=return{}", control.sabotage, control.also));
    let setup = Setup { environment: vec![variable], ..(control.setup)(engine) };
    match Cluster::start(&setup, options, 500, 0) {
        Ok(mut cluster) => {
            cluster.settle = SETTLE;
            cluster.system.ready = control.ready;
            let red = cluster.play(&name, "", control.play);
            let revealing = red.differences.iter().filter(|found| found.contains(control.reveals));
            part.facts = revealing.take(3).map(|found| format!("detected: {found}")).collect();
            if part.facts.is_empty() {
                part.differences.push("the sabotage was not detected".to_owned());
                part.facts.extend(red.facts);
                part.facts.extend(red.differences);
            }
            part.unmet = red.unmet;
        }
        Err(why) => part.unmet.push(why),
    }
    part.took = begun.elapsed();
    part
}

/// Traces a sabotaged process: the number of `what`, and of those that came after a sync.
fn skip_sync(options: &Options, name: &str, what: &str, trace: fn(&str) -> Result<(u64, u64), String>) -> Part {
    let begun = Instant::now();
    let mut part = Part::new(name, "The product sabotaged; the system calls must reveal it.");
    if !options.fail_points || Command::new("strace").arg("-V").output().is_err() {
        part.unmet.push("a binary with fail points and strace are required".to_owned());
        return part;
    }
    match trace("sabotage::skip-sync=return") {
        Ok((all, after_sync)) => {
            part.must(after_sync < all, format!("{after_sync} of {all} {what} came after a completed sync"));
        }
        Err(why) => part.unmet.push(why),
    }
    part.took = begun.elapsed();
    part
}

fn pause(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn kills_of_up(cluster: &mut Cluster, _: &mut Part) -> Result<(), String> {
    cluster.send(4_000);
    for round in 0..8 {
        cluster.pass(pause(500 + 77 * round));
        cluster.system.node("up-1").kill();
        cluster.system.node("up-1").start();
        cluster.system.wait_ready()?;
    }
    Ok(())
}

fn kills_behind_a_cut_link(cluster: &mut Cluster, _: &mut Part) -> Result<(), String> {
    cluster.send(1_000);
    cluster.pass(pause(2_000));
    cluster.system.set_link("kafka-command-1", Link::Cut);
    cluster.pass(pause(1_000));
    cluster.system.node("command-1").kill();
    Ok(())
}

fn crashes_of_up(cluster: &mut Cluster, _: &mut Part) -> Result<(), String> {
    cluster.send(1_000);
    // Between the two commits, if the one that dies is the first: one of about three.
    crash(cluster, "up-1", &["embedded::sync", "embedded::commit"].repeat(5))
}

fn crashes_of_processors(cluster: &mut Cluster, _: &mut Part) -> Result<(), String> {
    cluster.send(1_000);
    let points = ["kafka::stage::applied", "kafka::stage::produced", "kafka::stage::drained"];
    crash(cluster, "processor-1", &points)?;
    crash(cluster, "processor-2", &points)
}

fn crash(cluster: &mut Cluster, node: &str, points: &[&'static str]) -> Result<(), String> {
    for (seed, point) in points.iter().enumerate() {
        let fault = Fault::Crash(node.to_owned(), point, seed as u64);
        let before = fault.effects(&mut cluster.system);
        fault.inject(&mut cluster.system)?;
        cluster.wait_for(pause(8_000), |cluster| fault.effects(&mut cluster.system) > before);
        fault.repair(&mut cluster.system)?;
    }
    Ok(())
}

fn late_records(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    cluster.send(500);
    cluster.pass(pause(3_000));
    cluster.finish_load();
    order::check(&cluster.system, part)
}

fn repeated_ids(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    if !cluster.run.shape.ids {
        part.unmet.push("the binary does not support event ids".to_owned());
    }
    cluster.send(1_000);
    cluster.pass(pause(3_000));
    Ok(())
}

fn rewound_offsets(cluster: &mut Cluster, _: &mut Part) -> Result<(), String> {
    cluster.send(1_000);
    cluster.pass(pause(3_000));
    cluster.finish_load();
    for number in [1, 2] {
        cluster.system.node(&format!("processor-{number}")).terminate(pause(15_000));
    }
    rewind_group(cluster, "processor")
}
