//! Ends transactions that a broker left open although it recorded them as ended (KAFKA-20734).
//!
//! Their records, and all behind them, stay unreadable until the next marker of the same producer id. A transactional id
//! has the same producer id after a restart, so a producer of the same transactional id ends them: first of our own, then of
//! each earlier owner of the partition, whose markers name it. Opening a producer fences the one that has the id. So this
//! waits for as long as the brokers take to end every transaction that they know of.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use millrace_contracts::{Marker, Topic};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::consumer::{QuietContext, committed, consumer};
use super::member::Member;
use super::restore::lost;
use super::scan::ChangesScan;
use super::transaction::{Purpose, Transaction, TransactionalProducer};
use super::{KafkaLog, unavailable};
use crate::metric::Abort;
use crate::progress::RestoreProgress;
use crate::{Batch, Limits, LogError, PollOutcome, RunOptions, RunnerKey};

/// How long after its timeout the brokers may take to end a transaction.
pub(super) const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);
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
        partitions: impl IntoIterator<Item = (Topic, u32)>,
        value: Option<&[u8]>,
    ) -> Result<Transaction<'p>, LogError> {
        let transaction = producer.begin(Purpose::Restore).map_err(lost)?;
        let sent = partitions.into_iter().try_for_each(|(topic, partition)| {
            let key = RunnerKey::Marker(partition).to_string();
            transaction.produce(self.full_name(topic), partition, key.as_bytes(), value)
        });
        match sent.and_then(|()| transaction.drain()) {
            Ok(()) => Ok(transaction),
            Err(error) => Err(lost(transaction.failed(Abort::Records, error))),
        }
    }

    /// Ends the transaction that holds the group's offsets. It committed if the state contains more than the offsets before
    /// it; otherwise it is aborted. Returns the offsets then.
    pub(super) fn settle_offsets(
        &self,
        role: &str,
        (input, changes): (Topic, Topic),
        member: &Member,
        producer: &mut TransactionalProducer,
        scan: &ChangesScan,
        patience: Duration,
    ) -> Result<BTreeMap<u32, Option<u64>>, LogError> {
        let partitions: Vec<u32> = scan.found.keys().copied().collect();
        let before = self.committed_before(&self.0.names.group(role), self.full_name(input), &partitions)?;
        let contained = scan.found.iter().zip(before).filter(|((_, found), before)| found.next_offset() > *before);
        let contained: Vec<(u32, u64)> =
            contained.filter_map(|((&partition, found), _)| Some((partition, found.next_offset()?))).collect();
        let commit = !contained.is_empty();
        tracing::warn!(role, ?partitions, commit, "a broker left offsets in an open transaction: ending it");
        let offsets = if commit { contained } else { partitions.iter().map(|&partition| (partition, 0)).collect() };
        let offsets = member.offsets(offsets);
        end_offsets(producer, member, &offsets, commit)?;
        let mut others = self.earlier_owners(changes, scan, producer.id())?.into_iter();
        loop {
            let wait = if others.len() > 0 { SETTLE_TIMEOUT } else { patience };
            let unsettled = match member.committed(&partitions, wait) {
                Ok(committed) => return Ok(partitions.into_iter().zip(committed).collect()),
                Err(error) => error,
            };
            let id = others.next().ok_or(unsettled)?;
            if let Some(mut producer) = self.take_over(role, &id) {
                end_offsets(&mut producer, member, &offsets, commit)?;
            }
        }
    }

    /// Ends the transactions that keep our markers unreadable. Where the committed offset is ahead of the readable state,
    /// they committed; otherwise they are aborted.
    pub(super) fn settle_changes(
        &self,
        role: &str,
        changes: Topic,
        own_id: &str,
        scan: &mut ChangesScan,
        committed: &BTreeMap<u32, Option<u64>>,
        progress: &mut RestoreProgress<'_>,
    ) -> Result<(), LogError> {
        let mut marker = Vec::new();
        // Not the nonce of the restore. Compaction retains it for the next owner, so it names this one.
        let nonce = uuid::Uuid::new_v4().to_string();
        Marker { nonce, transactional_id: Some(own_id.to_owned()) }.encode(&mut marker);
        for id in self.earlier_owners(changes, scan, own_id)? {
            progress.check()?;
            let Some(mut producer) = self.take_over(role, &id) else { continue };
            let (mut aborted, mut ahead) = (Vec::new(), Vec::new());
            for partition in scan.unmarked() {
                let is_ahead = scan.found[&partition].next_offset() != committed[&partition];
                let those = if is_ahead { &mut ahead } else { &mut aborted };
                those.push((changes, partition));
            }
            if !aborted.is_empty() {
                self.marked(&mut producer, aborted, Some(&marker))?.abort().map_err(unavailable("abort"))?;
            }
            if !ahead.is_empty() {
                self.marked(&mut producer, ahead, Some(&marker))?.commit().map_err(lost)?;
            }
            if scan.read(progress, SETTLE_TIMEOUT, |found| found.marker.is_some())? {
                break;
            }
        }
        Ok(())
    }

    /// Ends what is open in the outputs, with a commit: if it committed, its records must not be lost; if it was aborted,
    /// the same records follow again. Gives up after all earlier owners.
    pub(super) fn settle_outputs(
        &self,
        options: &RunOptions,
        outputs: &[Topic],
        producer: &mut TransactionalProducer,
        (partitions, owners): (&[u32], Vec<String>),
        progress: &RestoreProgress<'_>,
    ) -> Result<(), LogError> {
        let mut open = OpenOutputs::find(self, outputs, partitions)?;
        if open.have_ended(self.end_timeout(), progress)? {
            return Ok(());
        }
        let role = &options.role;
        tracing::warn!(role, outputs = ?open.shown(), "a broker left outputs in an open transaction: ending it");
        self.marked(producer, open.partitions(), None)?.commit().map_err(lost)?;
        for id in owners {
            if open.have_ended(SETTLE_TIMEOUT, progress)? {
                return Ok(());
            }
            let Some(mut producer) = self.take_over(role, &id) else { continue };
            if !open.have_ended(Duration::ZERO, progress)? {
                self.marked(&mut producer, open.partitions(), None)?.commit().map_err(lost)?;
            }
        }
        if !open.have_ended(SETTLE_TIMEOUT, progress)? {
            let outputs = open.shown();
            tracing::error!(role, ?outputs, "a transaction of an unknown producer stays open: readers wait for it");
        }
        Ok(())
    }

    /// A producer under the transactional id of an earlier owner, which is fenced; `None` if that fails.
    fn take_over(&self, role: &str, id: &str) -> Option<TransactionalProducer> {
        tracing::warn!(role, transactional_id = id, "ending the open transaction of an earlier owner");
        TransactionalProducer::open(&self.0.config, id)
            .inspect_err(|error| tracing::warn!(role, transactional_id = id, %error, "cannot end it"))
            .ok()
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
    fn committed_before(&self, group: &str, topic: &str, partitions: &[u32]) -> Result<Vec<Option<u64>>, LogError> {
        let mut config = self.0.config.reader(group);
        config.set("isolation.level", "read_uncommitted");
        committed(&consumer(&config)?, topic, partitions, SETTLE_TIMEOUT)
    }
}

/// Ends a transaction with these offsets.
fn end_offsets(
    producer: &mut TransactionalProducer,
    member: &Member,
    offsets: &TopicPartitionList,
    commit: bool,
) -> Result<(), LogError> {
    let transaction = producer.begin(Purpose::Restore).map_err(lost)?;
    match transaction.offsets(member, offsets) {
        Ok(()) if commit => transaction.commit().map_err(lost),
        Ok(()) => transaction.abort().map_err(unavailable("abort")),
        Err(error) => Err(lost(transaction.failed(Abort::Offsets, error))),
    }
}

/// The partitions of outputs that have unreadable records.
struct OpenOutputs {
    /// Reads committed records: its end is the last stable offset.
    readable: BaseConsumer<QuietContext>,
    open: Vec<OpenOutput>,
}

struct OpenOutput {
    topic: Topic,
    full_name: String,
    partition: u32,
    /// The high watermark when it was found.
    end: u64,
}

impl OpenOutputs {
    fn find(log: &KafkaLog, outputs: &[Topic], partitions: &[u32]) -> Result<Self, LogError> {
        let config = &log.0.config;
        let group = log.0.names.group("reader");
        let all = consumer(config.reader(&group).set("isolation.level", "read_uncommitted"))?;
        let mut open = Vec::new();
        for &topic in outputs {
            let last = log.partitions(topic) - 1;
            // The only partition of a topic takes the outputs of all.
            let numbers: BTreeSet<u32> = partitions.iter().map(|&partition| partition.min(last)).collect();
            for partition in numbers {
                let full_name = log.full_name(topic).to_owned();
                let end = end(&all, &full_name, partition)?;
                open.push(OpenOutput { topic, full_name, partition, end });
            }
        }
        Ok(Self { readable: consumer(&config.reader(&group))?, open })
    }

    /// Whether all become readable up to where they ended, within `patience`. Forgets those that do.
    fn have_ended(&mut self, patience: Duration, progress: &RestoreProgress<'_>) -> Result<bool, LogError> {
        let began = Instant::now();
        loop {
            let mut unread = Vec::new();
            for one in self.open.drain(..) {
                if end(&self.readable, &one.full_name, one.partition)? < one.end {
                    unread.push(one);
                }
            }
            self.open = unread;
            if self.open.is_empty() || began.elapsed() >= patience {
                return Ok(self.open.is_empty());
            }
            progress.check()?;
            std::thread::sleep(INTERVAL);
        }
    }

    fn partitions(&self) -> impl Iterator<Item = (Topic, u32)> {
        self.open.iter().map(|one| (one.topic, one.partition))
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
