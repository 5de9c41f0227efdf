//! The index of the embedded engine: one keyspace in the log's own database, `view.messages`.
//!
//! | key | value |
//! |---|---|
//! | `p`, partition | position, identity of the record before it, last coordinator |
//! | `d`, day, partition | the highest offset of the partition that the day names |
//! | `r`, day, partition, topic, last offset | the offsets |
//!
//! Numbers of keys are big-endian, so a topic's rows of a day are in order. A batch goes into the log's own journal, so a power
//! failure loses a suffix of both. One keyspace: if the database drops it, whose files are incomplete, the position is gone too,
//! and it is built again.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use fjall::{AbstractTree, Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Readable};
use millrace_contracts::{ProjectionPosition, ProjectionWrite, StoreError, WriteOutcome};

use super::row::{decode, encode, page};
use super::{IndexPage, IndexPosition, IndexStep, is_dropped};

/// Memtable size. fjall's default suits one large keyspace.
const MEMTABLE_BYTES: u64 = 8 << 20;

#[derive(Clone)]
pub(super) struct EmbeddedIndex {
    database: Database,
    index: Keyspace,
    // A batch has no conditions, so this lock covers the comparison of the position and the write.
    writing: Arc<Mutex<()>>,
}

impl EmbeddedIndex {
    pub(super) fn open(database: &Database) -> Result<Self, StoreError> {
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let index = database.keyspace("view.messages", options).map_err(failed)?;
        Ok(Self { index, database: database.clone(), writing: Arc::default() })
    }

    pub(super) fn page(
        &self,
        partition: u32,
        topic_id: u64,
        offsets: Range<u64>,
        max: usize,
    ) -> Result<IndexPage, StoreError> {
        let snapshot = self.database.snapshot();
        let stored = snapshot.get(&self.index, position_key(partition)).map_err(failed)?;
        let position = stored.map(|bytes| decode_position(&bytes)).transpose()?;
        let position = position.map_or(0, |position| position.position.next_offset);
        let mut found: Vec<Vec<u64>> = Vec::new();
        // The offset up to which the rows of each day are read.
        let mut read = u64::MAX;
        for day in days(snapshot.prefix(&self.index, b"d"))? {
            let topic = row_prefix(day.number, partition, topic_id);
            let (from, to) = (row_key(&topic, offsets.start), row_key(&topic, u64::MAX));
            let (mut enough, mut last) = (0, None);
            for entry in snapshot.range(&self.index, from..=to) {
                if enough >= max {
                    read = last.map_or(read, |last| read.min(last));
                    break;
                }
                let row = decode(&entry.value().map_err(failed)?).ok_or_else(malformed)?;
                (enough, last) = (enough + row.len(), row.last().copied());
                found.push(row);
            }
        }
        // A step's day is that of its newest record, and a clock may have been set back.
        found.retain(|row| row.last() <= Some(&read));
        found.sort_unstable();
        Ok(page(position, &found, offsets, max))
    }

    pub(super) fn position(&self, partition: u32) -> Result<Option<IndexPosition>, StoreError> {
        let stored = self.index.get(position_key(partition)).map_err(failed)?;
        stored.map(|bytes| decode_position(&bytes)).transpose()
    }

    pub(super) fn write(&self, writes: &[ProjectionWrite<'_, IndexStep>]) -> Result<Vec<WriteOutcome>, StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut outcomes = Vec::with_capacity(writes.len());
        let mut batch = self.database.batch().durability(Some(PersistMode::Buffer));
        for write in writes {
            let stored = self.position(write.partition)?.map(|stored| stored.position.next_offset);
            if stored != write.expected {
                outcomes.push(WriteOutcome::PositionMismatch(stored));
                continue;
            }
            if write.expected.is_none() {
                self.drop_partition(&mut batch, write.partition)?;
            }
            let day = write.items.day;
            if let Some(last) = write.items.rows.iter().map(super::IndexRow::last).max() {
                let known = self.index.get(day_key(day, write.partition)).map_err(failed)?;
                // A rebuild has deleted it in the same batch.
                let known = known.filter(|_| write.expected.is_some()).map(|bytes| number(&bytes)).transpose()?;
                if known.is_none() {
                    // Those of the same day that were dropped with it may be in tables that are not dropped yet.
                    self.drop_rows(&mut batch, day, write.partition)?;
                }
                batch.insert(&self.index, day_key(day, write.partition), last.max(known.unwrap_or(0)).to_be_bytes());
            }
            for row in &write.items.rows {
                let key = row_key(&row_prefix(day, write.partition, row.topic_id), row.last());
                batch.insert(&self.index, key, encode(&row.offsets));
            }
            let position = ProjectionPosition { next_offset: write.next, last_record: write.last_record };
            let position = IndexPosition { position, owner: write.items.owner };
            batch.insert(&self.index, position_key(write.partition), encode_position(&position));
            outcomes.push(WriteOutcome::Applied);
        }
        batch.commit().map_err(failed)?;
        Ok(outcomes)
    }

    /// Deletes the rows of earlier builds, which may come from another log.
    fn drop_partition(&self, batch: &mut OwnedWriteBatch, partition: u32) -> Result<(), StoreError> {
        for day in days(self.index.prefix(b"d"))? {
            self.drop_rows(batch, day.number, partition)?;
            batch.remove(&self.index, day_key(day.number, partition));
        }
        Ok(())
    }

    fn drop_rows(&self, batch: &mut OwnedWriteBatch, day: u32, partition: u32) -> Result<(), StoreError> {
        let rows = [&b"r"[..], &day.to_be_bytes(), &partition.to_be_bytes()].concat();
        for entry in self.index.prefix(rows) {
            batch.remove(&self.index, entry.key().map_err(failed)?);
        }
        Ok(())
    }

    /// Drops the oldest days. Whole tables go, as with the records of the log: a million deletes make the next seek slow. Rows in
    /// tables of a later day, too, go with that; without their day, nothing reads them.
    pub(super) fn drop_below(&self, starts: &[u64]) -> Result<usize, StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = self.database.batch().durability(Some(PersistMode::Buffer));
        let (mut dropped, mut first) = (0, None);
        for day in days(self.index.prefix(b"d"))? {
            if !day.lasts.iter().all(|&(partition, last)| is_dropped(starts, partition, last)) {
                first = Some(day.number);
                break;
            }
            for (partition, _) in day.lasts {
                batch.remove(&self.index, day_key(day.number, partition));
            }
            dropped += 1;
        }
        batch.commit().map_err(failed)?;
        // Nothing below the first day is read, whenever it was dropped.
        if let Some(first) = first {
            let (from, to) = (b"r".to_vec(), [&b"r"[..], &first.to_be_bytes()].concat());
            let range = self.index.tree.drop_range::<Vec<u8>, _>(from..to);
            range.map_err(|error| failed(error.into()))?;
        }
        Ok(dropped)
    }

    pub(super) fn reset(&self) -> Result<(), StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = self.database.batch().durability(Some(PersistMode::Buffer));
        for entry in self.index.prefix(b"p") {
            batch.remove(&self.index, entry.key().map_err(failed)?);
        }
        batch.commit().map_err(failed)
    }

    pub(super) fn reset_partition(&self, partition: u32, position: u64) -> Result<(), StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.position(partition)?.is_none_or(|stored| stored.position.next_offset != position) {
            return Ok(());
        }
        let mut batch = self.database.batch().durability(Some(PersistMode::Buffer));
        batch.remove(&self.index, position_key(partition));
        batch.commit().map_err(failed)
    }
}

impl fmt::Debug for EmbeddedIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedIndex").finish_non_exhaustive()
    }
}

/// A day that has rows.
struct Day {
    number: u32,
    /// The partitions, and the highest offset of each.
    lasts: Vec<(u32, u64)>,
}

/// The days of their entries, ascending.
fn days(entries: fjall::Iter) -> Result<Vec<Day>, StoreError> {
    let mut days: Vec<Day> = Vec::new();
    for entry in entries {
        let (key, value) = entry.into_inner().map_err(failed)?;
        let (numbers, rest) = key.get(1..).unwrap_or_default().as_chunks::<4>();
        let ([day, partition], []) = (numbers, rest) else { return Err(malformed()) };
        let (day, partition) = (u32::from_be_bytes(*day), u32::from_be_bytes(*partition));
        let last = (partition, number(&value)?);
        match days.last_mut().filter(|known| known.number == day) {
            Some(known) => known.lasts.push(last),
            None => days.push(Day { number: day, lasts: vec![last] }),
        }
    }
    Ok(days)
}

/// Waiting does not repair a local database: the process restarts from durable state.
fn failed(error: fjall::Error) -> StoreError {
    StoreError::stop(format!("embedded index: {error}")).because(error)
}

fn malformed() -> StoreError {
    StoreError::stop("embedded index: a value is not what was written")
}

fn position_key(partition: u32) -> Vec<u8> {
    [&b"p"[..], &partition.to_be_bytes()].concat()
}

fn day_key(day: u32, partition: u32) -> Vec<u8> {
    [&b"d"[..], &day.to_be_bytes(), &partition.to_be_bytes()].concat()
}

/// What the keys of a topic's rows of a day begin with.
fn row_prefix(day: u32, partition: u32, topic_id: u64) -> Vec<u8> {
    [&b"r"[..], &day.to_be_bytes(), &partition.to_be_bytes(), &topic_id.to_be_bytes()].concat()
}

fn row_key(prefix: &[u8], last: u64) -> Vec<u8> {
    [prefix, &last.to_be_bytes()].concat()
}

fn number(bytes: &[u8]) -> Result<u64, StoreError> {
    bytes.try_into().map(u64::from_be_bytes).map_err(|_| malformed())
}

/// The offset, then the identity and the coordinator, each with a byte for whether there is one.
fn encode_position(stored: &IndexPosition) -> Vec<u8> {
    let mut bytes = stored.position.next_offset.to_be_bytes().to_vec();
    for optional in [stored.position.last_record, stored.owner] {
        bytes.push(u8::from(optional.is_some()));
        bytes.extend_from_slice(&optional.unwrap_or_default().to_be_bytes());
    }
    bytes
}

fn decode_position(bytes: &[u8]) -> Result<IndexPosition, StoreError> {
    let (next_offset, rest) = bytes.split_first_chunk::<8>().ok_or_else(malformed)?;
    let (optional, rest) = rest.as_chunks::<9>();
    let ([last_record, owner], []) = (optional, rest) else { return Err(malformed()) };
    let optional = |bytes: &[u8; 9]| match bytes.split_first() {
        Some((0, _)) => Ok(None),
        Some((1, value)) => number(value).map(Some),
        _ => Err(malformed()),
    };
    let position =
        ProjectionPosition { next_offset: u64::from_be_bytes(*next_offset), last_record: optional(last_record)? };
    Ok(IndexPosition { position, owner: optional(owner)? })
}
