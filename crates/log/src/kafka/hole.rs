//! A hole in a group's assignment: how a static member finds it and fills it.
//!
//! In a cooperative rebalance (KIP-429) a member gives partitions up first and joins again, so that they are dealt out then.
//! If it dies in between and has a name (KIP-345), the one that comes back under this name is handed what the dead one was
//! to keep, without a rebalance: the rest is nobody's until the next one. So a member with a name looks, when it has joined,
//! whether every partition is somebody's. If that stays untrue it leaves the group and joins again, which is a rebalance.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Buf;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::metadata::{MetadataPartition, MetadataTopic};

use super::reader::{Quiet, consumer};
use crate::LogError;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);
/// So many looks in a row find a hole before it counts as one. In a rebalance there is one too, as long as the slowest member
/// takes to give up what it has to.
const LOOKS: u32 = 5;
/// How long brokers may take to answer. One that is down takes all of it, so a look is not the worker's to take.
const ANSWER: Duration = Duration::from_secs(5);

/// Looks until there is no hole, or until this is dropped.
pub(super) struct Watch(Arc<AtomicBool>);

impl Watch {
    /// For the member with these settings; `None` when it has no name.
    pub(super) fn start(member: &ClientConfig, topic: &str) -> Result<Option<Self>, LogError> {
        let (Some(group), Some(_)) = (member.get("group.id"), member.get("group.instance.id")) else { return Ok(None) };
        let (group, topic, mut client) = (group.to_owned(), topic.to_owned(), member.clone());
        client.remove("group.instance.id");
        client.remove("statistics.interval.ms");
        let found = Arc::new(AtomicBool::new(false));
        let told = Arc::downgrade(&found);
        let look = move || {
            if let Err(error) = look_until_whole(&client, &group, &topic, &told) {
                tracing::warn!(%error, group, "not known whether all partitions are held");
            }
        };
        let thread = std::thread::Builder::new().name("kafka-hole".into()).spawn(look);
        thread.map_err(|error| LogError::Unavailable(format!("thread: {error}")))?;
        Ok(Some(Self(found)))
    }

    /// Whether a hole was found since it was asked last.
    pub(super) fn found(&self) -> bool {
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed)
    }
}

fn look_until_whole(client: &ClientConfig, group: &str, topic: &str, found: &Weak<AtomicBool>) -> Result<(), LogError> {
    let client = consumer(client)?;
    let mut holes = 0;
    loop {
        std::thread::sleep(EVERY);
        let Some(found) = found.upgrade() else { return Ok(()) };
        let unheld = unheld(&client, group, topic).unwrap_or_else(|error| {
            tracing::debug!(%error, group, "the group's assignment");
            None
        });
        match unheld {
            Some(partitions) if partitions.is_empty() => return Ok(()),
            Some(partitions) if holes + 1 == LOOKS => {
                tracing::warn!(group, ?partitions, "held by nobody: leaving the group and joining it again");
                found.store(true, Ordering::Relaxed);
                holes = 0;
            }
            Some(_) => holes += 1,
            None => holes = 0,
        }
    }
}

/// Partitions of `topic` that no member of the group holds; `None` when that is not known, as in a rebalance.
fn unheld(client: &BaseConsumer<Quiet>, group: &str, topic: &str) -> KafkaResult<Option<Vec<i32>>> {
    let groups = client.client().fetch_group_list(Some(group), ANSWER)?;
    let Some(group) = groups.groups().iter().find(|one| one.name() == group && one.state() == "Stable") else {
        return Ok(None);
    };
    let mut held = BTreeSet::new();
    for member in group.members() {
        let Ok(assigned) = assigned(topic, member.assignment().unwrap_or_default()) else { return Ok(None) };
        held.extend(assigned);
    }
    let metadata = client.fetch_metadata(Some(topic), ANSWER)?;
    let all = metadata.topics().iter().flat_map(MetadataTopic::partitions).map(MetadataPartition::id);
    Ok(Some(all.filter(|partition| !held.contains(partition)).collect()))
}

/// What an assignment as members exchange it (`ConsumerProtocolAssignment` in Kafka's message definitions) holds of `topic`.
/// Of a member that was not told yet it is empty.
fn assigned(topic: &str, mut assignment: &[u8]) -> Result<Vec<i32>, bytes::TryGetError> {
    let mut partitions = Vec::new();
    if assignment.is_empty() {
        return Ok(partitions);
    }
    let _version = assignment.try_get_i16()?;
    for _ in 0..assignment.try_get_i32()? {
        let mut name = vec![0; usize::from(assignment.try_get_u16()?)];
        assignment.try_copy_to_slice(&mut name)?;
        for _ in 0..assignment.try_get_i32()? {
            let partition = assignment.try_get_i32()?;
            if name == topic.as_bytes() {
                partitions.push(partition);
            }
        }
    }
    Ok(partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_read_by_topic() {
        let mut written = vec![0, 3, 0, 0, 0, 2];
        for (name, partitions) in [("events", [1_i32, 7]), ("hourly", [2, 3])] {
            written.extend([0, 6]);
            written.extend(name.as_bytes());
            written.extend(2_i32.to_be_bytes());
            written.extend(partitions.iter().flat_map(|partition| partition.to_be_bytes()));
        }
        written.extend((-1_i32).to_be_bytes());
        assert_eq!(assigned("hourly", &written), Ok(vec![2, 3]));
        assert_eq!(assigned("other", &written), Ok(vec![]));
        assert_eq!(assigned("hourly", &[]), Ok(vec![]));
        assert!(assigned("hourly", &written[..written.len() - 8]).is_err());
    }
}
