//! Records of one partition, in one arena per batch: no allocation per record. And what a poll or a fetch returns.

use std::time::Duration;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::RunnerKey;

/// One record, borrowed from its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The offset in the partition.
    pub offset: u64,
    /// The timestamp, ms since the epoch.
    pub timestamp_ms: i64,
    /// The key; empty when there is none.
    pub key: &'a [u8],
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
}

impl Record<'_> {
    /// Whether this is the marker of a runner in an output, and no record of the stage: a restore leaves one where it ends a
    /// transaction that a broker left open.
    pub(crate) fn is_marker(&self) -> bool {
        self.value.is_none() && RunnerKey::is_reserved(self.key)
    }

    /// A hash of the record, which tells it from another one at its offset.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut hash = Xxh3::new();
        hash.update(&self.timestamp_ms.to_be_bytes());
        hash.update(&(self.key.len() as u64).to_be_bytes());
        hash.update(self.key);
        hash.update(self.value.unwrap_or_default());
        hash.digest()
    }

    /// What identifies the record in the position of a sink: 32 bits of a hash of its key, which a later record of the key
    /// has too if compaction removed this one, and 32 bits of its fingerprint.
    pub fn identity(&self) -> u64 {
        (u64::from(key_hash(self.key)) << 32) | (self.fingerprint() & u64::from(u32::MAX))
    }

    /// Whether it has the key of the record of an identity.
    pub(crate) fn has_key_of(&self, identity: u64) -> bool {
        u64::from(key_hash(self.key)) == identity >> 32
    }
}

fn key_hash(key: &[u8]) -> u32 {
    u32::try_from(xxh3_64(key) >> 32).expect("32 bits remain")
}

/// The bounds of one read or step. The first bound reached ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of records.
    pub records: usize,
    /// Maximum bytes of keys and values; a single larger record still passes.
    pub bytes: usize,
    /// Maximum wait for more records.
    pub wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { records: 50_000, bytes: 32 << 20, wait: Duration::from_millis(100) }
    }
}

/// Consecutive records of one partition, by ascending offset. Offsets may have gaps: control, aborted and compacted
/// records are not delivered. Some may be repeats: their producer wrote them twice ([`Batch::iter_with_repeats`]).
#[derive(Debug, Clone, Default)]
pub struct Batch {
    partition: u32,
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    offset: u64,
    timestamp_ms: i64,
    // Ends in the arena; a record starts at the end of the one before. A tombstone ends at the end of its key.
    key_end: u32,
    value_end: u32,
    tombstone: bool,
    repeat: bool,
}

impl Batch {
    /// An empty batch of a partition.
    pub fn new(partition: u32) -> Self {
        Self { partition, ..Self::default() }
    }

    /// The partition of all its records.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// The number of records, with repeats.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has no record, not even a repeat.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The offset after the last record, at which reading resumes; `None` if empty.
    pub fn next_offset(&self) -> Option<u64> {
        self.entries.last().map(|entry| entry.offset + 1)
    }

    /// The last record; `None` if empty.
    pub(crate) fn last(&self) -> Option<Record<'_>> {
        let (entry, before) = self.entries.split_last()?;
        let start = before.last().map_or(0, |before| before.value_end as usize);
        Some(self.record(entry, start))
    }

    /// The records without repeats, by ascending offset.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        self.iter_with_repeats().filter_map(|(record, repeat)| (!repeat).then_some(record))
    }

    /// All records, by ascending offset, and whether each is a repeat: the log holds an earlier copy from the same call. A
    /// stage that remembers what it read must take repeats into account, because a replay cannot tell them from others.
    pub fn iter_with_repeats(&self) -> impl ExactSizeIterator<Item = (Record<'_>, bool)> {
        let mut start = 0;
        self.entries.iter().map(move |entry| {
            let record = self.record(entry, start);
            start = entry.value_end as usize;
            (record, entry.repeat)
        })
    }

    fn record(&self, entry: &Entry, start: usize) -> Record<'_> {
        let (key_end, value_end) = (entry.key_end as usize, entry.value_end as usize);
        let key = &self.bytes[start..key_end];
        let value = (!entry.tombstone).then(|| &self.bytes[key_end..value_end]);
        Record { offset: entry.offset, timestamp_ms: entry.timestamp_ms, key, value }
    }

    /// Appends a copy of a record.
    pub fn push(&mut self, record: Record<'_>) {
        self.push_entry(record, false);
    }

    /// Appends a copy of a repeat.
    pub fn push_repeat(&mut self, record: Record<'_>) {
        self.push_entry(record, true);
    }

    fn push_entry(&mut self, record: Record<'_>, repeat: bool) {
        self.bytes.extend_from_slice(record.key);
        let key_end = self.arena_end();
        self.bytes.extend_from_slice(record.value.unwrap_or_default());
        let value_end = self.arena_end();
        self.entries.push(Entry {
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key_end,
            value_end,
            tombstone: record.value.is_none(),
            repeat,
        });
    }

    /// Removes the records from this offset on.
    pub(crate) fn truncate_at(&mut self, offset: u64) {
        self.entries.truncate(self.entries.partition_point(|entry| entry.offset < offset));
        self.bytes.truncate(self.entries.last().map_or(0, |entry| entry.value_end as usize));
    }

    /// Removes all records; retains the allocated memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }

    fn arena_end(&self) -> u32 {
        u32::try_from(self.bytes.len()).expect("Limits::bytes bounds a batch far below 4 GiB")
    }
}

/// The outcome of one poll of a [`Reader`](crate::Reader).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PollOutcome {
    /// Records, in the batch passed.
    Records,
    /// The reader reached the end of a partition, as the log itself reported.
    CaughtUp {
        /// The partition.
        partition: u32,
        /// The position of the reader.
        position: u64,
    },
    /// Nothing within the wait.
    Nothing,
}

/// The result of a [`Log::fetch`](crate::Log::fetch).
#[derive(Debug, Clone, Default)]
pub struct Fetched {
    /// The records at the first `decided` offsets. The log does not have those that are missing: retention dropped them, or
    /// they were never committed.
    pub records: Batch,
    /// How many of the offsets were looked up; at least one, if there is one.
    pub decided: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip() {
        let mut batch = Batch::new(4);
        let records = [
            Record { offset: 3, timestamp_ms: 9, key: b"k", value: Some(b"value") },
            Record { offset: 7, timestamp_ms: 9, key: b"", value: Some(b"") },
            Record { offset: 8, timestamp_ms: 10, key: b"gone", value: None },
            Record { offset: 9, timestamp_ms: 11, key: b"a", value: Some(b"b") },
        ];
        assert_eq!((batch.next_offset(), batch.last()), (None, None));
        for record in records {
            batch.push(record);
        }
        assert_eq!(batch.iter().collect::<Vec<_>>(), records);
        assert_eq!(batch.last(), Some(records[3]));
        assert_eq!((batch.partition(), batch.len(), batch.bytes(), batch.next_offset()), (4, 4, 12, Some(10)));
        batch.push_repeat(Record { offset: 10, ..records[0] });
        assert_eq!(batch.iter().collect::<Vec<_>>(), records);
        let repeats: Vec<bool> = batch.iter_with_repeats().map(|(_, repeat)| repeat).collect();
        assert_eq!((repeats, batch.next_offset()), (vec![false, false, false, false, true], Some(11)));
        batch.truncate_at(9);
        assert_eq!(batch.iter().collect::<Vec<_>>(), records[..3]);
        batch.truncate_at(7);
        assert_eq!((batch.iter().collect::<Vec<_>>(), batch.bytes()), (records[..1].to_vec(), 6));
        batch.clear();
        assert!(batch.is_empty());
    }
}
