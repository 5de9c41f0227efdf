//! Records of one partition as they were read: one arena a batch, no allocation a record.

use std::time::Duration;

/// One record, borrowed from its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its place in the partition.
    pub offset: u64,
    /// When the log took it, ms since the epoch.
    pub timestamp_ms: i64,
    /// The key; empty when there is none.
    pub key: &'a [u8],
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
}

/// Bounds of one read or step. The first one reached ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most records.
    pub records: usize,
    /// Most bytes of keys and values; a single larger record still passes.
    pub bytes: usize,
    /// Longest wait for more.
    pub wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { records: 50_000, bytes: 32 << 20, wait: Duration::from_millis(100) }
    }
}

/// Consecutive records of one partition, by rising offset. Offsets may have gaps: control, aborted and compacted records
/// are not seen.
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
    // Ends in the arena; the start is the end of what came before. A tombstone ends where its key does.
    key_end: u32,
    value_end: u32,
    tombstone: bool,
}

impl Batch {
    /// An empty batch of a partition.
    pub fn new(partition: u32) -> Self {
        Self { partition, ..Self::default() }
    }

    /// The partition all records are from.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The offset after the last record: where reading goes on. `None` when empty.
    pub fn next_offset(&self) -> Option<u64> {
        self.entries.last().map(|entry| entry.offset + 1)
    }

    /// The records, by rising offset.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Record<'_>> {
        let mut start = 0;
        self.entries.iter().map(move |entry| {
            let (key_end, value_end) = (entry.key_end as usize, entry.value_end as usize);
            let key = &self.bytes[start..key_end];
            let value = (!entry.tombstone).then(|| &self.bytes[key_end..value_end]);
            start = value_end;
            Record { offset: entry.offset, timestamp_ms: entry.timestamp_ms, key, value }
        })
    }

    /// Copies a record to the end.
    pub fn push(&mut self, record: Record<'_>) {
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
        });
    }

    /// Forgets the records from this offset on.
    pub(crate) fn cut_at(&mut self, offset: u64) {
        self.entries.truncate(self.entries.partition_point(|entry| entry.offset < offset));
        self.bytes.truncate(self.entries.last().map_or(0, |entry| entry.value_end as usize));
    }

    /// Forgets the records and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }

    fn arena_end(&self) -> u32 {
        u32::try_from(self.bytes.len()).expect("Limits::bytes keeps a batch far below 4 GiB")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_out_as_they_went_in() {
        let mut batch = Batch::new(4);
        let records = [
            Record { offset: 3, timestamp_ms: 9, key: b"k", value: Some(b"value") },
            Record { offset: 7, timestamp_ms: 9, key: b"", value: Some(b"") },
            Record { offset: 8, timestamp_ms: 10, key: b"gone", value: None },
            Record { offset: 9, timestamp_ms: 11, key: b"a", value: Some(b"b") },
        ];
        assert_eq!(batch.next_offset(), None);
        for record in records {
            batch.push(record);
        }
        assert_eq!(batch.iter().collect::<Vec<_>>(), records);
        assert_eq!((batch.partition(), batch.len(), batch.bytes(), batch.next_offset()), (4, 4, 12, Some(10)));
        batch.cut_at(9);
        assert_eq!(batch.iter().collect::<Vec<_>>(), records[..3]);
        batch.cut_at(7);
        assert_eq!((batch.iter().collect::<Vec<_>>(), batch.bytes()), (records[..1].to_vec(), 6));
        batch.clear();
        assert!(batch.is_empty());
    }
}
