//! Rows 1 to 5 and 17: the services themselves.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Instant;

use super::scenario::Scenario;
use crate::cluster::{Cluster, seconds};
use crate::event::mix;
use crate::fault::{Fault, KAFKA_POINTS, STOP};
use crate::report::Part;
use crate::system::{ROLES, Setup};

pub(super) const ROWS: &[Scenario] = &[
    Scenario {
        row: "1",
        what: "kill -9 of command at random instants and at its fail points: unknown outcomes, and a retry with the same id counts once.",
        fail_points: true,
        own: None,
        play: ingest,
    },
    Scenario {
        row: "2",
        what: "kill -9 of the processor at every fail point: counting resumes within 10 s and the session timeout.",
        fail_points: true,
        own: None,
        play: processor,
    },
    Scenario {
        row: "3",
        what: "kill -9 of the materializer between write and poll, and of query: nothing is projected twice.",
        fail_points: true,
        own: None,
        play: projections,
    },
    Scenario {
        row: "4",
        what: "SIGTERM of each instance in turn under load: status 0 within 15 s; a second signal exits at once.",
        fail_points: false,
        own: None,
        play: rolling,
    },
    Scenario {
        row: "5",
        what: "a processor and a materializer stopped past every timeout, replaced, and resumed: fenced; reads stall no longer than the timeouts.",
        fail_points: false,
        own: None,
        play: zombie,
    },
    Scenario {
        row: "17",
        what: "four processors, one of them leaving and rejoining every 2 s: progress in every window of 10 s.",
        fail_points: false,
        own: None,
        play: storm,
    },
];

/// Crashes a node at a fail point once.
pub(super) fn crash(
    cluster: &mut Cluster,
    part: &mut Part,
    node: &str,
    point: &'static str,
    seed: u64,
) -> Result<(), String> {
    let fault = Fault::Crash(node.to_owned(), point, seed);
    let before = fault.effects(&mut cluster.system);
    fault.inject(&mut cluster.system)?;
    let died = cluster.wait_for(seconds(12), |cluster| fault.effects(&mut cluster.system) > before);
    part.sometimes(&format!("died at {point}"), u64::from(died.is_some()));
    fault.repair(&mut cluster.system)
}

fn points(role: &str) -> &'static [&'static str] {
    KAFKA_POINTS.iter().find(|(of, _)| *of == role).map_or(&[], |(_, points)| points)
}

fn ingest(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    cluster.send(1_500);
    for round in 0..10 {
        let node = format!("command-{}", 1 + round % 2);
        cluster.pass(std::time::Duration::from_millis(300 + mix(cluster.run.shape.seed ^ round) % 700));
        cluster.system.node(&node).kill();
        cluster.system.node(&node).start();
    }
    for (number, point) in points("command").iter().enumerate() {
        for round in 0..2 {
            crash(cluster, part, &format!("command-{}", 1 + (number + round) % 2), point, round as u64)?;
        }
    }
    part.sometimes("sends of unknown outcome", cluster.run.oracle.answered("no answer"));
    Ok(())
}

fn processor(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    cluster.send(1_000);
    for (number, point) in points("processor").iter().enumerate() {
        crash(cluster, part, &format!("processor-{}", 1 + number % 2), point, number as u64)?;
        cluster.continues(part, point, seconds(16));
    }
    Ok(())
}

fn projections(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    cluster.send(1_000);
    for (number, point) in points("materializer").iter().enumerate() {
        for round in 0..2 {
            crash(cluster, part, &format!("materializer-{}", 1 + (number + round) % 2), point, round as u64)?;
        }
    }
    for number in [1, 2, 1] {
        let node = cluster.system.node(&format!("query-{number}"));
        node.kill();
        node.start();
        cluster.pass(seconds(2));
    }
    Ok(())
}

fn rolling(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    cluster.send(1_000);
    for role in ROLES {
        for number in [1, 2] {
            let name = format!("{role}-{number}");
            let begun = Instant::now();
            let status = cluster.system.node(&name).terminate(STOP);
            let took = begun.elapsed();
            let status_text = status.map_or_else(|| "killed".to_owned(), |status| status.to_string());
            let clean = status.is_some_and(|status| status.success());
            part.must(clean, format!("{name}: {status_text} after {:.1} s (at most 15 s)", took.as_secs_f64()));
            cluster.system.node(&name).start();
            cluster.system.wait_ready()?;
        }
    }
    // A request that never ends delays the exit; a second signal does not wait for it.
    let node = cluster.system.node("command-1");
    let address = node.listeners.first().ok_or("command does not listen")?.1;
    let mut pending = TcpStream::connect(address).map_err(|error| error.to_string())?;
    let unfinished =
        b"POST /analytics HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n[";
    pending.write_all(unfinished).map_err(|error| error.to_string())?;
    cluster.pass(seconds(1));
    let node = cluster.system.node("command-1");
    node.leave_down();
    node.signal_terminate();
    cluster.pass(seconds(1));
    let waited = cluster.system.node("command-1").is_running();
    let begun = Instant::now();
    cluster.system.node("command-1").signal_terminate();
    let ended = cluster.wait_for(seconds(3), |cluster| !cluster.system.node("command-1").is_running());
    part.fact(format!("with a request in flight the first signal {}", if waited { "waits" } else { "did not wait" }));
    let took = begun.elapsed().as_secs_f64();
    part.must(ended.is_some(), format!("the second signal ends it within 3 s ({took:.1} s)"));
    cluster.system.node("command-1").kill();
    cluster.system.node("command-1").start();
    Ok(())
}

fn zombie(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    cluster.send(1_000);
    cluster.pass(seconds(3));
    for number in [1, 2] {
        let (processor, materializer) = (format!("processor-{number}"), format!("materializer-{number}"));
        cluster.system.node(&processor).freeze();
        cluster.system.node(&materializer).freeze();
        // Session and transaction timeout are 6 s each in a run; then a replacement restores the state.
        cluster.pass(seconds(6));
        let before = cluster.visible();
        let took = cluster.wait_for(seconds(16), |cluster| cluster.visible() > before + 2_000);
        let text = took.map_or_else(|| "never".to_owned(), |took| format!("{:.1} s", 6.0 + took.as_secs_f64()));
        part.must(took.is_some(), format!("{processor} stopped: reads progress again after {text} (at most 22 s)"));
        cluster.system.node(&processor).thaw();
        cluster.system.node(&materializer).thaw();
        cluster.continues(part, &format!("{processor} resumed"), seconds(16));
        cluster.pass(seconds(3));
    }
    Ok(())
}

fn storm(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    cluster.send(1_000);
    // Without names, these two leave the group and rejoin each time.
    let setup = Setup { named: false, ..Setup::new(cluster.system.engine) };
    for number in [3, 4] {
        if !cluster.system.nodes.iter().any(|node| node.name == format!("processor-{number}")) {
            cluster.system.add_instance(&setup, "processor", number)?;
        }
    }
    cluster.meter.set_nodes(cluster.system.admins());
    cluster.system.wait_ready()?;
    // One is down at any time, for more or less than the session timeout.
    let mut stopped: Option<String> = None;
    for window in 1..=4 {
        let before = cluster.visible();
        for step in 0..5 {
            if let Some(name) = stopped.take() {
                cluster.system.node(&name).start();
            }
            let name = format!("processor-{}", 1 + (window + step) % 4);
            cluster.system.node(&name).terminate(seconds(5));
            stopped = Some(name);
            cluster.pass(seconds(2));
        }
        let shown = cluster.visible().saturating_sub(before);
        part.must(shown > 0, format!("window {window}: {shown} more events shown"));
    }
    Ok(())
}
