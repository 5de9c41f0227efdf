//! Restores a stage's state for newly assigned partitions, beside the steps of the worker: it does the transactions of the
//! restore between two of them.
//!
//! The order makes it safe. The assignment is ours, so no earlier owner can commit offsets any more, except in a
//! transaction that already contains them: `stable_offsets` waits for those. Then a marker is committed to each partition
//! of the changes; a `read_committed` reader returns it only after every earlier transaction has ended. So the changes up
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
//!
//! A transaction that was left open by another producer keeps our marker unreadable, and readers from the outputs: `settle`
//! ends it.

use std::collections::BTreeMap;
use std::time::Duration;

use millrace_contracts::{Marker, Topic};
use tokio_util::sync::CancellationToken;

use super::KafkaLog;
use super::consumer::check_bounds;
use super::owner::{Owner, Owners};
use super::scan::{ChangesScan, PartitionScan, READ_ONLY_ASSIGNED};
use super::transaction::TransactionError;
use crate::metric::Lag;
use crate::progress::RestoreProgress;
use crate::restore::{Range, RestoreError, RestoredPartition, numbered, read_ranges, replay, resumed};
use crate::restoring::RestoreTask;
use crate::{LogError, Reader, RunOptions, Stage, fault, worker};

/// How long after its timeout the brokers may take to end a transaction.
pub(super) const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);
/// A restore fails if nothing arrives for this long beyond the transaction timeout.
const PATIENCE: Duration = Duration::from_secs(30);

/// For whom a restore is.
#[derive(Clone, Copy)]
pub(super) struct Restore<'a> {
    pub(super) options: &'a RunOptions,
    pub(super) owner: &'a Owner,
    /// Whether its partitions failed before.
    retry: bool,
    /// Canceled once a partition of the restore may have another owner.
    pub(super) canceled: &'a CancellationToken,
}

impl KafkaLog {
    /// Does a restore of a worker: its result first, then what needs no waiting for.
    pub(super) fn run_restore<S: Stage>(&self, stage: &S, owner: &Owner, task: &RestoreTask<'_, S>) {
        let restore = Restore { options: task.options, owner, retry: task.retry, canceled: task.canceled };
        match self.restore(stage, &restore, task.partitions) {
            Err(mut error) => {
                if let RestoreError::Partitions(failed) = &mut error
                    && let Err(unknown) = self.add_lags(&restore, stage.input(), failed)
                {
                    tracing::debug!(role = task.options.role, error = %unknown, "the lags of failed partitions are unknown");
                }
                task.end(Err(error));
            }
            Ok((restored, owners)) => {
                owner.taken_over.remove(task.partitions);
                task.end(Ok(restored));
                let mut backoff = worker::backoff();
                while let Err(error) = self.settle_outputs(&restore, stage.outputs(), &|| task.retained(), &owners) {
                    tracing::warn!(role = task.options.role, %error, "cannot check the outputs for open transactions");
                    if worker::pause(&mut backoff, task.canceled) {
                        break;
                    }
                }
            }
        }
    }

    /// The restored partitions, and the transactional ids of their earlier owners.
    fn restore<S: Stage>(
        &self,
        stage: &S,
        restore: &Restore<'_>,
        partitions: &[u32],
    ) -> Result<(Vec<RestoredPartition<S>>, Owners), RestoreError> {
        let Restore { options, owner, retry, canceled } = *restore;
        let (input, changes) = (stage.input(), stage.changes());
        let patience = PATIENCE + self.0.config.transaction_timeout.0;
        let mut progress = RestoreProgress::begin(options, canceled, partitions, self.0.config.max_poll_interval());
        let committed = self.stable_offsets(restore, input, partitions, self.end_timeout());
        let nonce = uuid::Uuid::new_v4().to_string();
        let mut scan = ChangesScan::begin(self, stage, partitions, &nonce, &mut progress)?;
        let caught_up = |found: &PartitionScan| found.caught_up;
        if !scan.read(&mut progress, patience, caught_up)? {
            return Err(self.unreadable(changes, scan.not(caught_up), patience, LogError::unavailable));
        }
        let committed: BTreeMap<u32, Option<u64>> = match committed {
            Ok(committed) => partitions.iter().copied().zip(committed).collect(),
            Err(unsettled) => {
                let open = self.open_offsets(restore, input, partitions)?;
                progress.check()?;
                if open.is_empty() {
                    return Err(unsettled.into());
                }
                if !retry && open.len() < partitions.len() {
                    // The others do not wait: the retry of these ends what holds their offsets.
                    return Err(self.held(input, open, &unsettled, LogError::unavailable));
                }
                self.settle_offsets(restore, (input, changes), &scan, &open, patience)?
            }
        };
        let settled = scan.found.iter().filter(|(partition, found)| found.next_offset() == committed[partition]);
        let settled: Vec<(Topic, u32)> = settled.map(|(&partition, _)| (changes, partition)).collect();
        let mut marker = Vec::new();
        Marker { nonce, transactional_id: Some(owner.id.clone()) }.encode(&mut marker);
        let all: Vec<(Topic, u32)> = partitions.iter().map(|&partition| (changes, partition)).collect();
        let log = self.clone();
        owner.run(canceled, move |_, producer| {
            log.marked(producer, &settled, None)?.cancel()?;
            log.marked(producer, &all, Some(&marker))?.commit()
        })?;
        fault::point("kafka::restore::marked");
        let marked = |found: &PartitionScan| found.marker.is_some();
        if !scan.read(&mut progress, self.end_timeout(), marked)? {
            let unmarked = scan.not(marked);
            if !retry && unmarked.len() < partitions.len() {
                // The others do not wait: the retry of these settles them.
                return Err(self.unreadable(changes, unmarked, self.end_timeout(), LogError::unavailable));
            }
            let all_ended = self.settle_changes(restore, changes, &mut scan, &committed, &mut progress)?;
            if !scan.read(&mut progress, PATIENCE, marked)? {
                return Err(self.unreadable(changes, scan.not(marked), patience, if_ended(all_ended)));
            }
        }
        let mut found = scan.found;
        let (mut restored, mut refused) = (Vec::with_capacity(partitions.len()), Vec::new());
        let input_reader = self.reader(input, &[])?;
        for (partition, committed) in committed {
            let one = found.get_mut(&partition).expect(READ_ONLY_ASSIGNED);
            let next_offset = input_reader.bounds(partition).and_then(|bounds| {
                let next_offset = match fault::unchecked_position(committed, one.next_offset()) {
                    Some(unchecked) => unchecked,
                    None => self.check_position((input, changes), partition, bounds, committed, one.next_offset())?,
                };
                check_bounds(self.full_name(input), partition, bounds, next_offset).map(|()| next_offset)
            });
            match next_offset {
                Err(error) => refused.push((partition, error)),
                Ok(next_offset) => {
                    let position = resumed(one.position.take(), next_offset);
                    restored.push(RestoredPartition { partition, state: stage.new_state(partition), position });
                }
            }
        }
        if !refused.is_empty() {
            return Err(RestoreError::partitions(refused));
        }
        self.load(stage, &found, &mut restored, patience, &mut progress)?;
        fault::point("kafka::restore::loaded");
        let open = |topic, from: &[_]| self.reader(topic, from).map(Reader::Kafka);
        replay(stage, open, |partition| input_reader.bounds(partition), &mut restored, patience, &mut progress)?;
        progress.complete();
        Ok((restored, found.into_iter().map(|(partition, one)| (partition, one.owners)).collect()))
    }

    /// The error of a restore whose reading does not get past an open transaction. `refused` once nothing is left to
    /// try: the retries have long pauses.
    fn unreadable(
        &self,
        changes: Topic,
        partitions: Vec<u32>,
        patience: Duration,
        error: impl FnOnce(String) -> LogError,
    ) -> RestoreError {
        let topic = self.full_name(changes);
        let detail = format!("restore: nothing readable in {topic} {partitions:?} for {patience:?}");
        let error = error(detail);
        RestoreError::partitions(partitions.into_iter().map(|partition| (partition, error.clone())))
    }

    /// Adds what the failed partitions have not processed.
    fn add_lags(
        &self,
        restore: &Restore<'_>,
        input: Topic,
        failed: &mut BTreeMap<u32, (LogError, Option<Lag>)>,
    ) -> Result<(), LogError> {
        let partitions: Vec<u32> = failed.keys().copied().collect();
        // Without those of open transactions, which may be why it failed.
        let committed = self.offsets_before(restore, input, &partitions)?;
        let reader = self.reader(input, &[])?;
        for ((&partition, (_, lag)), committed) in failed.iter_mut().zip(committed) {
            // It may have no leader.
            let Ok((start, end)) = reader.bounds(partition) else { continue };
            *lag = Some(Lag { stable: end.saturating_sub(committed.unwrap_or(start)), open: 0 });
        }
        Ok(())
    }

    /// The second reading: loads the changes that are not deleted.
    fn load<S: Stage>(
        &self,
        stage: &S,
        found: &BTreeMap<u32, PartitionScan>,
        restored: &mut [RestoredPartition<S>],
        patience: Duration,
        progress: &mut RestoreProgress<'_>,
    ) -> Result<(), RestoreError> {
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
    fn check_position(
        &self,
        (input, changes): (Topic, Topic),
        partition: u32,
        (start, _): (u64, u64),
        committed: Option<u64>,
        position: Option<u64>,
    ) -> Result<u64, LogError> {
        let input = self.full_name(input);
        match (committed, position) {
            (Some(committed), Some(position)) if committed == position => Ok(position),
            (None, None) if start == 0 => Ok(0),
            (None, None) => Err(LogError::refused(format!(
                "{input}/{partition} begins at offset {start}, and there is neither state nor a committed offset: the \
                 records before it would never be counted"
            ))),
            (committed, position) => Err(LogError::refused(format!(
                "{input}/{partition}: the group committed {}, but the state in {} contains {}",
                numbered("offset", committed),
                self.full_name(changes),
                numbered("position", position)
            ))),
        }
    }
}

/// A transaction of the restore failed: a fresh start repeats it.
pub(super) fn lost(error: TransactionError) -> LogError {
    match error {
        TransactionError::Aborted(_, failure) => LogError::unavailable(format!("restore: {failure}")).because(failure),
        TransactionError::ProducerLost(error) => error,
    }
}

/// The error of what stays open: a person has to decide once all earlier owners' transactions are ended.
pub(super) fn if_ended(all: bool) -> fn(String) -> LogError {
    if all { LogError::refused } else { LogError::unavailable }
}
