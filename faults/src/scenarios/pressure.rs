//! Rows 33, 34, 35, 38 and `hostile`: overload, duplicates, cardinality, a cold start and clients that mean harm.

use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use super::scenario::Scenario;
use crate::client::Client;
use crate::cluster::{Cluster, seconds};
use crate::hostile::Hostile;
use crate::load::{Load, Pace};
use crate::random::USERS;
use crate::report::Part;
use crate::system::{Engine, Setup};

/// A rate above the capacity of any machine.
const UNPACED: u64 = 1_000_000;
/// The backlog of a cold start, in events.
const BACKLOG: u64 = 150_000;
/// The memory limit of a processor while it catches up.
const MEMORY_MIB: u64 = 512;
/// The memory of a process among hostile clients: that of its bodies and encoders by default, 384 MiB, the log's queues and
/// tables, and what the streams of the clients take.
const HOSTILE_MEMORY_MIB: u64 = 1_024;

pub(super) const ROWS: &[Scenario] = &[
    Scenario {
        row: "34",
        what: "40 events with ids, each sent 100 times, concurrently, through both command services: each counts once.",
        fail_points: false,
        own: None,
        play: duplicates,
    },
    Scenario {
        row: "33",
        what: "five times the connections of the peak, every refusal retried: goodput at least 80 % of the peak.",
        fail_points: false,
        own: Some(small_queues),
        play: overload,
    },
    Scenario {
        row: "35",
        what: "a million users over 168 hours, and one user in every other event, at full rate: exact counts.",
        fail_points: false,
        own: Some(many_users),
        play: cardinality,
    },
    Scenario {
        row: "38",
        what: "a cold start on a backlog of 150,000 events with empty stores, under load: memory bounded, and p99 of writes below twice the earlier value, or 200 ms.",
        fail_points: false,
        own: Some(plain),
        play: cold_start,
    },
    Scenario { own: Some(plain), ..HOSTILE },
];

/// For either engine.
pub(super) const HOSTILE: Scenario = Scenario {
    row: "hostile",
    what: "120 s of clients that take streams, connections and memory and read nothing: every event is acknowledged, p99 of writes below 1 s, memory bounded.",
    fail_points: false,
    own: None,
    play: hostile,
};

fn plain() -> (Setup, u64, u64) {
    (Setup { instances: 1, ..Setup::new(Engine::Kafka) }, USERS, 0)
}

fn small_queues() -> (Setup, u64, u64) {
    let setup = Setup { instances: 1, ..Setup::new(Engine::Kafka) };
    (setup.set("kafka.max_queue_records", &64).set("command.limits.max_in_flight", &64), USERS, 0)
}

fn many_users() -> (Setup, u64, u64) {
    (Setup::new(Engine::Kafka), 1_000_000, 50)
}

pub(super) fn duplicates(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    if !cluster.run.shape.ids {
        part.unmet.push("the binary does not support event ids".to_owned());
        return Ok(());
    }
    let events: Arc<Vec<_>> = Arc::new((0..40).map(|_| cluster.run.next_with_id()).collect());
    let senders: Vec<_> = (0..20)
        .map(|number| {
            let (run, events) = (Arc::clone(&cluster.run), Arc::clone(&events));
            thread::spawn(move || {
                let address = run.commands[number % run.commands.len()];
                let mut client = Client::new(address, seconds(8));
                for event in events.iter().flat_map(|event| std::iter::repeat_n(event, 5)) {
                    run.send(&mut client, event);
                }
            })
        })
        .collect();
    for sender in senders {
        let _ = sender.join();
    }
    part.sometimes("acknowledgements", cluster.run.oracle.answered("acknowledged"));
    Ok(())
}

/// Acknowledged events per second with this many connections.
fn goodput(cluster: &mut Cluster, connections: usize) -> u64 {
    let load = Load::start(&cluster.run, Pace { rate: UNPACED, connections, ..Pace::default() });
    cluster.pass(seconds(2));
    let (before, begun) = (cluster.run.oracle.acknowledged(), Instant::now());
    cluster.pass(seconds(8));
    let acknowledged = cluster.run.oracle.acknowledged() - before;
    let rate = acknowledged * 1_000 / u64::try_from(begun.elapsed().as_millis()).unwrap_or(1).max(1);
    load.finish(seconds(30));
    rate
}

fn overload(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    let peak = goodput(cluster, 32);
    let flooded = goodput(cluster, 160);
    part.must(
        flooded * 10 >= peak * 8,
        format!("{flooded} per second with five times the connections, {peak} at the peak"),
    );
    part.sometimes("refused at once", cluster.run.oracle.answered("503") + cluster.run.oracle.answered("429"));
    Ok(())
}

fn cardinality(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    let rate = goodput(cluster, 100);
    part.fact(format!("{} events, {rate} per second", cluster.run.oracle.acknowledged()));
    Ok(())
}

fn cold_start(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    for name in ["processor-1", "materializer-1", "query-1"] {
        cluster.system.node(name).kill();
    }
    cluster.send(UNPACED);
    let filled = cluster.wait_for(seconds(240), |cluster| cluster.run.oracle.acknowledged() >= BACKLOG);
    part.sometimes("the backlog is complete", u64::from(filled.is_some()));
    cluster.send(200);
    cluster.pass(seconds(1));
    cluster.run.p99_ms();
    cluster.pass(seconds(8));
    let (before, _) = cluster.run.p99_ms();
    for name in ["processor-1", "materializer-1", "query-1"] {
        cluster.system.node(name).start();
    }
    let mut most = 0;
    let caught_up = cluster.wait_for(seconds(60), |cluster| {
        most = most.max(cluster.system.node("processor-1").id().map_or(0, resident_mib));
        cluster.visible() + cluster.run.oracle.acknowledged() / 15 > cluster.run.oracle.acknowledged()
    });
    let (during, sends) = cluster.run.p99_ms();
    let text = caught_up.map_or_else(|| "never".to_owned(), |took| format!("after {:.1} s", took.as_secs_f64()));
    part.must(caught_up.is_some(), format!("the backlog counted {text}"));
    part.must(most < MEMORY_MIB, format!("the processor's maximum was {most} MiB (below {MEMORY_MIB})"));
    // On two cores, whatever catches up competes with the writes: below 200 ms there is no condition.
    let bound = (2 * before).max(200);
    part.must(during <= bound, format!("p99 of {sends} writes: {during} ms, before {before} ms (at most {bound})"));
    Ok(())
}

fn hostile(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    let listener = |of: &str| {
        let mut all = cluster.system.nodes.iter().flat_map(|node| &node.listeners);
        all.find(|(service, _)| *service == of).map(|(_, address)| *address).ok_or_else(|| format!("no {of}"))
    };
    let (command, query) = (listener("command")?, listener("query")?);
    cluster.send(1_000);
    cluster.pass(seconds(2));
    cluster.run.p99_ms();
    // Earlier rows of the same system may have been refused.
    let before = cluster.run.oracle.answered("503");
    let clients = Hostile::start(command, query)?;
    let mut most = 0;
    cluster.wait_for(seconds(120), |cluster| {
        let resident = cluster.system.nodes.iter().filter_map(|node| node.id().map(resident_mib));
        most = most.max(resident.max().unwrap_or_default());
        false
    });
    let (p99, sends) = cluster.run.p99_ms();
    let refused = cluster.run.oracle.answered("503") - before;
    part.sometimes("streams that the server ended", clients.ended());
    drop(clients);
    part.must(refused == 0, format!("{refused} events refused"));
    part.must(p99 < 1_000, format!("p99 of {sends} writes: {p99} ms (below 1,000 ms)"));
    part.must(most < HOSTILE_MEMORY_MIB, format!("the largest process had {most} MiB (below {HOSTILE_MEMORY_MIB})"));
    Ok(())
}

/// Resident memory of a process; 0 without /proc.
fn resident_mib(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kib| kib / 1_024)
}
