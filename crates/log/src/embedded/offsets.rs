//! Looks up offsets of partitions: first, end, and by time.

use millrace_contracts::Topic;

use super::partition::Partition;
use super::{EmbeddedLog, codec, damaged};
use crate::LogError;

impl EmbeddedLog {
    /// First offset and end of a partition.
    pub(crate) fn offsets(&self, topic: Topic, partition: u32) -> Result<(u64, u64), LogError> {
        let partition = self.0.shared.layout.get(topic, partition)?;
        // The end first: retention may raise the start in between, never above it.
        let end = partition.end();
        Ok((partition.start(), end))
    }

    /// The first offset at or after a time, the end if there is none: times of the log rise with its offsets, but for a clock
    /// that was set back, after which an offset nearby is found.
    pub(crate) fn offset_at(&self, topic: Topic, partition: u32, ms: i64) -> Result<u64, LogError> {
        let partition = self.0.shared.layout.get(topic, partition)?;
        let (mut low, mut high) = (partition.start(), partition.end());
        while low < high {
            let middle = low + (high - low) / 2;
            // A record that retention dropped meanwhile is older than any that is left.
            match timestamp(partition, middle)? {
                Some(timestamp) if timestamp >= ms => high = middle,
                _ => low = middle + 1,
            }
        }
        Ok(low)
    }
}

fn timestamp(partition: &Partition, offset: u64) -> Result<Option<i64>, LogError> {
    let value = partition.log.get(offset.to_be_bytes());
    let value = value.map_err(|error| damaged(partition.log.path(), &partition.shown(), error))?;
    Ok(value.as_ref().and_then(|value| codec::decode(offset, value)).map(|record| record.timestamp_ms))
}
