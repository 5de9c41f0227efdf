//! A member of a consumer group. Kafka assigns the partitions; the runner decides their positions.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::BorrowedMessage;
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::bounded::bounded;
use super::consumer::{check_bounds, classify, invalid_settings, list, log_error, offset_list};
use super::unassigned::AssignmentCheck;
use super::unavailable;
use crate::metric::Lag;
use crate::{Batch, LogError, Record};

/// Timeout of a seek or a request for offsets.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of leaving the group.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest poll of a pause, after which it notices a stop.
const POLL: Duration = Duration::from_millis(200);

/// A change of the assignment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rebalance {
    /// Newly assigned partitions, perhaps none. The group waits for [`Member::assign`].
    Assigned(Vec<u32>),
    /// Revoked partitions.
    Revoked(Vec<u32>),
}

/// An event of a poll.
pub(super) enum PollEvent<'a> {
    /// A record of a partition, and its message, which has the number of the record (`numbers`).
    Record(u32, Record<'a>, &'a BorrowedMessage<'a>),
    /// The last stable offset of a partition was reached.
    End(u32),
}

/// Records rebalances. The callback runs inside `poll`, on the worker's own thread, while no transaction is open: so a
/// revoked partition has no uncommitted work, except in memory.
#[derive(Default)]
pub(super) struct MemberContext {
    changed: AtomicBool,
    rebalances: Mutex<Vec<Rebalance>>,
    ends: Mutex<BTreeMap<u32, PartitionEnd>>,
    /// What fences offsets, as of the newest assignment.
    metadata: Mutex<Option<Arc<ConsumerGroupMetadata>>>,
}

/// The end of a partition, as of the last statistics.
struct PartitionEnd {
    /// The last stable offset.
    stable: u64,
    /// The high watermark.
    high: u64,
    /// Whether everything below it was delivered: between a position and it are only control records, which librdkafka
    /// consumes itself.
    delivered: bool,
}

impl ClientContext for MemberContext {
    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }

    /// Called once a second.
    fn stats(&self, statistics: Statistics) {
        let mut ends = self.ends.lock().expect("no holder of this lock panics");
        for (&partition, stats) in statistics.topics.values().flat_map(|topic| &topic.partitions) {
            if let (Ok(partition), Ok(stable)) = (u32::try_from(partition), u64::try_from(stats.ls_offset)) {
                let delivered = stats.eof_offset == stats.ls_offset && stats.app_offset == stats.ls_offset;
                let high = u64::try_from(stats.hi_offset).unwrap_or(stable);
                ends.insert(partition, PartitionEnd { stable, high, delivered });
            }
        }
    }
}

impl ConsumerContext for MemberContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        *self.metadata.lock().expect("no holder of this lock panics") = consumer.group_metadata().map(Arc::new);
        if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            // `Member::assign` completes this once the positions are determined; the group waits for it. Assigned here
            // without an offset, a new group has none, and `auto.offset.reset=error` ends the consumer; with a logical
            // offset (`Beginning`, `End`) its lookup completes after our seek, and undoes it.
            self.record(Rebalance::Assigned(partitions(list)));
        } else {
            self.record(Rebalance::Revoked(partitions(list)));
            if let Err(error) = unassign(consumer, list) {
                tracing::warn!(%error, "cannot unassign revoked partitions");
            }
        }
    }
}

impl MemberContext {
    fn record(&self, rebalance: Rebalance) {
        self.rebalances.lock().expect("no holder of this lock panics").push(rebalance);
        self.changed.store(true, Ordering::Release);
    }
}

/// Stops reading these partitions. Those that are not read are skipped: librdkafka would refuse all.
fn unassign(consumer: &BaseConsumer<MemberContext>, list: &TopicPartitionList) -> KafkaResult<()> {
    let read = consumer.assignment()?;
    let mut assigned = TopicPartitionList::new();
    for one in list.elements() {
        if read.find_partition(one.topic(), one.partition()).is_some() {
            assigned.add_partition(one.topic(), one.partition());
        }
    }
    // With none too: this completes the rebalance.
    consumer.incremental_unassign(&assigned)
}

fn partitions(list: &TopicPartitionList) -> Vec<u32> {
    list.elements().iter().map(|element| element.partition().cast_unsigned()).collect()
}

/// The member. Not `Sync`: one worker thread owns it.
pub(super) struct Member {
    consumer: GroupConsumer,
    topic: String,
    assignment_check: Option<AssignmentCheck>,
}

/// A consumer that leaves its group within [`LEAVE_TIMEOUT`]: librdkafka waits for the response to any request in
/// flight. After that the group notices by its own timeouts: closing unsubscribes first, and without a subscription
/// librdkafka sends no heartbeat.
struct GroupConsumer(Option<BaseConsumer<MemberContext>>);

impl Deref for GroupConsumer {
    type Target = BaseConsumer<MemberContext>;

    fn deref(&self) -> &Self::Target {
        self.0.as_ref().expect("present until it is dropped")
    }
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        let consumer = self.0.take();
        if bounded("kafka-leave", LEAVE_TIMEOUT, || drop(consumer)).is_none() {
            tracing::warn!("no response to LeaveGroup: the group removes this member when its session expires");
        }
    }
}

impl Member {
    pub(super) fn join(config: &ClientConfig, topic: &str) -> Result<Self, LogError> {
        let consumer = BaseConsumer::from_config_and_context(config, MemberContext::default());
        let consumer = consumer.map_err(invalid_settings)?;
        consumer.subscribe(&[topic]).map_err(unavailable("subscribe"))?;
        let assignment_check = AssignmentCheck::start(config, topic)?;
        Ok(Self { consumer: GroupConsumer(Some(consumer)), topic: topic.to_owned(), assignment_check })
    }

    /// Leaves the group, as a static member too, and rejoins it: its partitions are revoked first.
    fn rejoin(&self) -> Result<(), LogError> {
        self.consumer.unsubscribe();
        self.consumer.subscribe(&[&self.topic]).map_err(unavailable("subscribe"))
    }

    /// Waits for the next event, at most `wait`, and passes it to `take`. False if there was none.
    pub(super) fn poll(&self, wait: Duration, take: impl FnOnce(PollEvent<'_>)) -> Result<bool, LogError> {
        if self.assignment_check.as_ref().is_some_and(AssignmentCheck::take_found) {
            self.rejoin()?;
        }
        match self.consumer.poll(wait) {
            None => Ok(false),
            Some(Ok(message)) => {
                let record = Record {
                    offset: message.offset().cast_unsigned(),
                    timestamp_ms: message.timestamp().to_millis().unwrap_or_default(),
                    key: message.key().unwrap_or_default(),
                    value: message.payload(),
                };
                take(PollEvent::Record(message.partition().cast_unsigned(), record, &message));
                Ok(true)
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                take(PollEvent::End(partition.cast_unsigned()));
                Ok(true)
            }
            Some(Err(error)) => classify(error).map(|()| false),
        }
    }

    /// Whether the assignment changed since the last call of [`Member::take_rebalances`].
    pub(super) fn changed(&self) -> bool {
        self.consumer.context().changed.load(Ordering::Acquire)
    }

    pub(super) fn take_rebalances(&self) -> Vec<Rebalance> {
        let context = self.consumer.context();
        context.changed.store(false, Ordering::Release);
        std::mem::take(&mut *context.rebalances.lock().expect("no holder of this lock panics"))
    }

    /// The distance of a position from the last stable offset, as of the last statistics; `None` before the first.
    /// `batch` holds the records from the position on that are not processed.
    pub(super) fn lag(&self, partition: u32, position: u64, batch: &Batch) -> Option<Lag> {
        let ends = self.consumer.context().ends.lock().expect("no holder of this lock panics");
        let &PartitionEnd { stable, high, delivered } = ends.get(&partition)?;
        let left = if delivered && batch.is_empty() { 0 } else { stable.saturating_sub(position) };
        Some(Lag { stable: left, open: high.saturating_sub(stable) })
    }

    /// The first and the next offset of a partition.
    pub(super) fn bounds(&self, partition: u32) -> Result<(u64, u64), LogError> {
        let (low, high) = self
            .consumer
            .fetch_watermarks(&self.topic, partition.cast_signed(), REQUEST_TIMEOUT)
            .map_err(unavailable("watermarks"))?;
        Ok((low.cast_unsigned(), high.cast_unsigned()))
    }

    /// Completes a rebalance: starts to read the assigned partitions, perhaps none, each at its position.
    pub(super) fn assign(&self, positions: &[(u32, u64)]) -> Result<(), LogError> {
        for &(partition, offset) in positions {
            self.check(partition, offset)?;
        }
        self.read(positions)
    }

    /// Starts to read assigned partitions, perhaps none, each at a position that the log has. The first call after a
    /// rebalance completes it.
    pub(super) fn read(&self, positions: &[(u32, u64)]) -> Result<(), LogError> {
        for &(partition, _) in positions {
            self.reset_end(partition);
        }
        let list = self.offsets(positions.iter().copied());
        self.consumer.incremental_assign(&list).map_err(unavailable("assign"))
    }

    /// Stops reading a partition, which remains assigned to this member.
    pub(super) fn stop_reading(&self, partition: u32) -> Result<(), LogError> {
        unassign(&self.consumer, &list(&self.topic, [partition])).map_err(unavailable("unassign"))
    }

    /// Moves the position of an assigned partition.
    pub(super) fn seek(&self, partition: u32, offset: u64) -> Result<(), LogError> {
        self.check(partition, offset)?;
        self.reset_end(partition);
        let position = Offset::Offset(offset.cast_signed());
        self.consumer.seek(&self.topic, partition.cast_signed(), position, REQUEST_TIMEOUT).map_err(unavailable("seek"))
    }

    /// The statistics so far are of another position.
    fn reset_end(&self, partition: u32) {
        let mut ends = self.consumer.context().ends.lock().expect("no holder of this lock panics");
        if let Some(end) = ends.get_mut(&partition) {
            end.delivered = false;
        }
    }

    /// Refuses a position that the log does not have.
    pub(super) fn check(&self, partition: u32, offset: u64) -> Result<(), LogError> {
        check_bounds(&self.topic, partition, self.bounds(partition)?, offset)
    }

    /// Reads nothing for `pause`, until `stop` or until the assignment changes. Polls all the time: rebalances run inside a
    /// poll, each of which takes one event, and statistics arrive every second.
    pub(super) fn pause_reading(
        &self,
        partitions: &[u32],
        pause: Duration,
        stop: &CancellationToken,
    ) -> Result<(), LogError> {
        let list = list(&self.topic, partitions.iter().copied());
        self.consumer.pause(&list).map_err(unavailable("pause"))?;
        let began = Instant::now();
        while !stop.is_cancelled() && !self.changed() {
            let left = pause.saturating_sub(began.elapsed());
            if left.is_zero() {
                break;
            }
            self.poll(left.min(POLL), |_| {})?;
        }
        // After a rebalance too: the retained partitions must go on.
        self.consumer.resume(&list).map_err(unavailable("resume"))
    }

    /// Offsets as a list, for a transaction or a commit.
    pub(super) fn offsets(&self, next: impl IntoIterator<Item = (u32, u64)>) -> TopicPartitionList {
        offset_list(&self.topic, next)
    }

    /// The consumer's positions: after all delivered records, and the control records that follow.
    pub(super) fn positions(&self) -> BTreeMap<u32, u64> {
        let Ok(list) = self.consumer.position() else { return BTreeMap::new() };
        let position = |one: &TopicPartitionListElem<'_>| {
            let Offset::Offset(offset) = one.offset() else { return None };
            Some((one.partition().cast_unsigned(), offset.cast_unsigned()))
        };
        list.elements().iter().filter_map(position).collect()
    }

    /// What fences offsets in a transaction (KIP-447): the generation of the newest assignment that this worker received,
    /// which it does on its own thread. librdkafka joins again by itself: a member that the group expelled, and whose partitions
    /// another one has, may already have a generation of which the worker does not know.
    pub(super) fn group_metadata(&self) -> Option<Arc<ConsumerGroupMetadata>> {
        self.consumer.context().metadata.lock().expect("no holder of this lock panics").clone()
    }

    pub(super) fn consumer(&self) -> &BaseConsumer<MemberContext> {
        &self.consumer
    }
}
