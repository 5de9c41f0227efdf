//! The records that one step of a stage writes, in one arena.

use std::fmt::Display;
use std::io::Write;

use millrace_contracts::{Position, Topic};

use crate::{RunnerKey, StageError};

/// The outputs and state changes of one step. All go to the partition number that was read.
#[derive(Debug, Default)]
pub struct Step {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// The number of entries up to the last position.
    completed: usize,
    /// See [`Step::deferrable_bytes`].
    deferrable: usize,
}

#[derive(Debug)]
struct Entry {
    topic: Topic,
    partition: u32,
    key_end: usize,
    value_end: usize,
    tombstone: bool,
}

/// One record of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepRecord<'a> {
    pub(crate) topic: Topic,
    pub(crate) partition: u32,
    pub(crate) key: &'a [u8],
    /// `None` is a tombstone.
    pub(crate) value: Option<&'a [u8]>,
}

impl Step {
    /// Adds a record: its key as text, its value as `encode` appends it. The prefixes `pos/` and `marker/` are reserved
    /// in a topic of changes ([`RunnerKey`]).
    pub fn put(&mut self, topic: Topic, partition: u32, key: impl Display, encode: impl FnOnce(&mut Vec<u8>)) {
        let key_end = self.put_key(key);
        encode(&mut self.bytes);
        self.entries.push(Entry { topic, partition, key_end, value_end: self.bytes.len(), tombstone: false });
    }

    /// Adds a tombstone: deletes the key from a compacted topic, so that it is never loaded again.
    pub fn delete(&mut self, topic: Topic, partition: u32, key: impl Display) {
        let key_end = self.put_key(key);
        self.entries.push(Entry { topic, partition, key_end, value_end: key_end, tombstone: true });
    }

    fn put_key(&mut self, key: impl Display) -> usize {
        write!(self.bytes, "{key}").expect("writing to a Vec does not fail");
        self.bytes.len()
    }

    /// Bytes of this step, of all its partitions, that could wait for another one.
    pub fn deferrable_bytes(&self) -> usize {
        self.deferrable
    }

    /// Counts bytes that the stage adds to this step and could add to another one.
    pub fn count_deferrable(&mut self, bytes: usize) {
        self.deferrable += bytes;
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Every record as (topic, partition, key, value), in order, `None` for a tombstone; for tests of a stage.
    pub fn iter(&self) -> impl Iterator<Item = (Topic, u32, &[u8], Option<&[u8]>)> {
        self.records().map(|record| (record.topic, record.partition, record.key, record.value))
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = StepRecord<'_>> {
        self.records_from(0)
    }

    fn records_from(&self, first: usize) -> impl Iterator<Item = StepRecord<'_>> {
        let mut start = first.checked_sub(1).map_or(0, |before| self.entries[before].value_end);
        self.entries[first..].iter().map(move |entry| {
            let key = &self.bytes[start..entry.key_end];
            let value = (!entry.tombstone).then(|| &self.bytes[entry.key_end..entry.value_end]);
            start = entry.value_end;
            StepRecord { topic: entry.topic, partition: entry.partition, key, value }
        })
    }

    /// Completes what the stage wrote about one partition with its new position. Refuses a change under a reserved key,
    /// of whatever partition, since the last position.
    pub(crate) fn complete(&mut self, changes: Topic, partition: u32, position: &Position) -> Result<(), StageError> {
        let reserved = self
            .records_from(self.completed)
            .find(|record| record.topic.name == changes.name && RunnerKey::is_reserved(record.key));
        if let Some(record) = reserved {
            let key = String::from_utf8_lossy(&record.key[..record.key.len().min(64)]).into_owned();
            debug_assert!(false, "the stage wrote the reserved key {key}");
            return Err(StageError::ReservedKey { key });
        }
        self.put(changes, partition, RunnerKey::Position(partition), |out| position.encode(out));
        self.completed = self.entries.len();
        Ok(())
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        self.completed = 0;
        self.deferrable = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_completed_with_its_position() {
        let mut step = Step::default();
        step.put(Topic::STATE, 3, "time/3", |out| out.push(1));
        // Of an output topic, in which no key is reserved.
        step.put(Topic::HOURLY, 3, "pos/3", |_| {});
        let at = |next_offset| Position { next_offset, ..Position::default() };
        step.complete(Topic::STATE, 3, &at(7)).unwrap();
        let (_, _, key, value) = step.iter().last().unwrap();
        assert_eq!(key, b"pos/3");
        assert_eq!(Position::decode(value.unwrap()), Ok(at(7)));
        // The position of another partition of the same step.
        step.complete(Topic::STATE, 4, &at(9)).unwrap();
        assert_eq!(step.len(), 4);
    }

    #[test]
    #[cfg_attr(debug_assertions, should_panic(expected = "reserved key marker/3"))]
    fn a_reserved_key_is_refused() {
        let mut step = Step::default();
        step.complete(Topic::STATE, 2, &Position::default()).unwrap();
        // Of another partition than the one that is completed, and not the newest record.
        step.put(Topic::STATE, 4, "marker/3", |_| {});
        step.put(Topic::STATE, 3, "time/3", |_| {});
        assert_eq!(
            step.complete(Topic::STATE, 3, &Position::default()),
            Err(StageError::ReservedKey { key: "marker/3".into() })
        );
    }
}
