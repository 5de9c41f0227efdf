//! The first reading of a stage's changes in a restore: the position, the tombstones, earlier owners, and our marker.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::time::{Duration, Instant};

use millrace_contracts::{Marker, Position};
use xxhash_rust::xxh3::xxh3_128;

use super::KafkaLog;
use super::reader::Reader;
use crate::progress::RestoreProgress;
use crate::restore::RestoreError;
use crate::{Batch, Limits, LogError, PollOutcome, RunnerKey, Stage, StageError};

/// Most earlier owners of a partition that are remembered, the newest.
const MAX_OWNERS: usize = 16;

pub(super) const READ_ONLY_ASSIGNED: &str = "the reader reads only assigned partitions";

/// The first reading of the changes.
pub(super) struct ChangesScan {
    reader: Reader,
    nonce: String,
    pub(super) found: BTreeMap<u32, PartitionScan>,
    /// The offset to read next.
    pub(super) positions: BTreeMap<u32, u64>,
}

/// The result of the first reading in one partition of the changes.
#[derive(Default)]
pub(super) struct PartitionScan {
    /// The first offset.
    pub(super) start: u64,
    /// The value of the newest `pos/{p}`.
    pub(super) position: Option<Position>,
    /// Whether everything that was stable at the begin has been read.
    pub(super) caught_up: bool,
    /// The offset of our marker.
    pub(super) marker: Option<u64>,
    /// The transactional ids of earlier owners, the newest last.
    pub(super) owners: Vec<String>,
    /// The offset of the newest tombstone of each deleted key, by the key's hash.
    deleted: HashMap<u128, u64>,
}

impl ChangesScan {
    /// Begins at the first offset of each partition.
    pub(super) fn begin<S: Stage>(
        log: &KafkaLog,
        stage: &S,
        partitions: &[u32],
        nonce: &str,
        progress: &mut RestoreProgress<'_>,
    ) -> Result<Self, RestoreError> {
        let mut reader = log.reader(stage.changes(), &[])?;
        let (mut found, mut positions, mut failed) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for &partition in partitions {
            match reader.bounds(partition) {
                Ok((start, end)) => {
                    progress.expect(end.saturating_sub(start));
                    found.insert(partition, PartitionScan { start, ..PartitionScan::default() });
                    positions.insert(partition, start);
                }
                Err(error) => failed.push((partition, error)),
            }
        }
        if !failed.is_empty() {
            return Err(RestoreError::partitions(failed));
        }
        let from: Vec<_> = positions.iter().map(|(&partition, &start)| (partition, start)).collect();
        reader.assign(&from)?;
        Ok(Self { reader, nonce: nonce.to_owned(), found, positions })
    }

    /// Reads until all partitions are `done`; false if no record arrives for `patience`.
    pub(super) fn read(
        &mut self,
        progress: &mut RestoreProgress<'_>,
        patience: Duration,
        done: impl Fn(&PartitionScan) -> bool,
    ) -> Result<bool, RestoreError> {
        let (mut batch, mut last) = (Batch::default(), Instant::now());
        while !self.found.values().all(&done) {
            progress.check()?;
            let polled = self.reader.poll(&mut batch, Limits::default())?;
            if let PollOutcome::CaughtUp { partition, .. } = polled {
                self.found.get_mut(&partition).expect(READ_ONLY_ASSIGNED).caught_up = true;
            }
            if polled != PollOutcome::Records {
                // The end is the last stable offset: before the marker while an older transaction is open.
                if last.elapsed() >= patience {
                    return Ok(false);
                }
                continue;
            }
            last = Instant::now();
            let one = self.found.get_mut(&batch.partition()).expect(READ_ONLY_ASSIGNED);
            one.take(&batch, &self.nonce).map_err(RestoreError::of(batch.partition()))?;
            let next = batch.next_offset().expect("the batch is not empty");
            let before = self.positions.insert(batch.partition(), next).expect(READ_ONLY_ASSIGNED);
            progress.advance(&batch, next - before)?;
        }
        Ok(true)
    }

    /// The partitions that are not `done`.
    pub(super) fn not(&self, done: impl Fn(&PartitionScan) -> bool) -> Vec<u32> {
        self.found.iter().filter(|(_, found)| !done(found)).map(|(&partition, _)| partition).collect()
    }
}

impl PartitionScan {
    /// The position that the state contains.
    pub(super) fn next_offset(&self) -> Option<u64> {
        self.position.as_ref().map(|position| position.next_offset)
    }

    fn take(&mut self, batch: &Batch, nonce: &str) -> Result<(), LogError> {
        // Records after the marker are not of an earlier owner: none can still write.
        if self.marker.is_some() {
            return Ok(());
        }
        for record in batch.iter() {
            let Some(value) = record.value else {
                self.deleted.insert(xxh3_128(record.key), record.offset);
                continue;
            };
            match RunnerKey::parse(record.key) {
                Some(RunnerKey::Marker(_)) => {
                    let marker = Marker::decode(value).map_err(|error| malformed(batch, record.offset, error))?;
                    if marker.nonce == nonce {
                        self.marker = Some(record.offset);
                        break;
                    }
                    self.owners.extend(marker.transactional_id);
                    retain_newest(&mut self.owners);
                }
                Some(RunnerKey::Position(_)) => {
                    let position = Position::decode(value).map_err(|error| malformed(batch, record.offset, error))?;
                    self.position = Some(position);
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Loads the changes of a batch that were not deleted later.
    pub(super) fn load<S: Stage>(&self, stage: &S, state: &mut S::State, batch: &Batch) -> Result<(), LogError> {
        for record in batch.iter() {
            let Some(value) = record.value else { continue };
            let deleted = || self.deleted.get(&xxh3_128(record.key)).is_some_and(|&by| by > record.offset);
            if RunnerKey::parse(record.key).is_some() || !self.deleted.is_empty() && deleted() {
                continue;
            }
            stage.load(state, record.key, value).map_err(|error| match error {
                StageError::ForeignChange { .. }
                | StageError::ForeignRecord { .. }
                | StageError::ReservedKey { .. } => malformed(batch, record.offset, error),
                StageError::Unavailable(failure) => LogError::Unavailable(failure),
            })?;
        }
        Ok(())
    }
}

/// Retains the newest occurrence of each id, and at most [`MAX_OWNERS`] of them.
fn retain_newest(owners: &mut Vec<String>) {
    if let Some((newest, earlier)) = owners.split_last()
        && let Some(known) = earlier.iter().position(|id| id == newest)
    {
        owners.remove(known);
    }
    if owners.len() > MAX_OWNERS {
        owners.remove(0);
    }
}

fn malformed(batch: &Batch, offset: u64, error: impl Error + Send + Sync + 'static) -> LogError {
    LogError::refused(format!("state of partition {}, offset {offset}: {error}", batch.partition())).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_owners_are_remembered_once() {
        let mut owners = Vec::new();
        for n in (0..20).chain([10, 19, 19]) {
            owners.push(n.to_string());
            retain_newest(&mut owners);
        }
        assert_eq!(owners.len(), MAX_OWNERS);
        assert_eq!(owners[MAX_OWNERS - 3..], ["18", "10", "19"]);
    }
}
