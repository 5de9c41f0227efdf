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
//!
//! A transaction that was left open by another producer keeps our marker unreadable, and readers from the outputs: `settle`
//! ends it.

use std::collections::BTreeMap;
use std::time::Duration;

use millrace_contracts::{Marker, Topic};
use tokio_util::sync::CancellationToken;

use super::KafkaLog;
use super::member::Member;
use super::scan::{ChangesScan, PartitionScan, READ_ONLY_ASSIGNED};
use super::transaction::{TransactionError, TransactionalProducer};
use super::unavailable;
use crate::progress::RestoreProgress;
use crate::restore::{Range, RestoredPartition, read_ranges, replay, resumed};
use crate::{LogError, Reader, RunOptions, Stage, fault};

/// A restore fails if nothing arrives for this long beyond the transaction timeout.
const PATIENCE: Duration = Duration::from_secs(30);

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
        let patience = PATIENCE + self.0.config.transaction_timeout.0;
        let mut progress = RestoreProgress::begin(options, stop, partitions, self.0.config.max_poll_interval());
        let committed = member.committed(partitions, self.end_timeout());
        let nonce = uuid::Uuid::new_v4().to_string();
        let mut scan = ChangesScan::begin(self, stage, partitions, &nonce, &mut progress)?;
        if !scan.read(&mut progress, patience, |found| found.caught_up)? {
            return Err(self.unreadable(stage, &scan, patience));
        }
        let committed = if let Ok(committed) = committed {
            partitions.iter().copied().zip(committed).collect()
        } else {
            let topics = (stage.input(), stage.changes());
            self.settle_offsets(&options.role, topics, member, producer, &scan, patience)?
        };
        // Outputs that were left open end with the next step: if their transaction was aborted, its records follow
        // again; if it committed, they must not be lost.
        let settled = scan.found.iter().filter(|(partition, found)| found.next_offset() == committed[partition]);
        let settled: Vec<(Topic, u32)> = settled.map(|(&partition, _)| (stage.changes(), partition)).collect();
        self.marked(producer, settled, None)?.abort().map_err(unavailable("abort"))?;
        let mut marker = Vec::new();
        Marker { nonce, transactional_id: Some(producer.id().to_owned()) }.encode(&mut marker);
        let all = partitions.iter().map(|&partition| (stage.changes(), partition));
        self.marked(producer, all, Some(&marker))?.commit().map_err(lost)?;
        fault::point("kafka::restore::marked");
        let marked = |found: &PartitionScan| found.marker.is_some();
        if !scan.read(&mut progress, self.end_timeout(), marked)? {
            let own_id = producer.id();
            self.settle_changes(&options.role, stage.changes(), own_id, &mut scan, &committed, &mut progress)?;
            if !scan.read(&mut progress, PATIENCE, marked)? {
                return Err(self.unreadable(stage, &scan, patience));
            }
        }
        let owners = scan.earlier_owners(producer.id());
        let mut found = scan.found;
        let mut restored = Vec::with_capacity(partitions.len());
        for (partition, committed) in committed {
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
        let owned = (partitions, owners);
        if let Err(error) = self.settle_outputs(options, stage.outputs(), producer, owned, &progress) {
            tracing::warn!(role = options.role, %error, "cannot check the outputs for open transactions");
        }
        progress.complete();
        Ok(restored)
    }

    /// The error of a restore whose reading does not get past an open transaction.
    fn unreadable<S: Stage>(&self, stage: &S, scan: &ChangesScan, patience: Duration) -> LogError {
        let (topic, partitions) = (self.full_name(stage.changes()), scan.unmarked());
        LogError::unavailable(format!("restore: nothing readable in {topic} {partitions:?} for {patience:?}"))
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
pub(super) fn lost(error: TransactionError) -> LogError {
    match error {
        TransactionError::Aborted(_, failure) => LogError::unavailable(format!("restore: {failure}")).because(failure),
        TransactionError::ProducerLost(error) => error,
    }
}
