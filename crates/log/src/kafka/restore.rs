//! Restoring a stage's state when partitions are newly held.
//!
//! The order is what makes it safe. The assignment is ours, so no earlier owner can commit offsets any more, except in a
//! transaction that already has them: `committed` waits for those. Then a marker is committed into each partition of the
//! changes; a `read_committed` reader sees it only when every transaction before it is settled. What is read up to the
//! marker is therefore the whole state, and must stand exactly at the committed offset.
//!
//! A broker that comes back after a kill can take a transaction for ended whose markers it wrote to some partitions only
//! (KAFKA-20734). What it left open, our first commit would make visible, since markers count per producer id and ours is
//! our predecessor's. So where the state that can be read stands at the committed offset, what is open is first aborted.
//! Where the offset is ahead, the transaction was committed, and our commit completes it.
//!
//! The changes are read twice: compaction comes late, so that a change can stand long before the tombstone that deletes
//! it. The first reading finds position, marker and tombstones, the second loads what is left. So the memory needed is
//! that of the tombstones, and not that of all changes.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use fail::fail_point;
use millrace_contracts::{Marker, Position, StateKey};
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_128;

use super::KafkaLog;
use super::member::{Member, committed};
use super::reader::consumer;
use super::transaction::{Failed, Transaction, Transactional};
use super::unavailable;
use crate::fault::sabotaged;
use crate::metric::Abort;
use crate::progress::Restoring;
use crate::restore::{Range, Restored, read_ranges, replay};
use crate::{Batch, Limits, LogError, Polled, Reader, RunOptions, Stage, StageError};

/// Restoring gives up when nothing arrives for this long beyond the transaction time-out.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long after the transaction time-out the brokers may take to end a transaction.
const SETTLING: Duration = Duration::from_secs(5);

/// The first reading.
struct Search<'a> {
    reader: super::reader::Reader,
    topic: &'a str,
    nonce: &'a str,
    patience: Duration,
    found: BTreeMap<u32, Found>,
    passed: BTreeMap<u32, u64>,
}

/// What the first reading found in a partition of the changes.
#[derive(Default)]
struct Found {
    /// Where it begins.
    start: u64,
    /// What the newest `pos/{p}` says.
    position: Option<u64>,
    /// Whether everything that was settled when we began has been read.
    caught_up: bool,
    /// The offset of our marker.
    marker: Option<u64>,
    /// The newest tombstone of each key that has one, by the key's hash.
    deleted: HashMap<u128, u64>,
}

impl KafkaLog {
    pub(super) fn restore<S: Stage>(
        &self,
        stage: &S,
        options: &RunOptions,
        stop: &CancellationToken,
        member: &Member,
        producer: &mut Transactional,
        partitions: &[u32],
    ) -> Result<Vec<Restored<S>>, LogError> {
        let time_out = self.0.config.transaction_timeout.0;
        let patience = PATIENCE + time_out;
        let mut restoring = Restoring::begin(options, stop, partitions, self.0.config.max_poll_interval());
        let committed = member.committed(partitions, time_out + SETTLING);
        let nonce = uuid::Uuid::new_v4().to_string();
        let mut search = Search::begin(self, stage, partitions, &nonce, patience, &mut restoring)?;
        search.read(&mut restoring, |found| found.caught_up)?;
        let committed = if let Ok(committed) = committed {
            committed
        } else {
            let positions: Vec<_> = partitions.iter().map(|one| (*one, search.found[one].position)).collect();
            self.settle(options, member, producer, self.full_name(stage.input()), &positions, patience)?
        };
        // Outputs left open are the next step's to end: if their transaction was aborted, its records are now written again and
        // stand behind; if not, they must not be lost.
        let both = partitions.iter().copied().zip(&committed);
        let settled = both.filter(|(partition, committed)| search.found[partition].position == **committed);
        let settled: Vec<u32> = settled.map(|(partition, _)| partition).collect();
        self.marked(stage, producer, &settled, None)?.abort().map_err(unavailable("abort"))?;
        let mut marker = Vec::new();
        Marker { nonce: nonce.clone() }.encode(&mut marker);
        self.marked(stage, producer, partitions, Some(&marker))?.commit().map_err(lost)?;
        fail_point!("kafka::restore::marked");
        search.read(&mut restoring, |found| found.marker.is_some())?;
        let found = search.found;
        let mut restored = Vec::with_capacity(partitions.len());
        for (&partition, committed) in partitions.iter().zip(committed) {
            let next_offset = self.agree(stage, member, partition, committed, found[&partition].position)?;
            restored.push(Restored { partition, state: stage.new_state(partition), next_offset });
        }
        self.load(stage, &found, &mut restored, patience, &mut restoring)?;
        fail_point!("kafka::restore::loaded");
        let open = |topic, from: &[_]| self.reader(topic, from).map(Reader::Kafka);
        let start_of = |partition| member.bounds(partition).map(|(start, _)| start);
        replay(stage, open, start_of, &mut restored, patience, &mut restoring)?;
        restoring.complete();
        Ok(restored)
    }

    /// Ends the transaction whose marker was never written to the group's offsets: they stay open past its time-out. If the
    /// state contains more than the offsets before it, it was committed, else it is aborted. The offsets as they are then.
    fn settle(
        &self,
        options: &RunOptions,
        member: &Member,
        producer: &mut Transactional,
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
        tracing::warn!(role = options.role, ?partitions, commit, "offsets were left open by a broker: ending them");
        let offsets = if commit { contained } else { partitions.iter().map(|&partition| (partition, 0)).collect() };
        let transaction = producer.begin().map_err(lost)?;
        match transaction.offsets(member, &member.offsets(offsets)) {
            Ok(()) if commit => transaction.commit().map_err(lost)?,
            Ok(()) => transaction.abort().map_err(unavailable("abort"))?,
            Err(error) => return Err(lost(transaction.failed(Abort::Offsets, &error))),
        }
        member.committed(&partitions, patience)
    }

    /// The group's offsets before any transaction that is open.
    fn committed_before(&self, group: &str, topic: &str, partitions: &[u32]) -> Result<Vec<Option<u64>>, LogError> {
        let mut config = self.0.config.reader(group);
        config.set("isolation.level", "read_uncommitted");
        committed(&consumer(&config)?, topic, partitions, SETTLING)
    }

    /// A transaction with a marker in each of these partitions of the changes, delivered; without a value it is a tombstone.
    fn marked<'p, S: Stage>(
        &self,
        stage: &S,
        producer: &'p mut Transactional,
        partitions: &[u32],
        value: Option<&[u8]>,
    ) -> Result<Transaction<'p>, LogError> {
        let transaction = producer.begin().map_err(lost)?;
        let sent = partitions.iter().try_for_each(|&partition| {
            let key = StateKey::Marker(partition).to_string();
            transaction.produce(self.full_name(stage.changes()), partition, key.as_bytes(), value)
        });
        match sent.and_then(|()| transaction.drain()) {
            Ok(()) => Ok(transaction),
            Err(error) => Err(lost(transaction.failed(Abort::Records, &error))),
        }
    }

    /// The second reading: loads what is not deleted.
    fn load<S: Stage>(
        &self,
        stage: &S,
        found: &BTreeMap<u32, Found>,
        restored: &mut [Restored<S>],
        patience: Duration,
        restoring: &mut Restoring<'_>,
    ) -> Result<(), LogError> {
        let range = |(&partition, found): (&u32, &Found)| {
            let marker = found.marker.expect("the first reading ends at the marker");
            Range { partition, from: found.start, until: marker + 1 }
        };
        let ranges: Vec<Range> = found.iter().map(range).collect();
        let mut states: BTreeMap<u32, &mut S::State> =
            restored.iter_mut().map(|one| (one.partition, &mut one.state)).collect();
        let open = |from: &[_]| self.reader(stage.changes(), from).map(Reader::Kafka);
        read_ranges(open, &ranges, patience, restoring, |batch| {
            let into = states.get_mut(&batch.partition()).expect("only what was asked for is read");
            found[&batch.partition()].load(stage, into, batch)
        })
    }

    /// The second guard: what the state says it contains must be what the group committed with it.
    fn agree<S: Stage>(
        &self,
        stage: &S,
        member: &Member,
        partition: u32,
        committed: Option<u64>,
        position: Option<u64>,
    ) -> Result<u64, LogError> {
        let input = self.full_name(stage.input());
        if sabotaged("sabotage::skip-position-check") {
            return Ok(committed.or(position).unwrap_or(0));
        }
        match (committed, position) {
            (Some(committed), Some(position)) if committed == position => Ok(position),
            (None, None) => match member.bounds(partition)? {
                (0, _) => Ok(0),
                (start, _) => Err(LogError::Refused(format!(
                    "{input}/{partition} begins at offset {start}, and there is neither state nor a committed offset: what \
                     was there before would never be counted"
                ))),
            },
            (committed, position) => Err(LogError::Refused(format!(
                "{input}/{partition}: the group committed offset {committed:?}, but the state in {} contains {position:?}",
                self.full_name(stage.changes())
            ))),
        }
    }
}

fn lost(failed: Failed) -> LogError {
    match failed {
        Failed::Aborted(_, why) => LogError::Unavailable(format!("restore: {why}")),
        Failed::Lost(error) => error,
    }
}

impl<'a> Search<'a> {
    fn begin<S: Stage>(
        log: &'a KafkaLog,
        stage: &S,
        partitions: &[u32],
        nonce: &'a str,
        patience: Duration,
        restoring: &mut Restoring<'_>,
    ) -> Result<Self, LogError> {
        let mut reader = log.reader(stage.changes(), &[])?;
        let (mut found, mut passed) = (BTreeMap::new(), BTreeMap::new());
        for &partition in partitions {
            let (start, end) = reader.bounds(partition)?;
            restoring.expect(end.saturating_sub(start));
            found.insert(partition, Found { start, ..Found::default() });
            passed.insert(partition, start);
        }
        let from: Vec<_> = passed.iter().map(|(&partition, &start)| (partition, start)).collect();
        reader.assign(&from)?;
        Ok(Self { reader, topic: log.full_name(stage.changes()), nonce, patience, found, passed })
    }

    /// Reads on until all partitions are `done`.
    fn read(&mut self, restoring: &mut Restoring<'_>, done: impl Fn(&Found) -> bool) -> Result<(), LogError> {
        let (mut batch, mut last) = (Batch::default(), Instant::now());
        while !self.found.values().all(&done) {
            restoring.going_on()?;
            let polled = self.reader.poll(&mut batch, Limits::default())?;
            if let Polled::CaughtUp { partition, .. } = polled {
                self.found.get_mut(&partition).expect("only what was asked for is read").caught_up = true;
            }
            if polled != Polled::Records {
                // The end is the last stable offset: short of the marker while an older transaction is open.
                if last.elapsed() >= self.patience {
                    let (topic, patience) = (self.topic, self.patience);
                    return Err(LogError::Unavailable(format!(
                        "restore: nothing readable in {topic} for {patience:?}"
                    )));
                }
                continue;
            }
            last = Instant::now();
            let one = self.found.get_mut(&batch.partition()).expect("only what was asked for is read");
            one.take(&batch, self.nonce)?;
            let next = batch.next_offset().expect("the batch is not empty");
            let before = self.passed.insert(batch.partition(), next).expect("only what was asked for is read");
            restoring.took(&batch, next - before)?;
        }
        Ok(())
    }
}

impl Found {
    fn take(&mut self, batch: &Batch, nonce: &str) -> Result<(), LogError> {
        // What follows the marker is not of an earlier owner: there is none left that could write.
        if self.marker.is_some() {
            return Ok(());
        }
        for record in batch.iter() {
            let Some(value) = record.value else {
                self.deleted.insert(xxh3_128(record.key), record.offset);
                continue;
            };
            match StateKey::parse(record.key) {
                Some(StateKey::Marker(_)) => {
                    let marker = Marker::decode(value).map_err(|error| broken(batch, record.offset, &error))?;
                    if marker.nonce == nonce {
                        self.marker = Some(record.offset);
                        break;
                    }
                }
                Some(StateKey::Position(_)) => {
                    let position = Position::decode(value).map_err(|error| broken(batch, record.offset, &error))?;
                    self.position = Some(position.next_offset);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn load<S: Stage>(&self, stage: &S, into: &mut S::State, batch: &Batch) -> Result<(), LogError> {
        for record in batch.iter() {
            let Some(value) = record.value else { continue };
            let runners_own = matches!(StateKey::parse(record.key), Some(StateKey::Marker(_) | StateKey::Position(_)));
            let deleted = || self.deleted.get(&xxh3_128(record.key)).is_some_and(|&by| by > record.offset);
            if runners_own || !self.deleted.is_empty() && deleted() {
                continue;
            }
            stage.load(into, record.key, value).map_err(|error| match error {
                StageError::ForeignChange { .. } => broken(batch, record.offset, &error),
                StageError::Unavailable(why) => LogError::Unavailable(why),
            })?;
        }
        Ok(())
    }
}

fn broken(batch: &Batch, offset: u64, why: &dyn std::fmt::Display) -> LogError {
    LogError::Refused(format!("state of partition {}, offset {offset}: {why}", batch.partition()))
}
