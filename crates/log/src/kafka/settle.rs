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
use rdkafka::consumer::ConsumerGroupMetadata;

use super::KafkaLog;
use super::consumer::{committed, consumer, offset_list};
use super::restore::{Restore, SETTLE_TIMEOUT, if_ended, lost};
use super::scan::{ChangesScan, PartitionScan};
use super::transaction::{Purpose, Transaction, TransactionError, TransactionalProducer};
use crate::metric::Abort;
use crate::progress::RestoreProgress;
use crate::restore::RestoreError;
use crate::{Batch, Limits, LogError, PollOutcome, RunnerKey};

/// Timeout of a request for offsets, and of reading the markers.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The time after which a single offset counts as open: librdkafka repeats a request until all its offsets are stable, and
/// does not return which of them are not.
const OPEN_AFTER: Duration = Duration::from_secs(2);
/// Most offsets that are requested one by one at the same time, each on a thread.
const REQUESTS: usize = 16;

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

    /// The partitions whose offsets in the group an open transaction holds.
    pub(super) fn open_offsets(
        &self,
        restore: &Restore<'_>,
        input: Topic,
        partitions: &[u32],
    ) -> Result<Vec<u32>, LogError> {
        let consumer = &consumer(&self.0.config.reader(&self.0.names.group(&restore.options.role)))?;
        let (topic, canceled) = (self.full_name(input), restore.canceled);
        let is_stable = |partition| committed(consumer, topic, &[partition], OPEN_AFTER, canceled).is_ok();
        let mut open = Vec::new();
        for some in partitions.chunks(REQUESTS) {
            std::thread::scope(|scope| {
                let requests: Vec<_> =
                    some.iter().map(|&partition| (partition, scope.spawn(move || is_stable(partition)))).collect();
                let stable =
                    requests.into_iter().map(|(partition, request)| (partition, request.join().unwrap_or(false)));
                open.extend(stable.filter_map(|(partition, is_stable)| (!is_stable).then_some(partition)));
            });
        }
        Ok(open)
    }

    /// The error of partitions whose offsets are `open`. `refused` once nothing is left to try: the retries have long pauses.
    pub(super) fn held(
        &self,
        input: Topic,
        open: Vec<u32>,
        unsettled: &LogError,
        error: impl Fn(String) -> LogError,
    ) -> RestoreError {
        let of = |partition| {
            let detail = format!("{}/{partition}: an open transaction holds the group's offset", self.full_name(input));
            (partition, error(detail).because(unsettled.clone()))
        };
        RestoreError::partitions(open.into_iter().map(of))
    }

    /// Ends the transactions that hold the group's offsets of the `open` partitions, each owner's by itself. Returns the
    /// offsets of all partitions then.
    pub(super) fn settle_offsets(
        &self,
        restore: &Restore<'_>,
        (input, changes): (Topic, Topic),
        scan: &ChangesScan,
        open: &[u32],
        patience: Duration,
    ) -> Result<BTreeMap<u32, Option<u64>>, RestoreError> {
        let Restore { owner, canceled, .. } = *restore;
        let role = &restore.options.role;
        let all: Vec<u32> = scan.found.keys().copied().collect();
        let before = self.offsets_before(restore, input, open)?;
        let ended = |id: &str| {
            let found = open.iter().map(|partition| (*partition, &scan.found[partition]));
            let committed = committed_by(found, &before, id, &owner.id);
            let commit = !committed.is_empty();
            let offsets = if commit { committed } else { open.iter().map(|&partition| (partition, 0)).collect() };
            (offset_list(self.full_name(input), offsets), commit)
        };
        let (offsets, commit) = ended(&owner.id);
        tracing::warn!(role, partitions = ?open, commit, "a broker left offsets in an open transaction: ending it");
        owner
            .run(canceled, move |member, producer| end_offsets(producer, member.group_metadata(), &offsets, commit))?;
        let mut others = self.earlier_owners(changes, scan, open, &owner.id)?;
        others.retain(|id| owner.taken_over.may_help(input, open, id));
        let (mut others, mut all_ended) = (others.into_iter(), true);
        loop {
            let wait = if others.len() > 0 { SETTLE_TIMEOUT } else { patience };
            let unsettled = match self.stable_offsets(restore, input, &all, wait) {
                Ok(committed) => return Ok(all.into_iter().zip(committed).collect()),
                Err(error) => error,
            };
            let Some(id) = others.next() else {
                let open = self.open_offsets(restore, input, open)?;
                return Err(self.held(input, open, &unsettled, if_ended(all_ended)));
            };
            let Some(mut producer) = self.take_over(restore, &id) else {
                all_ended = false;
                continue;
            };
            let metadata = owner.run(canceled, |member, _| Ok(member.group_metadata()))?;
            let (offsets, commit) = ended(&id);
            end_offsets(&mut producer, metadata, &offsets, commit).map_err(lost)?;
            owner.taken_over.add(input, open, &id);
        }
    }

    /// Ends the transactions that keep our markers unreadable. Where the committed offset is ahead of the readable state,
    /// they committed; otherwise they are aborted. False if some earlier owner could not be taken over.
    pub(super) fn settle_changes(
        &self,
        restore: &Restore<'_>,
        changes: Topic,
        scan: &mut ChangesScan,
        committed: &BTreeMap<u32, Option<u64>>,
        progress: &mut RestoreProgress<'_>,
    ) -> Result<bool, RestoreError> {
        let (mut marker, mut all_ended) = (Vec::new(), true);
        // Not the nonce of the restore. Compaction retains it for the next owner, so it names this one.
        let nonce = uuid::Uuid::new_v4().to_string();
        Marker { nonce, transactional_id: Some(restore.owner.id.clone()) }.encode(&mut marker);
        let concerned = scan.not(|found| found.marker.is_some());
        for id in self.earlier_owners(changes, scan, &concerned, &restore.owner.id)? {
            progress.check()?;
            let unmarked = scan.not(|found| found.marker.is_some());
            if !restore.owner.taken_over.may_help(changes, &unmarked, &id) {
                continue;
            }
            let Some(mut producer) = self.take_over(restore, &id) else {
                all_ended = false;
                continue;
            };
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
        Ok(all_ended)
    }

    /// A producer under the transactional id of an earlier owner, which is fenced; `None` if that fails, or once our
    /// partitions may have another owner.
    pub(super) fn take_over(&self, restore: &Restore<'_>, id: &str) -> Option<TransactionalProducer> {
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
    fn earlier_owners(
        &self,
        changes: Topic,
        scan: &ChangesScan,
        partitions: &[u32],
        own_id: &str,
    ) -> Result<Vec<String>, LogError> {
        let mut owners: Vec<String> = Vec::new();
        let readable = partitions.iter().flat_map(|partition| scan.found[partition].owners.iter().rev().cloned());
        for id in self.unreadable_owners(changes, scan, partitions)?.into_iter().rev().chain(readable) {
            if id != own_id && !owners.contains(&id) {
                owners.push(id);
            }
        }
        Ok(owners)
    }

    /// The owners whose markers are behind an open transaction, or in one.
    fn unreadable_owners(
        &self,
        changes: Topic,
        scan: &ChangesScan,
        partitions: &[u32],
    ) -> Result<Vec<String>, LogError> {
        let mut reader = self.uncommitted_reader(changes)?;
        let mut unread = BTreeSet::new();
        for &partition in partitions {
            if scan.positions[&partition] < reader.bounds(partition)?.1 {
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
    pub(super) fn offsets_before(
        &self,
        restore: &Restore<'_>,
        input: Topic,
        partitions: &[u32],
    ) -> Result<Vec<Option<u64>>, LogError> {
        let mut config = self.0.config.reader(&self.0.names.group(&restore.options.role));
        config.set("isolation.level", "read_uncommitted");
        committed(&consumer(&config)?, self.full_name(input), partitions, REQUEST_TIMEOUT, restore.canceled)
    }
}

/// The offsets that the last transaction of `id` committed, of those that are still open: where the state contains more
/// than the offsets `before`, and `id` wrote it last. Without any, the transaction was aborted. Where no marker names an
/// owner, it is our own id.
fn committed_by<'s>(
    found: impl Iterator<Item = (u32, &'s PartitionScan)>,
    before: &[Option<u64>],
    id: &str,
    own_id: &str,
) -> Vec<(u32, u64)> {
    let of_id = found.zip(before).filter(|((_, one), before)| {
        one.next_offset() > **before && one.owners.last().map_or(own_id, String::as_str) == id
    });
    of_id.filter_map(|((partition, one), _)| Some((partition, one.next_offset()?))).collect()
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

#[cfg(test)]
mod tests {
    use millrace_contracts::Position;

    use super::*;

    #[test]
    fn what_stays_open_needs_a_person_once_every_owner_is_taken_over() {
        use millrace_contracts::Next;
        let next = [true, false].map(|all_ended| if_ended(all_ended)("open".to_owned()).next());
        assert_eq!(next, [Next::Stop, Next::Retry]);
    }

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
            let found = found.iter().map(|(&partition, one)| (partition, one));
            assert_eq!(committed_by(found, &before, id, "own"), committed, "{id}");
        }
    }
}
