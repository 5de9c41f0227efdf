//! Restores a stage's state for newly assigned partitions.
//!
//! The order makes it safe. The assignment is ours, so no earlier owner can commit offsets any more, except in a
//! transaction that already contains them: `committed` waits for those. Then a marker is committed to each partition of
//! the changes; a `read_committed` reader returns it only after every earlier transaction has ended. So the changes up
//! to the marker are the whole state, and the position that it contains must equal the committed offset.
//!
//! A broker that restarts after a kill can treat a transaction as ended although it wrote the markers of some
//! partitions only (KAFKA-20734). Our first commit would make the rest visible, since markers count per producer id and
//! we have the id of our predecessor. So where the position in the readable state equals the committed offset, we first
//! abort what is open. Where the offset is ahead, the transaction committed, and our commit completes it.
//!
//! The changes are read twice: compaction is lazy, so a change may still precede the tombstone that deletes it. The
//! first reading finds position, marker and tombstones, the second loads what is not deleted. So the memory needed is
//! that of the tombstones, not that of all changes.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::time::{Duration, Instant};

use millrace_contracts::{Marker, Position};
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_128;

use super::KafkaLog;
use super::consumer::{committed, consumer};
use super::member::Member;
use super::transaction::{Purpose, Transaction, TransactionError, TransactionalProducer};
use super::unavailable;
use crate::metric::Abort;
use crate::progress::RestoreProgress;
use crate::restore::{Range, RestoredPartition, read_ranges, replay, resumed};
use crate::{Batch, Limits, LogError, PollOutcome, Reader, RunOptions, RunnerKey, Stage, StageError, fault};

/// A restore fails if nothing arrives for this long beyond the transaction timeout.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long after its timeout the brokers may take to end a transaction.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

const READ_ONLY_ASSIGNED: &str = "the reader reads only assigned partitions";

/// The first reading of the changes.
struct ChangesScan<'a> {
    reader: super::reader::Reader,
    topic: &'a str,
    nonce: &'a str,
    patience: Duration,
    found: BTreeMap<u32, PartitionScan>,
    positions: BTreeMap<u32, u64>,
}

/// The result of the first reading in one partition of the changes.
#[derive(Default)]
struct PartitionScan {
    /// The first offset.
    start: u64,
    /// The value of the newest `pos/{p}`.
    position: Option<Position>,
    /// Whether everything that was stable at the begin has been read.
    caught_up: bool,
    /// The offset of our marker.
    marker: Option<u64>,
    /// The offset of the newest tombstone of each deleted key, by the key's hash.
    deleted: HashMap<u128, u64>,
}

impl KafkaLog {
    pub(super) fn restore<S: Stage>(
        &self,
        stage: &S,
        options: &RunOptions,
        stop: &CancellationToken,
        member: &Member,
        producer: &mut TransactionalProducer,
        partitions: &[u32],
    ) -> Result<Vec<RestoredPartition<S>>, LogError> {
        let timeout = self.0.config.transaction_timeout.0;
        let patience = PATIENCE + timeout;
        let mut progress = RestoreProgress::begin(options, stop, partitions, self.0.config.max_poll_interval());
        let committed = member.committed(partitions, timeout + SETTLE_TIMEOUT);
        let nonce = uuid::Uuid::new_v4().to_string();
        let mut scan = ChangesScan::begin(self, stage, partitions, &nonce, patience, &mut progress)?;
        scan.read(&mut progress, |found| found.caught_up)?;
        let committed = if let Ok(committed) = committed {
            committed
        } else {
            let positions: Vec<_> = partitions.iter().map(|one| (*one, scan.found[one].next_offset())).collect();
            self.settle(options, member, producer, self.full_name(stage.input()), &positions, patience)?
        };
        // Outputs that were left open end with the next step: if their transaction was aborted, its records follow
        // again; if it committed, they must not be lost.
        let both = partitions.iter().copied().zip(&committed);
        let settled = both.filter(|(partition, committed)| scan.found[partition].next_offset() == **committed);
        let settled: Vec<u32> = settled.map(|(partition, _)| partition).collect();
        self.marked(stage, producer, &settled, None)?.abort().map_err(unavailable("abort"))?;
        let mut marker = Vec::new();
        Marker { nonce: nonce.clone() }.encode(&mut marker);
        self.marked(stage, producer, partitions, Some(&marker))?.commit().map_err(lost)?;
        fault::point("kafka::restore::marked");
        scan.read(&mut progress, |found| found.marker.is_some())?;
        let mut found = scan.found;
        let mut restored = Vec::with_capacity(partitions.len());
        for (&partition, committed) in partitions.iter().zip(committed) {
            let one = found.get_mut(&partition).expect(READ_ONLY_ASSIGNED);
            let next_offset = match fault::unchecked_position(committed, one.next_offset()) {
                Some(unchecked) => unchecked,
                None => self.check_position(stage, member, partition, committed, one.next_offset())?,
            };
            let position = resumed(one.position.take(), next_offset);
            restored.push(RestoredPartition { partition, state: stage.new_state(partition), position });
        }
        self.load(stage, &found, &mut restored, patience, &mut progress)?;
        fault::point("kafka::restore::loaded");
        let open = |topic, from: &[_]| self.reader(topic, from).map(Reader::Kafka);
        replay(stage, open, |partition| member.bounds(partition), &mut restored, patience, &mut progress)?;
        progress.complete();
        Ok(restored)
    }

    /// Ends a transaction whose marker was never written to the group's offsets, which stay open past its timeout. It
    /// committed if the state contains more than the offsets before it; otherwise it is aborted. Returns the offsets
    /// then.
    fn settle(
        &self,
        options: &RunOptions,
        member: &Member,
        producer: &mut TransactionalProducer,
        input: &str,
        positions: &[(u32, Option<u64>)],
        patience: Duration,
    ) -> Result<Vec<Option<u64>>, LogError> {
        let partitions: Vec<u32> = positions.iter().map(|&(partition, _)| partition).collect();
        let before = self.committed_before(&self.0.names.group(&options.role), input, &partitions)?;
        let contained = positions.iter().zip(before).filter(|((_, position), before)| position > before);
        let contained: Vec<(u32, u64)> =
            contained.filter_map(|(&(partition, position), _)| Some((partition, position?))).collect();
        let commit = !contained.is_empty();
        tracing::warn!(
            role = options.role,
            ?partitions,
            commit,
            "a broker left offsets in an open transaction: ending it"
        );
        let offsets = if commit { contained } else { partitions.iter().map(|&partition| (partition, 0)).collect() };
        let transaction = producer.begin(Purpose::Restore).map_err(lost)?;
        match transaction.offsets(member, &member.offsets(offsets)) {
            Ok(()) if commit => transaction.commit().map_err(lost)?,
            Ok(()) => transaction.abort().map_err(unavailable("abort"))?,
            Err(error) => return Err(lost(transaction.failed(Abort::Offsets, error))),
        }
        member.committed(&partitions, patience)
    }

    /// The group's committed offsets before any open transaction.
    fn committed_before(&self, group: &str, topic: &str, partitions: &[u32]) -> Result<Vec<Option<u64>>, LogError> {
        let mut config = self.0.config.reader(group);
        config.set("isolation.level", "read_uncommitted");
        committed(&consumer(&config)?, topic, partitions, SETTLE_TIMEOUT)
    }

    /// A transaction with a delivered marker in each of these partitions of the changes; without a value it is a
    /// tombstone.
    fn marked<'p, S: Stage>(
        &self,
        stage: &S,
        producer: &'p mut TransactionalProducer,
        partitions: &[u32],
        value: Option<&[u8]>,
    ) -> Result<Transaction<'p>, LogError> {
        let transaction = producer.begin(Purpose::Restore).map_err(lost)?;
        let sent = partitions.iter().try_for_each(|&partition| {
            let key = RunnerKey::Marker(partition).to_string();
            transaction.produce(self.full_name(stage.changes()), partition, key.as_bytes(), value)
        });
        match sent.and_then(|()| transaction.drain()) {
            Ok(()) => Ok(transaction),
            Err(error) => Err(lost(transaction.failed(Abort::Records, error))),
        }
    }

    /// The second reading: loads the changes that are not deleted.
    fn load<S: Stage>(
        &self,
        stage: &S,
        found: &BTreeMap<u32, PartitionScan>,
        restored: &mut [RestoredPartition<S>],
        patience: Duration,
        progress: &mut RestoreProgress<'_>,
    ) -> Result<(), LogError> {
        let range = |(&partition, found): (&u32, &PartitionScan)| {
            let marker = found.marker.expect("the first reading ends at the marker");
            Range { partition, from: found.start, until: marker + 1 }
        };
        let ranges: Vec<Range> = found.iter().map(range).collect();
        let mut states: BTreeMap<u32, &mut S::State> =
            restored.iter_mut().map(|one| (one.partition, &mut one.state)).collect();
        let open = |from: &[_]| self.reader(stage.changes(), from).map(Reader::Kafka);
        read_ranges(open, &ranges, patience, progress, |batch| {
            let state = states.get_mut(&batch.partition()).expect(READ_ONLY_ASSIGNED);
            found[&batch.partition()].load(stage, state, batch)
        })
    }

    /// The second guard: the position that the state contains must be the offset that the group committed with it.
    fn check_position<S: Stage>(
        &self,
        stage: &S,
        member: &Member,
        partition: u32,
        committed: Option<u64>,
        position: Option<u64>,
    ) -> Result<u64, LogError> {
        let input = self.full_name(stage.input());
        match (committed, position) {
            (Some(committed), Some(position)) if committed == position => Ok(position),
            (None, None) => match member.bounds(partition)? {
                (0, _) => Ok(0),
                (start, _) => Err(LogError::refused(format!(
                    "{input}/{partition} begins at offset {start}, and there is neither state nor a committed offset: the \
                     records before it would never be counted"
                ))),
            },
            (committed, position) => Err(LogError::refused(format!(
                "{input}/{partition}: the group committed offset {committed:?}, but the state in {} contains {position:?}",
                self.full_name(stage.changes())
            ))),
        }
    }
}

/// A transaction of the restore failed: a fresh start repeats it.
fn lost(error: TransactionError) -> LogError {
    match error {
        TransactionError::Aborted(_, failure) => LogError::unavailable(format!("restore: {failure}")).because(failure),
        TransactionError::ProducerLost(error) => error,
    }
}

impl<'a> ChangesScan<'a> {
    fn begin<S: Stage>(
        log: &'a KafkaLog,
        stage: &S,
        partitions: &[u32],
        nonce: &'a str,
        patience: Duration,
        progress: &mut RestoreProgress<'_>,
    ) -> Result<Self, LogError> {
        let mut reader = log.reader(stage.changes(), &[])?;
        let (mut found, mut positions) = (BTreeMap::new(), BTreeMap::new());
        for &partition in partitions {
            let (start, end) = reader.bounds(partition)?;
            progress.expect(end.saturating_sub(start));
            found.insert(partition, PartitionScan { start, ..PartitionScan::default() });
            positions.insert(partition, start);
        }
        let from: Vec<_> = positions.iter().map(|(&partition, &start)| (partition, start)).collect();
        reader.assign(&from)?;
        Ok(Self { reader, topic: log.full_name(stage.changes()), nonce, patience, found, positions })
    }

    /// Reads until all partitions are `done`.
    fn read(
        &mut self,
        progress: &mut RestoreProgress<'_>,
        done: impl Fn(&PartitionScan) -> bool,
    ) -> Result<(), LogError> {
        let (mut batch, mut last) = (Batch::default(), Instant::now());
        while !self.found.values().all(&done) {
            progress.check()?;
            let polled = self.reader.poll(&mut batch, Limits::default())?;
            if let PollOutcome::CaughtUp { partition, .. } = polled {
                self.found.get_mut(&partition).expect(READ_ONLY_ASSIGNED).caught_up = true;
            }
            if polled != PollOutcome::Records {
                // The end is the last stable offset: before the marker while an older transaction is open.
                if last.elapsed() >= self.patience {
                    let (topic, patience) = (self.topic, self.patience);
                    return Err(LogError::unavailable(format!(
                        "restore: no readable record in {topic} for {patience:?}"
                    )));
                }
                continue;
            }
            last = Instant::now();
            let one = self.found.get_mut(&batch.partition()).expect(READ_ONLY_ASSIGNED);
            one.take(&batch, self.nonce)?;
            let next = batch.next_offset().expect("the batch is not empty");
            let before = self.positions.insert(batch.partition(), next).expect(READ_ONLY_ASSIGNED);
            progress.advance(&batch, next - before)?;
        }
        Ok(())
    }
}

impl PartitionScan {
    fn next_offset(&self) -> Option<u64> {
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

    fn load<S: Stage>(&self, stage: &S, state: &mut S::State, batch: &Batch) -> Result<(), LogError> {
        for record in batch.iter() {
            let Some(value) = record.value else { continue };
            let deleted = || self.deleted.get(&xxh3_128(record.key)).is_some_and(|&by| by > record.offset);
            if RunnerKey::parse(record.key).is_some() || !self.deleted.is_empty() && deleted() {
                continue;
            }
            stage.load(state, record.key, value).map_err(|error| match error {
                StageError::ForeignChange { .. } | StageError::ReservedKey { .. } => {
                    malformed(batch, record.offset, error)
                }
                StageError::Unavailable(failure) => LogError::Unavailable(failure),
            })?;
        }
        Ok(())
    }
}

fn malformed(batch: &Batch, offset: u64, error: impl Error + Send + Sync + 'static) -> LogError {
    LogError::refused(format!("state of partition {}, offset {offset}: {error}", batch.partition())).because(error)
}
