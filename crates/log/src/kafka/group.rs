//! Positions of groups: for tools, and for a sink whose own position is lost.

use std::time::Duration;

use millrace_contracts::Topic;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::consumer::consumer;
use super::{KafkaLog, unavailable};
use crate::{GroupPosition, LogError};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Notes with each offset which copy of the read model it is of.
pub(super) fn set_copy_id(offsets: &mut TopicPartitionList, copy_id: u64) {
    if copy_id != 0 {
        for mut element in offsets.elements() {
            element.set_metadata(format!("{copy_id:016x}"));
        }
    }
}

impl KafkaLog {
    pub(crate) fn group_position(
        &self,
        role: &str,
        topic: Topic,
        partition: u32,
    ) -> Result<Option<GroupPosition>, LogError> {
        let group = self.0.names.group(role);
        let consumer = consumer(&self.0.config.reader(&group))?;
        let mut asked = TopicPartitionList::new();
        asked.add_partition(self.full_name(topic), partition.cast_signed());
        let doing = format!("position of {group}");
        let committed = consumer.committed_offsets(asked, TIMEOUT).map_err(unavailable(&doing))?;
        let elements = committed.elements();
        let Some(element) = elements.first() else { return Ok(None) };
        let Offset::Offset(offset) = element.offset() else { return Ok(None) };
        let copy_id = u64::from_str_radix(element.metadata(), 16).unwrap_or(0);
        Ok(u64::try_from(offset).ok().map(|next_offset| GroupPosition { next_offset, copy_id }))
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
        set_copy_id(&mut offsets, position.copy_id);
        consumer.commit(&offsets, CommitMode::Sync).map_err(unavailable(&format!("position of {group}")))
    }
}
