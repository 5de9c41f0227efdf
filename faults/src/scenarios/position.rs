//! The processor's two positions: the group's committed offsets and the one in its state. If someone else moves one of
//! them, it refuses, and nothing is counted again.

use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use super::{Ring, Scenario, seconds};
use crate::order;
use crate::random::USERS;
use crate::report::Part;
use crate::system::{Engine, Setup};

const WITHIN: Duration = Duration::from_secs(20);

pub(super) const ROWS: &[Scenario] = &[
    Scenario {
        row: "position",
        what: "the group's offsets set back by hand: the processor refuses and says so, and nothing is counted twice; set \
               right again, it goes on.",
        fail_points: false,
        own: None,
        play: moved,
    },
    Scenario {
        row: "order",
        what: "the time stamps of steps that pause after their offsets: everything was produced before the offsets.",
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

fn ordered(ring: &mut Ring, part: &mut Part) -> Result<(), String> {
    ring.send(500);
    ring.pass(seconds(4));
    ring.finish_load();
    order::check(&ring.system, part)
}

fn moved(ring: &mut Ring, part: &mut Part) -> Result<(), String> {
    ring.send(1_000);
    ring.pass(seconds(4));
    ring.finish_load();
    ring.pass(seconds(3));
    for name in ["processor-1", "processor-2"] {
        ring.system.node(name).terminate(seconds(15));
    }
    let shown = ring.visible();
    let right = committed(ring, "processor")?;
    rewind_group(ring, "processor")?;
    for name in ["processor-1", "processor-2"] {
        ring.system.node(name).start();
    }
    ring.pass(seconds(8));
    part.must(ring.visible() == shown, "nothing is counted while the positions differ");
    let ready = ["processor-1", "processor-2"].iter().all(|name| {
        let admin = ring.system.node(name).admin;
        millrace_testkit::http_get(admin, "/readyz").is_ok_and(|answer| answer.status == 200)
    });
    part.must(!ready, "a processor says that it is not ready");
    for name in ["processor-1", "processor-2"] {
        ring.system.node(name).kill();
    }
    // Static members that are gone stay in the group until their session ends.
    ring.pass(seconds(8));
    commit(ring, "processor", &right)?;
    Ok(())
}

fn consumer(ring: &Ring, role: &str) -> Result<BaseConsumer, String> {
    ClientConfig::new()
        .set("bootstrap.servers", ring.system.brokers())
        .set("group.id", format!("{}{role}", ring.system.prefix()))
        .set("enable.auto.commit", "false")
        .create()
        .map_err(|error| error.to_string())
}

fn committed(ring: &Ring, role: &str) -> Result<TopicPartitionList, String> {
    let consumer = consumer(ring, role)?;
    let topic = format!("{}analytics.events", ring.system.prefix());
    let metadata = consumer.fetch_metadata(Some(&topic), WITHIN).map_err(|error| error.to_string())?;
    let mut list = TopicPartitionList::new();
    for partition in metadata.topics().first().map_or(&[][..], |topic| topic.partitions()) {
        list.add_partition(&topic, partition.id());
    }
    consumer.committed_offsets(list, WITHIN).map_err(|error| error.to_string())
}

fn commit(ring: &mut Ring, role: &str, offsets: &TopicPartitionList) -> Result<(), String> {
    let consumer = consumer(ring, role)?;
    let mut last = String::new();
    let done = ring.wait_for(WITHIN, |_| match consumer.commit(offsets, CommitMode::Sync) {
        Ok(()) => true,
        Err(error) => {
            last = error.to_string();
            false
        }
    });
    done.map(drop).ok_or_else(|| format!("the group's offsets cannot be set: {last}"))
}

/// Sets a role's committed offsets back by half, once none of its members is left.
pub(crate) fn rewind_group(ring: &mut Ring, role: &str) -> Result<(), String> {
    let now = committed(ring, role)?;
    let mut back = TopicPartitionList::new();
    for element in now.elements() {
        if let Offset::Offset(offset) = element.offset() {
            let half = Offset::Offset(offset / 2);
            back.add_partition_offset(element.topic(), element.partition(), half).map_err(|error| error.to_string())?;
        }
    }
    // Static members that are gone stay in the group until their session ends.
    ring.pass(seconds(8));
    commit(ring, role, &back)
}
