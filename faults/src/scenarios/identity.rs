//! The broker's log lost its end, as a single one does in a power cut, and new records took the offsets: whoever has a position
//! in what was lost refuses to go on, and the documented way out leads back to equal counts.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use millrace_testkit::{Kafka, http_get, scratch_dir};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::scenario::Scenario;
use crate::cluster::{Cluster, seconds};
use crate::event::Shape;
use crate::load::{Load, Pace, Run};
use crate::random::USERS;
use crate::report::Part;
use crate::system::{Engine, Setup};

pub(super) const ROWS: &[Scenario] = &[Scenario {
    row: "identity",
    what: "the log loses its end and is filled again: the state, then Redis and the archive refuse, `doctor` names the way out, and after it every count is right.",
    fail_points: false,
    own: Some(own),
    play: lost_end,
}];

const EVENTS: &str = "analytics.events";
const HOURLY: &str = "analytics.hourly";
const OTHER_THAN_STATE: &str = "is not the one that the state contains";
const OTHER_THAN_SINK: &str = "is not the one that was written last";
const WITHIN: Duration = Duration::from_secs(20);
/// The longest wait for a refusal, which is the result of a process's first restore or look at its positions.
const REFUSAL: Duration = Duration::from_secs(45);

/// The end of each partition of a topic.
type Ends = BTreeMap<i32, i64>;

/// No other row may find its broker, whose files are replaced.
fn own() -> (Setup, u64, u64) {
    (Setup::new(Engine::Kafka), USERS, 0)
}

pub(crate) fn lost_end(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    cluster.send(1_000);
    cluster.pass(seconds(4));
    cluster.finish_load();
    let backup = scratch_dir("backup");
    stop_all(cluster);
    broker(cluster)?.shut_down();
    copy(&broker(cluster)?.data(), &backup)?;
    broker(cluster)?.restart()?;
    start(cluster, &["command", "processor", "materializer", "query"]);
    cluster.system.wait_ready()?;
    // What the log loses. No event of the oracle is among it: nothing brings them back.
    let shown = cluster.visible();
    let before = ends(cluster, EVENTS)?;
    fill(cluster, 1, &before)?;
    let seen = cluster.wait_for(WITHIN, |cluster| cluster.visible() > shown);
    part.must(seen.is_some(), "what will be lost is counted and shown");
    cluster.pass(seconds(2));
    let lost = [ends(cluster, EVENTS)?, ends(cluster, HOURLY)?];
    stop_all(cluster);
    // Counts fall when what they are of is lost: readers start anew.
    cluster.watcher.new_incarnation();
    state_refuses(cluster, part, &backup, &lost[0])?;
    sinks_refuse(cluster, part, &backup, &lost[1])?;
    start(cluster, &["query"]);
    Ok(())
}

/// Only the events lose their end: the processor's state is ahead of them.
fn state_refuses(cluster: &mut Cluster, part: &mut Part, backup: &Path, lost: &Ends) -> Result<(), String> {
    restore(cluster, backup, Some(EVENTS))?;
    start(cluster, &["command"]);
    ready(cluster, &["command"])?;
    part.must(ends(cluster, EVENTS)? != *lost, "the events lost their end");
    fill(cluster, 2, lost)?;
    let counted = cluster.counted();
    start(cluster, &["processor"]);
    let refused = refuses(cluster, "processor", OTHER_THAN_STATE);
    part.must(refused, "the processor refuses records that its state does not contain");
    let report = cluster.system.doctor("processor-1")?;
    part.must(report.contains(OTHER_THAN_STATE), "doctor: why the processor is not ready");
    part.must(cluster.counted() == counted, "and it counts nothing");
    Ok(())
}

/// The way out: the brokers' files of one backup. Log and state are of one moment then, and the sinks are ahead of both.
fn sinks_refuse(cluster: &mut Cluster, part: &mut Part, backup: &Path, lost: &Ends) -> Result<(), String> {
    stop_all(cluster);
    restore(cluster, backup, None)?;
    start(cluster, &["command", "processor"]);
    ready(cluster, &["command", "processor"])?;
    part.fact("the processor goes on with the files of the backup");
    cluster.send(2_000);
    let filled = passes(cluster, HOURLY, lost);
    cluster.finish_load();
    filled?;
    start(cluster, &["materializer"]);
    part.must(refuses(cluster, "materializer", OTHER_THAN_SINK), "a sink refuses records that it has not written");
    let report = cluster.system.doctor("processor-1")?;
    for store in ["redis", "archive"] {
        let found = report.contains(&format!("FAIL  {store} positions"));
        part.must(
            found && report.contains(&format!("millrace rebuild {store}")),
            format!("doctor: {store}, and what to do"),
        );
    }
    for store in ["redis", "archive"] {
        cluster.system.tool(&["rebuild", store, "--yes"])?;
    }
    Ok(())
}

fn broker(cluster: &mut Cluster) -> Result<&mut Kafka, String> {
    let brokers = cluster.system.brokers.as_mut().ok_or("no brokers")?;
    brokers.nodes().first_mut().ok_or_else(|| "no broker".to_owned())
}

fn stop_all(cluster: &mut Cluster) {
    for node in &mut cluster.system.nodes {
        node.terminate(seconds(15));
    }
}

fn start(cluster: &mut Cluster, roles: &[&str]) {
    for node in cluster.system.nodes.iter_mut().filter(|node| roles.contains(&node.role)) {
        node.start();
    }
}

fn ready(cluster: &mut Cluster, roles: &[&str]) -> Result<(), String> {
    let ready = cluster.wait_for(seconds(90), |cluster| {
        let mut nodes = cluster.system.nodes.iter().filter(|node| roles.contains(&node.role));
        nodes.all(|node| http_get(node.admin, "/readyz").is_ok_and(|answer| answer.status == 200))
    });
    ready.map(drop).ok_or_else(|| format!("not ready: {roles:?}"))
}

/// Whether an instance of a role is not ready for this reason.
fn refuses(cluster: &mut Cluster, role: &str, reason: &str) -> bool {
    let refused = cluster.wait_for(REFUSAL, |cluster| {
        let mut nodes = cluster.system.nodes.iter().filter(|node| node.role == role);
        nodes.any(|node| {
            http_get(node.admin, "/readyz").is_ok_and(|answer| answer.status == 503 && answer.text().contains(reason))
        })
    });
    refused.is_some()
}

/// Sends events that the oracle does not know, until each partition of the events is longer than `before`.
fn fill(cluster: &mut Cluster, other: u64, before: &Ends) -> Result<(), String> {
    let shape = Shape { seed: cluster.run.shape.seed.wrapping_add(other), ..cluster.run.shape.clone() };
    let run = Run::new(shape, cluster.run.commands.clone());
    let load = Load::start(&run, Pace { rate: 1_000, ..Pace::default() });
    let filled = passes(cluster, EVENTS, before);
    load.finish(seconds(30));
    filled
}

/// Waits until each partition of a topic is longer than `before`.
fn passes(cluster: &mut Cluster, topic: &str, before: &Ends) -> Result<(), String> {
    for _ in 0..45 {
        cluster.pass(seconds(2));
        let now = ends(cluster, topic)?;
        if before.iter().all(|(partition, end)| now.get(partition) > Some(end)) {
            return Ok(());
        }
    }
    Err(format!("{topic} does not grow past {before:?}"))
}

fn ends(cluster: &Cluster, topic: &str) -> Result<Ends, String> {
    let full = format!("{}{topic}", cluster.system.prefix());
    let failed = |error: rdkafka::error::KafkaError| format!("{full}: {error}");
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.system.brokers())
        .set("group.id", "millrace-faults")
        .create()
        .map_err(failed)?;
    let metadata = consumer.fetch_metadata(Some(&full), WITHIN).map_err(failed)?;
    let partitions = metadata.topics().first().map_or(&[][..], |topic| topic.partitions());
    let end = |partition: i32| consumer.fetch_watermarks(&full, partition, WITHIN).map(|(_, end)| (partition, end));
    partitions.iter().map(|partition| end(partition.id()).map_err(failed)).collect()
}

/// Replaces the files of one topic, or all of them, by those of the backup, and starts the broker.
fn restore(cluster: &mut Cluster, backup: &Path, topic: Option<&str>) -> Result<(), String> {
    let of_topic = topic.map(|topic| format!("{}{topic}-", cluster.system.prefix()));
    let broker = broker(cluster)?;
    broker.shut_down();
    let data = broker.data();
    match of_topic {
        None => {
            fs::remove_dir_all(&data).map_err(|error| format!("{}: {error}", data.display()))?;
            copy(backup, &data)?;
        }
        Some(of_topic) => {
            let entries = fs::read_dir(backup).map_err(|error| format!("{}: {error}", backup.display()))?;
            let names = entries.flatten().map(|entry| entry.file_name());
            for name in names.filter(|name| name.to_string_lossy().starts_with(&of_topic)) {
                let partition = data.join(&name);
                fs::remove_dir_all(&partition).map_err(|error| format!("{}: {error}", partition.display()))?;
                copy(&backup.join(&name), &partition)?;
            }
        }
    }
    broker.restart()
}

/// Copies a folder with everything in it.
fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", from.display());
    fs::create_dir_all(to).map_err(failed)?;
    for entry in fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target)?;
        } else {
            fs::copy(&path, &target).map(drop).map_err(failed)?;
        }
    }
    Ok(())
}
