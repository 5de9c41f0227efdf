//! Ends transactions that a broker left open although it recorded them as ended (KAFKA-20734).
//!
//! Their records, and all behind them, stay unreadable until the next marker of the same producer id. A transactional id
//! has the same producer id after a restart, so a producer of the same transactional id ends them: first of our own, then of
//! each earlier owner of the partition, whose markers name it. Opening a producer fences the one that has the id. So this
//! waits for as long as the brokers take to end every transaction that they know of, and retries do not repeat it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_contracts::{Marker, Topic};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use tokio_util::sync::CancellationToken;

use super::consumer::{QuietContext, committed, consumer, offset_list};
use super::restore::{Restore, SETTLE_TIMEOUT, lost};
use super::scan::{ChangesScan, PartitionScan};
use super::transaction::{Purpose, Transaction, TransactionError, TransactionalProducer};
use super::{KafkaLog, unavailable};
use crate::metric::Abort;
use crate::progress::RestoreProgress;
use crate::restore::RestoreError;
use crate::{Batch, Limits, LogError, PollOutcome, RunnerKey};

/// Between two looks at the end of an output.
const INTERVAL: Duration = Duration::from_millis(100);
/// Timeout of a request for offsets.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

impl KafkaLog {
    /// The time after which no open transaction ends any more by itself.
    pub(super) fn end_timeout(&self) -> Duration {
        self.0.config.transaction_timeout.0 + SETTLE_TIMEOUT
    }

    /// A transaction with a delivered marker in each of these partitions; without a value it is a tombstone.
    pub(super) fn marked<'p>(
        &self,
        producer: &'p mut TransactionalProducer,
        partitions: &[(Topic, u32)],
        value: Option<&[u8]>,
    ) -> Result<Transaction<'p>, TransactionError> {
        let transaction = producer.begin(Purpose::Restore)?;
        let sent = partitions.iter().try_for_each(|&(topic, partition)| {
            let key = RunnerKey::Marker(partition).to_string();
            transaction.produce(self.full_name(topic), partition, key.as_bytes(), value)
        });
        match sent.and_then(|()| transaction.drain()) {
            Ok(()) => Ok(transaction),
            Err(error) => Err(transaction.failed(Abort::Records, error)),
        }
    }

    /// The group's committed offsets, once no open transaction can change them; `None` where it committed none.
    /// (KIP-447: librdkafka requests stable offsets if the isolation level is `read_committed`.)
    pub(super) fn stable_offsets(
        &self,
        restore: &Restore<'_>,
        input: Topic,
        partitions: &[u32],
        within: Duration,
    ) -> Result<Vec<Option<u64>>, LogError> {
        let consumer = consumer(&self.0.config.reader(&self.0.names.group(&restore.options.role)))?;
        committed(&consumer, self.full_name(input), partitions, within, restore.canceled)
    }

    /// Ends the transactions that hold the group's offsets, each owner's by itself. Returns the offsets then.
    pub(super) fn settle_offsets(
        &self,
        restore: &Restore<'_>,
        (input, changes): (Topic, Topic),
        scan: &ChangesScan,
        patience: Duration,
    ) -> Result<BTreeMap<u32, Option<u64>>, LogError> {
        let Restore { owner, canceled, .. } = *restore;
        let role = &restore.options.role;
        let partitions: Vec<u32> = scan.found.keys().copied().collect();
        let before = self.offsets_before(restore, input, &partitions)?;
        let ended = |id: &str| {
            let committed = committed_by(&scan.found, &before, id, &owner.id);
            let commit = !committed.is_empty();
            let offsets = if commit { committed } else { partitions.iter().map(|&partition| (partition, 0)).collect() };
            (offset_list(self.full_name(input), offsets), commit)
        };
        let (offsets, commit) = ended(&owner.id);
        tracing::warn!(role, ?partitions, commit, "a broker left offsets in an open transaction: ending it");
        owner
            .run(canceled, move |member, producer| end_offsets(producer, member.group_metadata(), &offsets, commit))?;
        let mut others = self.earlier_owners(changes, scan, &owner.id)?;
        others.retain(|id| owner.taken_over.may_help(input, &partitions, id));
        let mut others = others.into_iter();
        loop {
            let wait = if others.len() > 0 { SETTLE_TIMEOUT } else { patience };
            let unsettled = match self.stable_offsets(restore, input, &partitions, wait) {
                Ok(committed) => return Ok(partitions.into_iter().zip(committed).collect()),
                Err(error) => error,
            };
            // Retries have long pauses.
            let refused = || LogError::refused(unsettled.to_string()).because(unsettled);
            let id = others.next().ok_or_else(refused)?;
            if let Some(mut producer) = self.take_over(restore, &id) {
                let metadata = owner.run(canceled, |member, _| Ok(member.group_metadata()))?;
                let (offsets, commit) = ended(&id);
                end_offsets(&mut producer, metadata, &offsets, commit).map_err(lost)?;
                owner.taken_over.add(input, &partitions, &id);
            }
        }
    }

    /// Ends the transactions that keep our markers unreadable. Where the committed offset is ahead of the readable state,
    /// they committed; otherwise they are aborted.
    pub(super) fn settle_changes(
        &self,
        restore: &Restore<'_>,
        changes: Topic,
        scan: &mut ChangesScan,
        committed: &BTreeMap<u32, Option<u64>>,
        progress: &mut RestoreProgress<'_>,
    ) -> Result<(), RestoreError> {
        let mut marker = Vec::new();
        // Not the nonce of the restore. Compaction retains it for the next owner, so it names this one.
        let nonce = uuid::Uuid::new_v4().to_string();
        Marker { nonce, transactional_id: Some(restore.owner.id.clone()) }.encode(&mut marker);
        for id in self.earlier_owners(changes, scan, &restore.owner.id)? {
            progress.check()?;
            let unmarked = scan.not(|found| found.marker.is_some());
            if !restore.owner.taken_over.may_help(changes, &unmarked, &id) {
                continue;
            }
            let Some(mut producer) = self.take_over(restore, &id) else { continue };
            let (mut aborted, mut ahead) = (Vec::new(), Vec::new());
            for &partition in &unmarked {
                let is_ahead = scan.found[&partition].next_offset() != committed[&partition];
                let those = if is_ahead { &mut ahead } else { &mut aborted };
                those.push((changes, partition));
            }
            if !aborted.is_empty() {
                self.marked(&mut producer, &aborted, Some(&marker)).and_then(Transaction::cancel).map_err(lost)?;
            }
            if !ahead.is_empty() {
                self.marked(&mut producer, &ahead, Some(&marker)).and_then(Transaction::commit).map_err(lost)?;
            }
            restore.owner.taken_over.add(changes, &unmarked, &id);
            if scan.read(progress, SETTLE_TIMEOUT, |found| found.marker.is_some())? {
                break;
            }
        }
        Ok(())
    }

    /// Ends what is open in the outputs, with a commit: if it committed, its records must not be lost; if it was aborted,
    /// the same records follow again. Gives up after all earlier owners. Only in those of the partitions that are
    /// `retained` by then.
    pub(super) fn settle_outputs(
        &self,
        restore: &Restore<'_>,
        outputs: &[Topic],
        retained: &dyn Fn() -> Vec<u32>,
        owners: &[String],
    ) -> Result<(), LogError> {
        let Restore { owner, canceled, .. } = *restore;
        let mut open = OpenOutputs::find(self, outputs, retained)?;
        if open.have_ended(self.end_timeout(), canceled)? {
            return Ok(());
        }
        let role = &restore.options.role;
        tracing::warn!(role, outputs = ?open.shown(), "a broker left outputs in an open transaction: ending it");
        let (log, own) = (self.clone(), open.partitions());
        owner.run(canceled, move |_, producer| log.marked(producer, &own, None)?.commit())?;
        for id in owners {
            if open.have_ended(SETTLE_TIMEOUT, canceled)? {
                return Ok(());
            }
            let Some(mut producer) = self.take_over(restore, id) else { continue };
            if !open.have_ended(Duration::ZERO, canceled)? {
                let ended = self.marked(&mut producer, &open.partitions(), None).and_then(Transaction::commit);
                ended.map_err(lost)?;
            }
        }
        if !open.have_ended(SETTLE_TIMEOUT, canceled)? {
            let outputs = open.shown();
            tracing::error!(role, ?outputs, "a transaction of an unknown producer stays open: readers wait for it");
        }
        Ok(())
    }

    /// A producer under the transactional id of an earlier owner, which is fenced; `None` if that fails, or once our
    /// partitions may have another owner.
    fn take_over(&self, restore: &Restore<'_>, id: &str) -> Option<TransactionalProducer> {
        let role = &restore.options.role;
        if restore.canceled.is_cancelled() {
            return None;
        }
        tracing::warn!(role, transactional_id = id, "ending the open transaction of an earlier owner");
        TransactionalProducer::open(&self.0.config, id)
            .inspect_err(|error| tracing::warn!(role, transactional_id = id, %error, "cannot end it"))
            .ok()
            // It took a while.
            .filter(|_| !restore.canceled.is_cancelled())
    }

    /// The transactional ids of the earlier owners of these partitions, other than our own: those that began last come
    /// first. A marker that is not readable yet names one too.
    fn earlier_owners(&self, changes: Topic, scan: &ChangesScan, own_id: &str) -> Result<Vec<String>, LogError> {
        let mut owners: Vec<String> = Vec::new();
        for id in self.unreadable_owners(changes, scan)?.into_iter().rev().chain(scan.earlier_owners(own_id)) {
            if id != own_id && !owners.contains(&id) {
                owners.push(id);
            }
        }
        Ok(owners)
    }

    /// The owners whose markers are behind an open transaction, or in one.
    fn unreadable_owners(&self, changes: Topic, scan: &ChangesScan) -> Result<Vec<String>, LogError> {
        let mut reader = self.uncommitted_reader(changes)?;
        let mut unread = BTreeSet::new();
        for (&partition, &from) in &scan.positions {
            if from < reader.bounds(partition)?.1 {
                unread.insert(partition);
            }
        }
        let from: Vec<(u32, u64)> = unread.iter().map(|partition| (*partition, scan.positions[partition])).collect();
        reader.assign(&from)?;
        let (mut owners, mut batch, began) = (Vec::new(), Batch::default(), Instant::now());
        while !unread.is_empty() && began.elapsed() < REQUEST_TIMEOUT {
            match reader.poll(&mut batch, Limits::default())? {
                PollOutcome::Nothing => {}
                PollOutcome::CaughtUp { partition, .. } => drop(unread.remove(&partition)),
                PollOutcome::Records => {
                    let markers = batch.iter().filter(|record| RunnerKey::parse(record.key).is_some());
                    let markers = markers.filter_map(|record| Marker::decode(record.value?).ok());
                    owners.extend(markers.filter_map(|marker| marker.transactional_id));
                }
            }
        }
        Ok(owners)
    }

    /// The group's committed offsets before any open transaction.
    fn offsets_before(
        &self,
        restore: &Restore<'_>,
        input: Topic,
        partitions: &[u32],
    ) -> Result<Vec<Option<u64>>, LogError> {
        let mut config = self.0.config.reader(&self.0.names.group(&restore.options.role));
        config.set("isolation.level", "read_uncommitted");
        committed(&consumer(&config)?, self.full_name(input), partitions, SETTLE_TIMEOUT, restore.canceled)
    }
}

/// The offsets that the last transaction of `id` committed, of those that are still open: where the state contains more
/// than the offsets `before`, and `id` wrote it last. Without any, the transaction was aborted. Where no marker names an
/// owner, it is our own id.
fn committed_by(
    found: &BTreeMap<u32, PartitionScan>,
    before: &[Option<u64>],
    id: &str,
    own_id: &str,
) -> Vec<(u32, u64)> {
    let of_id = found.iter().zip(before).filter(|((_, one), before)| {
        one.next_offset() > **before && one.owners.last().map_or(own_id, String::as_str) == id
    });
    of_id.filter_map(|((&partition, one), _)| Some((partition, one.next_offset()?))).collect()
}

/// Ends a transaction with these offsets.
fn end_offsets(
    producer: &mut TransactionalProducer,
    metadata: Option<Arc<ConsumerGroupMetadata>>,
    offsets: &TopicPartitionList,
    commit: bool,
) -> Result<(), TransactionError> {
    let transaction = producer.begin(Purpose::Restore)?;
    match transaction.offsets(metadata, offsets) {
        Ok(()) if commit => transaction.commit(),
        Ok(()) => transaction.cancel(),
        Err(error) => Err(transaction.failed(Abort::Offsets, error)),
    }
}

/// The partitions of outputs that have unreadable records.
struct OpenOutputs<'a> {
    /// The partitions that they are the outputs of.
    retained: &'a dyn Fn() -> Vec<u32>,
    /// Reads committed records: its end is the last stable offset.
    readable: BaseConsumer<QuietContext>,
    open: Vec<OpenOutput>,
}

struct OpenOutput {
    topic: Topic,
    full_name: String,
    partition: u32,
    /// The last partition of the topic.
    last: u32,
    /// The high watermark when it was found.
    end: u64,
}

impl<'a> OpenOutputs<'a> {
    fn find(log: &KafkaLog, outputs: &[Topic], retained: &'a dyn Fn() -> Vec<u32>) -> Result<Self, LogError> {
        let config = &log.0.config;
        let group = log.0.names.group("reader");
        let all = consumer(config.reader(&group).set("isolation.level", "read_uncommitted"))?;
        let mut open = Vec::new();
        for &topic in outputs {
            let last = log.partitions(topic) - 1;
            // The only partition of a topic takes the outputs of all.
            let numbers: BTreeSet<u32> = retained().into_iter().map(|partition| partition.min(last)).collect();
            for partition in numbers {
                let full_name = log.full_name(topic).to_owned();
                let end = end(&all, &full_name, partition)?;
                open.push(OpenOutput { topic, full_name, partition, last, end });
            }
        }
        Ok(Self { retained, readable: consumer(&config.reader(&group))?, open })
    }

    /// Whether all become readable up to where they ended, within `patience`. Forgets those that do, and those of
    /// partitions that are not retained.
    fn have_ended(&mut self, patience: Duration, canceled: &CancellationToken) -> Result<bool, LogError> {
        let began = Instant::now();
        loop {
            let (mut unread, retained) = (Vec::new(), (self.retained)());
            self.open.retain(|one| retained.iter().any(|&partition| partition.min(one.last) == one.partition));
            for one in self.open.drain(..) {
                if end(&self.readable, &one.full_name, one.partition)? < one.end {
                    unread.push(one);
                }
            }
            self.open = unread;
            if self.open.is_empty() || began.elapsed() >= patience {
                return Ok(self.open.is_empty());
            }
            if canceled.is_cancelled() {
                return Err(LogError::unavailable("canceled"));
            }
            std::thread::sleep(INTERVAL);
        }
    }

    fn partitions(&self) -> Vec<(Topic, u32)> {
        self.open.iter().map(|one| (one.topic, one.partition)).collect()
    }

    fn shown(&self) -> Vec<String> {
        self.open.iter().map(|one| format!("{}/{}", one.full_name, one.partition)).collect()
    }
}

/// The end of a partition for this consumer.
fn end(consumer: &BaseConsumer<QuietContext>, topic: &str, partition: u32) -> Result<u64, LogError> {
    let bounds = consumer.fetch_watermarks(topic, partition.cast_signed(), REQUEST_TIMEOUT);
    Ok(bounds.map_err(unavailable("watermarks"))?.1.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use millrace_contracts::Position;

    use super::*;

    /// One decision for all would commit what another owner has aborted.
    #[test]
    fn each_owner_commits_what_the_state_contains_of_its_own() {
        let one = |next_offset, owners: &[&str]| {
            let mut scan = PartitionScan::default();
            scan.position = Some(Position { next_offset, ..Position::default() });
            scan.owners = owners.iter().map(|&id| id.to_owned()).collect();
            scan
        };
        let found = BTreeMap::from([
            (0, one(10, &["b", "a"])),
            (1, one(20, &["a", "b"])),
            (2, one(30, &["own", "c"])),
            (3, one(40, &[])),
            (4, PartitionScan::default()),
        ]);
        // Partition 1 has nothing that its offsets lack: b's transaction was aborted.
        let before = [Some(5), Some(20), None, Some(39), None];
        for (id, committed) in [("a", vec![(0, 10)]), ("b", vec![]), ("c", vec![(2, 30)]), ("own", vec![(3, 40)])] {
            assert_eq!(committed_by(&found, &before, id, "own"), committed, "{id}");
        }
    }
}
