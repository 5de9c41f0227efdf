//! Positions of groups: for tools, and for a sink whose own position is lost.

use millrace_contracts::Topic;

use super::layout::{copy_key, input_key, read_number};
use super::writer::Records;
use super::{EmbeddedLog, Shared};
use crate::{GroupPosition, LogError};

impl Shared {
    /// Writes the position of a sink's group.
    pub(super) fn commit_group(
        &self,
        role: &str,
        topic: Topic,
        partition: u32,
        position: GroupPosition,
    ) -> Result<(), LogError> {
        let numbers = vec![
            (input_key(role, topic, partition), position.next_offset),
            (copy_key(role, topic, partition), position.copy_id),
        ];
        self.step(Records::default(), numbers, false)
    }
}

impl EmbeddedLog {
    pub(crate) fn group_position(
        &self,
        role: &str,
        topic: Topic,
        partition: u32,
    ) -> Result<Option<GroupPosition>, LogError> {
        let read = |key: String| read_number(&self.0.shared.layout.meta, key.as_bytes());
        let Some(next_offset) = read(input_key(role, topic, partition))? else { return Ok(None) };
        let copy_id = read(copy_key(role, topic, partition))?.unwrap_or(0);
        Ok(Some(GroupPosition { next_offset, copy_id }))
    }

    pub(crate) fn set_group_position(
        &self,
        role: &str,
        topic: Topic,
        partition: u32,
        position: GroupPosition,
    ) -> Result<(), LogError> {
        self.0.shared.commit_group(role, topic, partition, position)
    }
}
