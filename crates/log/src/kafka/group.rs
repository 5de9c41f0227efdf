//! Positions of groups: for tools, and for a sink whose own position is lost, or lies before what retention dropped.

use std::fmt;
use std::time::Duration;

use millrace_contracts::Topic;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::consumer::consumer;
use super::{KafkaLog, unavailable};
use crate::{GroupPosition, LogError, SinkCopy};

const TIMEOUT: Duration = Duration::from_secs(10);

/// What a group's offset is of, as its metadata: `{copy}` or `{copy}@{position}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OffsetOwner {
    copy_id: u64,
    /// The position of the copy. The offset is past it by what is no record only: control records and aborted ones.
    position: Option<u64>,
}

impl fmt::Display for OffsetOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.copy_id)?;
        self.position.map_or(Ok(()), |position| write!(f, "@{position}"))
    }
}

impl OffsetOwner {
    fn parse(metadata: &str) -> Option<Self> {
        let (copy_id, position) = metadata.split_once('@').map_or((metadata, None), |(id, at)| (id, Some(at)));
        let position = position.map(str::parse).transpose().ok()?;
        Some(Self { copy_id: u64::from_str_radix(copy_id, 16).ok()?, position })
    }
}

/// Records with each offset which copy of the read model it is of, and the copy's position there.
pub(super) fn set_owner(offsets: &mut TopicPartitionList, copy_id: u64, position: impl Fn(u32) -> Option<u64>) {
    if copy_id != 0 {
        for mut element in offsets.elements() {
            let position = position(element.partition().cast_unsigned());
            element.set_metadata(OffsetOwner { copy_id, position }.to_string());
        }
    }
}

impl KafkaLog {
    /// The offset up to which a copy has read a partition without meeting a record past its `position`.
    pub(super) fn read_past(
        &self,
        copy: SinkCopy<'_>,
        topic: Topic,
        partition: u32,
        position: u64,
    ) -> Result<Option<u64>, LogError> {
        let own = OffsetOwner { copy_id: copy.id, position: Some(position) };
        let committed = self.committed(copy.role, topic, partition)?;
        Ok(committed.and_then(|(offset, owner)| (owner == Some(own)).then_some(offset)))
    }

    pub(crate) fn group_position(
        &self,
        role: &str,
        topic: Topic,
        partition: u32,
    ) -> Result<Option<GroupPosition>, LogError> {
        let committed = self.committed(role, topic, partition)?;
        let copy_id = |owner: Option<OffsetOwner>| owner.map_or(0, |owner| owner.copy_id);
        Ok(committed.map(|(next_offset, owner)| GroupPosition { next_offset, copy_id: copy_id(owner) }))
    }

    /// The committed offset of a role's group, and what it is of.
    fn committed(
        &self,
        role: &str,
        topic: Topic,
        partition: u32,
    ) -> Result<Option<(u64, Option<OffsetOwner>)>, LogError> {
        let group = self.0.names.group(role);
        let consumer = consumer(&self.0.config.reader(&group))?;
        let mut asked = TopicPartitionList::new();
        asked.add_partition(self.full_name(topic), partition.cast_signed());
        let doing = format!("position of {group}");
        let committed = consumer.committed_offsets(asked, TIMEOUT).map_err(unavailable(&doing))?;
        let elements = committed.elements();
        let Some(element) = elements.first() else { return Ok(None) };
        let Offset::Offset(offset) = element.offset() else { return Ok(None) };
        Ok(u64::try_from(offset).ok().map(|offset| (offset, OffsetOwner::parse(element.metadata()))))
    }

    pub(crate) fn set_group_position(
        &self,
        role: &str,
        topic: Topic,
        partition: u32,
        position: GroupPosition,
    ) -> Result<(), LogError> {
        let group = self.0.names.group(role);
        let consumer = consumer(&self.0.config.reader(&group))?;
        let mut offsets = TopicPartitionList::new();
        let offset = Offset::Offset(position.next_offset.cast_signed());
        let added = offsets.add_partition_offset(self.full_name(topic), partition.cast_signed(), offset);
        added.map_err(|error| LogError::refused(format!("position of {group}: {error}")))?;
        set_owner(&mut offsets, position.copy_id, |_| None);
        consumer.commit(&offsets, CommitMode::Sync).map_err(unavailable(&format!("position of {group}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_an_offset_survives_its_metadata() {
        let owner = |copy_id, position| OffsetOwner { copy_id, position };
        for (text, owner) in [("00000000000000ff", owner(255, None)), ("00000000000000ff@12", owner(255, Some(12)))] {
            assert_eq!(owner.to_string(), text);
            assert_eq!(OffsetOwner::parse(text), Some(owner));
        }
        for other in ["", "x", "ff@", "ff@x", "@1"] {
            assert_eq!(OffsetOwner::parse(other), None, "{other}");
        }
    }
}
