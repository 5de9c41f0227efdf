//! Unassigned partitions: how a static member detects and repairs them.
//!
//! In a cooperative rebalance (KIP-429) a member first revokes partitions and rejoins, so that the group assigns them
//! next. If a static member (KIP-345) dies in between, the one that returns under its name receives the assignment that
//! the dead one was to keep, without a rebalance: the revoked partitions stay unassigned until the next one. So a
//! static member checks after joining whether every partition is assigned. If one stays unassigned, the member leaves
//! the group and rejoins, which triggers a rebalance.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Buf;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::metadata::{MetadataPartition, MetadataTopic};

use super::consumer::{QuietContext, consumer};
use crate::LogError;

/// Between two checks.
const INTERVAL: Duration = Duration::from_secs(2);
/// Consecutive checks that must find an unassigned partition. During a rebalance there are some, for as long as the
/// slowest member takes to revoke its own.
const CHECKS: u32 = 5;
/// Timeout of a request. A broker that is down takes all of it, so checks run outside the worker's thread.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Checks in the background until every partition is assigned, or until this is dropped.
pub(super) struct AssignmentCheck(Arc<AtomicBool>);

impl AssignmentCheck {
    /// A check for the member with these settings; `None` if the member is dynamic.
    pub(super) fn start(member: &ClientConfig, topic: &str) -> Result<Option<Self>, LogError> {
        let (Some(group), Some(_)) = (member.get("group.id"), member.get("group.instance.id")) else { return Ok(None) };
        let (group, topic, mut client) = (group.to_owned(), topic.to_owned(), member.clone());
        client.remove("group.instance.id");
        client.remove("statistics.interval.ms");
        let found = Arc::new(AtomicBool::new(false));
        let report = Arc::downgrade(&found);
        let run = move || {
            if let Err(error) = check_until_complete(&client, &group, &topic, &report) {
                tracing::warn!(%error, group, "cannot check whether all partitions are assigned");
            }
        };
        let thread = std::thread::Builder::new().name("kafka-assignment".into()).spawn(run);
        thread.map_err(|error| LogError::unavailable(format!("thread: {error}")).because(error))?;
        Ok(Some(Self(found)))
    }

    /// Whether unassigned partitions were found since the last call.
    pub(super) fn take_found(&self) -> bool {
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed)
    }
}

fn check_until_complete(
    client: &ClientConfig,
    group: &str,
    topic: &str,
    found: &Weak<AtomicBool>,
) -> Result<(), LogError> {
    let client = consumer(client)?;
    let mut checks = 0;
    loop {
        std::thread::sleep(INTERVAL);
        let Some(found) = found.upgrade() else { return Ok(()) };
        let unassigned = unassigned(&client, group, topic).unwrap_or_else(|error| {
            tracing::debug!(%error, group, "cannot read the group's assignment");
            None
        });
        match unassigned {
            Some(partitions) if partitions.is_empty() => return Ok(()),
            Some(partitions) if checks + 1 == CHECKS => {
                tracing::warn!(group, ?partitions, "unassigned partitions: leaving and rejoining the group");
                found.store(true, Ordering::Relaxed);
                checks = 0;
            }
            Some(_) => checks += 1,
            None => checks = 0,
        }
    }
}

/// The partitions of `topic` that the group assigns to no member; `None` if undetermined, as in a rebalance.
fn unassigned(client: &BaseConsumer<QuietContext>, group: &str, topic: &str) -> KafkaResult<Option<Vec<i32>>> {
    let groups = client.client().fetch_group_list(Some(group), REQUEST_TIMEOUT)?;
    let Some(group) = groups.groups().iter().find(|one| one.name() == group && one.state() == "Stable") else {
        return Ok(None);
    };
    let mut all_assigned = BTreeSet::new();
    for member in group.members() {
        let Ok(assigned) = assigned(topic, member.assignment().unwrap_or_default()) else { return Ok(None) };
        all_assigned.extend(assigned);
    }
    let metadata = client.fetch_metadata(Some(topic), REQUEST_TIMEOUT)?;
    let all = metadata.topics().iter().flat_map(MetadataTopic::partitions).map(MetadataPartition::id);
    Ok(Some(all.filter(|partition| !all_assigned.contains(partition)).collect()))
}

/// The partitions of `topic` in an encoded assignment (`ConsumerProtocolAssignment` in Kafka's message definitions). It
/// is empty for a member that has none yet.
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
    fn an_assignment_decodes_by_topic() {
        let mut encoded = vec![0, 3, 0, 0, 0, 2];
        for (name, partitions) in [("events", [1_i32, 7]), ("hourly", [2, 3])] {
            encoded.extend([0, 6]);
            encoded.extend(name.as_bytes());
            encoded.extend(2_i32.to_be_bytes());
            encoded.extend(partitions.iter().flat_map(|partition| partition.to_be_bytes()));
        }
        encoded.extend((-1_i32).to_be_bytes());
        assert_eq!(assigned("hourly", &encoded), Ok(vec![2, 3]));
        assert_eq!(assigned("other", &encoded), Ok(vec![]));
        assert_eq!(assigned("hourly", &[]), Ok(vec![]));
        assert!(assigned("hourly", &encoded[..encoded.len() - 8]).is_err());
    }
}
