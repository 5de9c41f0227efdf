//! What one step of a stage writes, collected in one arena.

use std::fmt::Display;
use std::io::Write;

use millrace_contracts::Topic;

/// The outputs and state changes of one step. All are written to the partition that was read.
#[derive(Debug, Default)]
pub struct Step {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
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
    /// Adds a record: its key as text, its value as `encode` appends it.
    pub fn put(&mut self, topic: Topic, partition: u32, key: impl Display, encode: impl FnOnce(&mut Vec<u8>)) {
        let key_end = self.put_key(key);
        encode(&mut self.bytes);
        self.entries.push(Entry { topic, partition, key_end, value_end: self.bytes.len(), tombstone: false });
    }

    /// Adds a tombstone: what a compacted topic has under the key is gone, and is never loaded again.
    pub fn delete(&mut self, topic: Topic, partition: u32, key: impl Display) {
        let key_end = self.put_key(key);
        self.entries.push(Entry { topic, partition, key_end, value_end: key_end, tombstone: true });
    }

    fn put_key(&mut self, key: impl Display) -> usize {
        write!(self.bytes, "{key}").expect("a Vec takes every byte");
        self.bytes.len()
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Every record as (topic, partition, key, value), in the order it was put, `None` for a tombstone; for tests of a
    /// stage.
    pub fn iter(&self) -> impl Iterator<Item = (Topic, u32, &[u8], Option<&[u8]>)> {
        self.records().map(|record| (record.topic, record.partition, record.key, record.value))
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = StepRecord<'_>> {
        let mut start = 0;
        self.entries.iter().map(move |entry| {
            let key = &self.bytes[start..entry.key_end];
            let value = (!entry.tombstone).then(|| &self.bytes[entry.key_end..entry.value_end]);
            start = entry.value_end;
            StepRecord { topic: entry.topic, partition: entry.partition, key, value }
        })
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }
}
