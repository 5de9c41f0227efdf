//! The archive of the embedded engine: two keyspaces in the log's own database.
//!
//! `view.hourly` has a value per (partition, hour), `view.position` one per partition, and beside it the identity of the
//! record before it and the position up to which the events are counted (keys of their own, which earlier versions ignore).
//! One batch changes them all. It goes into the same journal as the log, so a power failure loses a suffix of both, and a view
//! is never ahead of its log. Therefore it needs no sync of its own.
//!
//! Both have the id of their build, at [`BUILD`]. The database drops a keyspace whose files are incomplete, and it comes back
//! empty: zeros instead of counts. Without the other's id it is a lost one, and both are built again.
//!
//! A read takes a few point reads of a database with a block cache, microseconds each, so it runs on the caller's thread.
//! A write may wait for the journal: the runner gives each sink its own thread.

mod extent;

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Readable};
use millrace_contracts::{
    CountedPosition, Exactness, Hour, HourlyCount, ProjectionPosition, ProjectionWrite, StoreError, WriteOutcome,
};

use crate::{HourRead, PartitionSnapshot, Totals};

/// Memtable size of each keyspace. fjall's default suits one large keyspace; a view is small.
const MEMTABLE_BYTES: u64 = 8 << 20;
/// The key of the build's id in both keyspaces; no partition's rows or position have it as a prefix.
const BUILD: &str = "build";

#[derive(Clone)]
pub(super) struct EmbeddedArchive {
    database: Database,
    hourly: Keyspace,
    positions: Keyspace,
    pub(super) partitions: u32,
    // A batch has no conditions, so this lock covers the comparison of the position and the write.
    writing: Arc<Mutex<()>>,
}

impl EmbeddedArchive {
    pub(super) fn open(database: &Database, partitions: u32) -> Result<Self, StoreError> {
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let archive = Self {
            hourly: database.keyspace("view.hourly", options).map_err(failed)?,
            positions: database.keyspace("view.position", options).map_err(failed)?,
            database: database.clone(),
            partitions,
            writing: Arc::default(),
        };
        archive.check_build()?;
        Ok(archive)
    }

    /// Makes the materializer rebuild everything if rows and positions are not of one build.
    fn check_build(&self) -> Result<(), StoreError> {
        let (rows, positions) = (self.hourly.get(BUILD).map_err(failed)?, self.positions.get(BUILD).map_err(failed)?);
        if rows.is_some() && rows == positions {
            return Ok(());
        }
        let mut batch = self.database.batch().durability(Some(PersistMode::Buffer));
        // Without any id, rows are of a version from before ids.
        let earlier = rows.is_none() && positions.is_none() && !self.hourly.is_empty().map_err(failed)?;
        if !earlier && !self.positions.is_empty().map_err(failed)? {
            tracing::warn!("the embedded archive lost its rows: building it again from the log");
        }
        if !earlier {
            self.drop_positions(&mut batch);
        }
        let build = uuid::Uuid::new_v4().into_bytes();
        batch.insert(&self.hourly, BUILD, build);
        batch.insert(&self.positions, BUILD, build);
        batch.commit().map_err(failed)
    }

    fn drop_positions(&self, batch: &mut OwnedWriteBatch) {
        for partition in 0..self.partitions {
            batch.remove(&self.positions, partition.to_be_bytes());
        }
    }

    pub(super) fn hour(&self, hour: Hour) -> Result<HourRead, StoreError> {
        let snapshot = self.database.snapshot();
        let mut totals = Totals::default();
        for partition in 0..self.partitions {
            let complete = match snapshot.get(&self.positions, partition.to_be_bytes()).map_err(failed)? {
                Some(bytes) => decode_position(&bytes)?.1,
                None => false,
            };
            if !complete {
                return Ok(HourRead::Rebuilding);
            }
            if let Some(bytes) = snapshot.get(&self.hourly, key(partition, hour)).map_err(failed)? {
                let count = decode(&bytes)?;
                totals.add(count.clicks, count.impressions, count.unique_users, count.exactness);
            }
        }
        Ok(HourRead::Complete(totals))
    }

    pub(super) fn position(&self, partition: u32) -> Result<Option<ProjectionPosition>, StoreError> {
        let snapshot = self.database.snapshot();
        let stored = snapshot.get(&self.positions, partition.to_be_bytes()).map_err(failed)?;
        let Some(stored) = stored else { return Ok(None) };
        let (next_offset, _) = decode_position(&stored)?;
        let identity = snapshot.get(&self.positions, identity_key(partition)).map_err(failed)?;
        let identity = identity.map(|bytes| decode_identity(&bytes)).transpose()?;
        // Of another position: an earlier version moved it since.
        let last_record = identity.filter(|&(of, _)| of == next_offset).map(|(_, identity)| identity);
        Ok(Some(ProjectionPosition { next_offset, last_record }))
    }

    pub(super) fn counted(&self) -> Result<Vec<Option<CountedPosition>>, StoreError> {
        let snapshot = self.database.snapshot();
        let of = |partition: u32| {
            let stored = snapshot.get(&self.positions, partition.to_be_bytes()).map_err(failed)?;
            if !stored.map(|bytes| decode_position(&bytes)).transpose()?.is_some_and(|(_, complete)| complete) {
                return Ok(None);
            }
            let counted = snapshot.get(&self.positions, counted_key(partition)).map_err(failed)?;
            counted.map(|bytes| decode_counted(partition, &bytes)).transpose()
        };
        (0..self.partitions).map(of).collect()
    }

    pub(super) fn snapshot(
        &self,
        partitions: Range<u32>,
        hours: &Range<Hour>,
    ) -> Result<Vec<PartitionSnapshot>, StoreError> {
        let snapshot = self.database.snapshot();
        let part = |partition: u32| {
            let stored = snapshot.get(&self.positions, partition.to_be_bytes()).map_err(failed)?;
            let stored = stored.map(|bytes| decode_position(&bytes)).transpose()?;
            let (position, complete) = (stored.map(|(position, _)| position), stored.is_some_and(|(_, done)| done));
            let mut counts = Vec::new();
            for entry in snapshot.range(&self.hourly, key(partition, hours.start)..key(partition, hours.end)) {
                let (key, value) = entry.into_inner().map_err(failed)?;
                counts.push(decode(&value)?.count(hour_of(&key)?, partition));
            }
            Ok(PartitionSnapshot { partition, position, complete, counts })
        };
        partitions.map(part).collect()
    }

    pub(super) fn reset(&self) -> Result<(), StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = self.database.batch().durability(Some(PersistMode::Buffer));
        self.drop_positions(&mut batch);
        batch.commit().map_err(failed)
    }

    pub(super) fn write(&self, writes: &[ProjectionWrite<'_, [HourlyCount]>]) -> Result<Vec<WriteOutcome>, StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut results = Vec::with_capacity(writes.len());
        let mut batch = self.database.batch().durability(Some(PersistMode::Buffer));
        for write in writes {
            let stored = self.stored(write.partition)?;
            let position = stored.map(|(position, _)| position);
            if position != write.expected {
                results.push(WriteOutcome::PositionMismatch(position));
                continue;
            }
            if write.expected.is_none() {
                self.drop_partition(&mut batch, write.partition)?;
            }
            for count in write.items {
                let key = key(write.partition, count.hour);
                // A rebuild deletes the old rows in the same batch: they count as absent.
                let old = if write.expected.is_some() { self.hourly.get(key).map_err(failed)? } else { None };
                let old = old.map(|bytes| decode(&bytes)).transpose()?;
                if old.is_none_or(|old| (old.generation, old.next_offset) < (count.generation, count.next_offset)) {
                    batch.insert(&self.hourly, key, encode(count));
                }
            }
            let complete = write.caught_up || stored.is_some_and(|(_, complete)| complete);
            batch.insert(&self.positions, write.partition.to_be_bytes(), encode_position(write.next, complete));
            match write.last_record {
                Some(identity) => {
                    let value = [write.next.to_be_bytes(), identity.to_be_bytes()].concat();
                    batch.insert(&self.positions, identity_key(write.partition), value);
                }
                None => batch.remove(&self.positions, identity_key(write.partition)),
            }
            match write.counted {
                Some(counted) => {
                    let value = [counted.next_offset.to_be_bytes(), counted.log_time_ms.to_be_bytes()].concat();
                    batch.insert(&self.positions, counted_key(write.partition), value);
                }
                // That of the build before.
                None if write.expected.is_none() => batch.remove(&self.positions, counted_key(write.partition)),
                None => {}
            }
            results.push(WriteOutcome::Applied);
        }
        batch.commit().map_err(failed)?;
        Ok(results)
    }

    fn stored(&self, partition: u32) -> Result<Option<(u64, bool)>, StoreError> {
        let bytes = self.positions.get(partition.to_be_bytes()).map_err(failed)?;
        bytes.map(|bytes| decode_position(&bytes)).transpose()
    }

    /// Deletes the rows of earlier builds, which may come from another log.
    fn drop_partition(&self, batch: &mut OwnedWriteBatch, partition: u32) -> Result<(), StoreError> {
        for entry in self.hourly.prefix(partition.to_be_bytes()) {
            batch.remove(&self.hourly, entry.key().map_err(failed)?);
        }
        Ok(())
    }
}

impl fmt::Debug for EmbeddedArchive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedArchive").field("partitions", &self.partitions).finish_non_exhaustive()
    }
}

/// Waiting does not repair a local database: the process restarts from durable state.
fn failed(error: fjall::Error) -> StoreError {
    StoreError::stop(format!("embedded archive: {error}")).because(error)
}

fn malformed() -> StoreError {
    StoreError::stop("embedded archive: a value is not what was written")
}

/// Partition, then hour, both big-endian, so that a partition is a range with its hours in order.
fn key(partition: u32, hour: Hour) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&partition.to_be_bytes());
    // With the sign bit flipped, hours before the epoch sort first.
    key[4..].copy_from_slice(&(hour.index().cast_unsigned() ^ (1 << 63)).to_be_bytes());
    key
}

/// The key of the identity of the record before a partition's position.
fn identity_key(partition: u32) -> Vec<u8> {
    [&partition.to_be_bytes()[..], b"/last"].concat()
}

/// The key of the position up to which a partition is counted.
fn counted_key(partition: u32) -> Vec<u8> {
    [&partition.to_be_bytes()[..], b"/counted"].concat()
}

fn hour_of(key: &[u8]) -> Result<Hour, StoreError> {
    let (_, hour) = key.split_first_chunk::<4>().ok_or_else(malformed)?;
    let hour = hour.first_chunk::<8>().ok_or_else(malformed)?;
    Ok(Hour::from_index((u64::from_be_bytes(*hour) ^ (1 << 63)).cast_signed()))
}

/// The value of an hour.
struct HourRow {
    generation: u32,
    next_offset: u64,
    clicks: u64,
    impressions: u64,
    unique_users: u64,
    exactness: Exactness,
}

impl HourRow {
    fn count(self, hour: Hour, partition: u32) -> HourlyCount {
        let Self { generation, next_offset, clicks, impressions, unique_users, exactness } = self;
        HourlyCount { hour, partition, generation, next_offset, clicks, impressions, unique_users, exactness }
    }
}

fn encode(count: &HourlyCount) -> Vec<u8> {
    let mut bytes = count.generation.to_be_bytes().to_vec();
    for number in [count.next_offset, count.clicks, count.impressions, count.unique_users] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    bytes.push(u8::from(count.exactness == Exactness::Approximate));
    bytes
}

fn decode(bytes: &[u8]) -> Result<HourRow, StoreError> {
    let (generation, rest) = bytes.split_first_chunk::<4>().ok_or_else(malformed)?;
    let (numbers, rest) = rest.as_chunks::<8>();
    let ([next_offset, clicks, impressions, unique_users], [approximate @ (0 | 1)]) = (numbers, rest) else {
        return Err(malformed());
    };
    Ok(HourRow {
        generation: u32::from_be_bytes(*generation),
        next_offset: u64::from_be_bytes(*next_offset),
        clicks: u64::from_be_bytes(*clicks),
        impressions: u64::from_be_bytes(*impressions),
        unique_users: u64::from_be_bytes(*unique_users),
        exactness: if *approximate == 1 { Exactness::Approximate } else { Exactness::Exact },
    })
}

fn encode_position(position: u64, complete: bool) -> Vec<u8> {
    let mut bytes = position.to_be_bytes().to_vec();
    bytes.push(u8::from(complete));
    bytes
}

fn decode_position(bytes: &[u8]) -> Result<(u64, bool), StoreError> {
    match bytes.split_first_chunk::<8>() {
        Some((position, [complete @ (0 | 1)])) => Ok((u64::from_be_bytes(*position), *complete == 1)),
        _ => Err(malformed()),
    }
}

fn decode_counted(partition: u32, bytes: &[u8]) -> Result<CountedPosition, StoreError> {
    match bytes.as_chunks::<8>() {
        ([next_offset, log_time], []) => Ok(CountedPosition {
            partition,
            next_offset: u64::from_be_bytes(*next_offset),
            log_time_ms: i64::from_be_bytes(*log_time),
        }),
        _ => Err(malformed()),
    }
}

/// The position that an identity is of, and the identity.
fn decode_identity(bytes: &[u8]) -> Result<(u64, u64), StoreError> {
    match bytes.as_chunks::<8>() {
        ([of, identity], []) => Ok((u64::from_be_bytes(*of), u64::from_be_bytes(*identity))),
        _ => Err(malformed()),
    }
}
