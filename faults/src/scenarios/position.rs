//! The processor's two positions: the group's committed offsets and the position in its state. If they differ, it refuses
//! to process, and counts nothing twice.

use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use super::scenario::Scenario;
use crate::cluster::{Cluster, seconds};
use crate::order;
use crate::random::USERS;
use crate::report::Part;
use crate::system::{Engine, Setup};

const WITHIN: Duration = Duration::from_secs(20);

pub(super) const ROWS: &[Scenario] = &[
    Scenario {
        row: "position",
        what: "the group's offsets reset by hand: the processor refuses them and reports it, and counts nothing twice; it resumes once they are right.",
        fail_points: false,
        own: None,
        play: moved,
    },
    Scenario {
        row: "order",
        what: "the timestamps of steps that pause after their offsets: every record was produced before the offsets.",
        fail_points: true,
        own: Some(stalled),
        play: ordered,
    },
];

fn stalled() -> (Setup, u64, u64) {
    let stall = order::STALL.trim_start_matches(';').to_owned();
    let environment = vec![("FAILPOINTS".to_owned(), stall)];
    (Setup { instances: 1, environment, ..Setup::new(Engine::Kafka) }, USERS, 0)
}

fn ordered(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    cluster.send(500);
    cluster.pass(seconds(4));
    cluster.finish_load();
    order::check(&cluster.system, part)
}

fn moved(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    cluster.send(1_000);
    cluster.pass(seconds(4));
    cluster.finish_load();
    cluster.pass(seconds(3));
    for name in ["processor-1", "processor-2"] {
        cluster.system.node(name).terminate(seconds(15));
    }
    let shown = cluster.visible();
    let right = committed(cluster, "processor")?;
    rewind_group(cluster, "processor")?;
    for name in ["processor-1", "processor-2"] {
        cluster.system.node(name).start();
    }
    cluster.pass(seconds(8));
    part.must(cluster.visible() == shown, "no count changes while the positions differ");
    let ready = ["processor-1", "processor-2"].iter().all(|name| {
        let admin = cluster.system.node(name).admin;
        millrace_testkit::http_get(admin, "/readyz").is_ok_and(|answer| answer.status == 200)
    });
    part.must(!ready, "a processor reports that it is not ready");
    for name in ["processor-1", "processor-2"] {
        cluster.system.node(name).kill();
    }
    // Static members that have ended stay in the group until their session expires.
    cluster.pass(seconds(8));
    commit(cluster, "processor", &right)?;
    Ok(())
}

fn consumer(cluster: &Cluster, role: &str) -> Result<BaseConsumer, String> {
    ClientConfig::new()
        .set("bootstrap.servers", cluster.system.brokers())
        .set("group.id", format!("{}{role}", cluster.system.prefix()))
        .set("enable.auto.commit", "false")
        .create()
        .map_err(|error| error.to_string())
}

fn committed(cluster: &Cluster, role: &str) -> Result<TopicPartitionList, String> {
    let consumer = consumer(cluster, role)?;
    let topic = format!("{}analytics.events", cluster.system.prefix());
    let metadata = consumer.fetch_metadata(Some(&topic), WITHIN).map_err(|error| error.to_string())?;
    let mut list = TopicPartitionList::new();
    for partition in metadata.topics().first().map_or(&[][..], |topic| topic.partitions()) {
        list.add_partition(&topic, partition.id());
    }
    consumer.committed_offsets(list, WITHIN).map_err(|error| error.to_string())
}

fn commit(cluster: &mut Cluster, role: &str, offsets: &TopicPartitionList) -> Result<(), String> {
    let consumer = consumer(cluster, role)?;
    let mut last = String::new();
    let done = cluster.wait_for(WITHIN, |_| match consumer.commit(offsets, CommitMode::Sync) {
        Ok(()) => true,
        Err(error) => {
            last = error.to_string();
            false
        }
    });
    done.map(drop).ok_or_else(|| format!("the group's offsets cannot be set: {last}"))
}

/// Halves a role's committed offsets, once its group has no members.
pub(crate) fn rewind_group(cluster: &mut Cluster, role: &str) -> Result<(), String> {
    let now = committed(cluster, role)?;
    let mut back = TopicPartitionList::new();
    for element in now.elements() {
        if let Offset::Offset(offset) = element.offset() {
            let half = Offset::Offset(offset / 2);
            back.add_partition_offset(element.topic(), element.partition(), half).map_err(|error| error.to_string())?;
        }
    }
    // Static members that have ended stay in the group until their session expires.
    cluster.pass(seconds(8));
    commit(cluster, role, &back)
}
