//! Negative controls: each sabotage of the product must turn the harness red, or the harness proves nothing.

#![expect(clippy::unnecessary_wraps, reason = "every script has the one type, whether it can fail or not")]

use std::process::Command;
use std::time::{Duration, Instant};

use millrace_testkit::Link;

use crate::cluster::{Cluster, Script};
use crate::fault::Fault;
use crate::options::Options;
use crate::order;
use crate::report::Part;
use crate::scenarios::{lost_end, lost_replies, messages_and_one_kill, rewind_group};
use crate::synced;
use crate::system::{Engine, Setup};

/// A short wait: wrong counts stay wrong.
const SETTLE: Duration = Duration::from_secs(15);

/// A sabotage, and the script that reveals it.
struct Control {
    sabotage: &'static str,
    /// Further fail points, after a semicolon.
    also: &'static str,
    play: Script,
}

const EMBEDDED: &[Control] = &[
    Control { sabotage: "answer-early", also: "", play: kills_of_up },
    Control { sabotage: "offset-before-state", also: "", play: crashes_of_up },
    Control { sabotage: "skip-dedup", also: "", play: repeated_ids },
    Control { sabotage: "answer-acks-early", also: "", play: messages_and_one_kill },
];

const KAFKA: &[Control] = &[
    Control { sabotage: "answer-early", also: "", play: kills_behind_a_cut_link },
    Control { sabotage: "offset-before-state", also: "", play: crashes_of_processors },
    Control { sabotage: "produce-after-offsets", also: order::STALL, play: late_records },
    Control { sabotage: "skip-dedup", also: "", play: repeated_ids },
    Control { sabotage: "skip-position-check", also: "", play: rewound_offsets },
    Control { sabotage: "ignore-position-identity", also: "", play: lost_end },
    Control { sabotage: "skip-producer-numbers", also: "", play: lost_replies },
    Control { sabotage: "answer-acks-early", also: "", play: messages_and_one_kill },
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
        take(skip_sync(options));
    }
}

/// Runs one control by name.
pub fn named(engine: Engine, options: &Options, sabotage: &str) -> Option<Part> {
    let controls = if engine == Engine::Embedded { EMBEDDED } else { KAFKA };
    controls.iter().find(|control| control.sabotage == sabotage).map(|control| one(engine, options, control))
}

fn one(engine: Engine, options: &Options, control: &Control) -> Part {
    let begun = Instant::now();
    let name = format!("{engine} control {}", control.sabotage);
    let mut part = Part::new(&name, "The product sabotaged; the comparison must detect it.");
    crate::print(&name);
    if !options.fail_points {
        part.unmet.push("the binary has no fail points".to_owned());
        return part;
    }
    let variable = ("FAILPOINTS".to_owned(), format!("sabotage::{}=return{}", control.sabotage, control.also));
    let setup = Setup { environment: vec![variable], ready: SETTLE, ..Setup::new(engine) };
    match Cluster::start(&setup, options, 500, 0) {
        Ok(mut cluster) => {
            cluster.settle = SETTLE;
            let red = cluster.play(&name, "", control.play);
            part.facts = red.differences.iter().take(3).map(|found| format!("detected: {found}")).collect();
            if red.differences.is_empty() {
                part.differences.push("the sabotage was not detected".to_owned());
                part.facts.extend(red.facts);
            }
            part.unmet = red.unmet;
        }
        Err(why) => part.unmet.push(why),
    }
    part.took = begun.elapsed();
    part
}

fn skip_sync(options: &Options) -> Part {
    let begun = Instant::now();
    let mut part = Part::new("embedded control skip-sync", "The product sabotaged; the system calls must reveal it.");
    if !options.fail_points || Command::new("strace").arg("-V").output().is_err() {
        part.unmet.push("a binary with fail points and strace are required".to_owned());
        return part;
    }
    match synced::answers("sabotage::skip-sync=return") {
        Ok((answers, after_sync)) => {
            part.must(after_sync < answers, format!("{after_sync} of {answers} responses came after a completed sync"));
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
