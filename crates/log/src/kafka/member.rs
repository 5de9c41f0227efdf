//! A member of a consumer group: what it holds is ours to position, Kafka only deals it out.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use super::bounded::bounded;
use super::hole::Watch;
use super::unavailable;
use crate::{Batch, LogError, Record};

/// How long a seek or a look at offsets may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a goodbye to the group may take.
const LEAVE: Duration = Duration::from_secs(5);
/// Between two tries of a request that answered with an error.
const AGAIN: Duration = Duration::from_millis(20);

/// A change of what the member holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Dealt to us, perhaps none; to be taken up with their positions.
    Assigned(Vec<u32>),
    /// No longer held.
    Revoked(Vec<u32>),
}

/// One thing that polling brought.
pub(super) enum Event<'a> {
    /// A record of a partition.
    Record(u32, Record<'a>),
    /// A partition is read up to its last stable offset.
    End(u32),
}

/// Takes notes of rebalances. The callback runs inside `poll`, on the worker's own thread, while no transaction is
/// open: so a revoked partition never has uncommitted work but what is still in memory.
#[derive(Default)]
pub(super) struct Notes {
    changed: AtomicBool,
    changes: Mutex<Vec<Change>>,
    ends: Mutex<BTreeMap<u32, End>>,
}

impl ClientContext for Notes {
    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }

    /// Comes once a second.
    fn stats(&self, statistics: Statistics) {
        let mut ends = self.ends.lock().expect("no holder of this lock panics");
        for (&partition, told) in statistics.topics.values().flat_map(|topic| &topic.partitions) {
            if let (Ok(partition), Ok(stable)) = (u32::try_from(partition), u64::try_from(told.ls_offset)) {
                let taken = told.eof_offset == told.ls_offset && told.app_offset == told.ls_offset;
                ends.insert(partition, End { stable, taken });
            }
        }
    }
}

/// Where a partition ends, as it was told last.
struct End {
    /// The last stable offset.
    stable: u64,
    /// All that is before it came to us: what is left to a position are control records, which librdkafka takes itself.
    taken: bool,
}

/// Errors of a client come with what failed, too; here they are for diagnosis. The end of a partition is none.
pub(super) fn log_error(error: &KafkaError, reason: &str) {
    if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
        tracing::debug!(%error, reason, "librdkafka");
    }
}

impl ConsumerContext for Notes {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            // Taken up later, by `Member::take_up`, once it is known where each goes on: the group waits for that. Taken
            // up here without an offset a new group has none, and `auto.offset.reset=error` ends the consumer; with a
            // logical one (`Beginning`, `End`) its look-up is answered after our seek, and undoes it.
            self.note(Change::Assigned(partitions(list)));
        } else {
            self.note(Change::Revoked(partitions(list)));
            if let Err(error) = consumer.incremental_unassign(list) {
                tracing::warn!(%error, "partitions were not let go of");
            }
        }
    }
}

impl Notes {
    fn note(&self, change: Change) {
        self.changes.lock().expect("no holder of this lock panics").push(change);
        self.changed.store(true, Ordering::Release);
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<u32> {
    list.elements().iter().map(|element| element.partition().cast_unsigned()).collect()
}

/// The member. Not `Sync`: one worker thread owns it.
pub(super) struct Member {
    consumer: Leaving,
    topic: String,
    watch: Option<Watch>,
}

/// A consumer that takes its time to leave the group, and no more than that: librdkafka waits for an answer to whatever is
/// under way. What is not said by then is left to the group's time-outs.
struct Leaving(Option<BaseConsumer<Notes>>);

impl Deref for Leaving {
    type Target = BaseConsumer<Notes>;

    fn deref(&self) -> &Self::Target {
        self.0.as_ref().expect("there until it is dropped")
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let consumer = self.0.take();
        if bounded("kafka-leave", LEAVE, || drop(consumer)).is_none() {
            tracing::warn!("the group did not hear that this member left: it notices when the session is over");
        }
    }
}

impl Member {
    pub(super) fn join(config: &ClientConfig, topic: &str) -> Result<Self, LogError> {
        let consumer = BaseConsumer::from_config_and_context(config, Notes::default())
            .map_err(|error| LogError::Refused(format!("kafka settings: {error}")))?;
        consumer.subscribe(&[topic]).map_err(unavailable("subscribe"))?;
        Ok(Self { consumer: Leaving(Some(consumer)), topic: topic.to_owned(), watch: Watch::start(config, topic)? })
    }

    /// Leaves the group, also when it has a name, and joins it again: what it held is revoked first.
    fn join_again(&self) -> Result<(), LogError> {
        self.consumer.unsubscribe();
        self.consumer.subscribe(&[&self.topic]).map_err(unavailable("subscribe"))
    }

    /// Waits for the next event, at most `wait`, and hands it to `take`. False when there was none.
    pub(super) fn poll(&self, wait: Duration, take: impl FnOnce(Event<'_>)) -> Result<bool, LogError> {
        if self.watch.as_ref().is_some_and(Watch::found) {
            self.join_again()?;
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
                take(Event::Record(message.partition().cast_unsigned(), record));
                Ok(true)
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                take(Event::End(partition.cast_unsigned()));
                Ok(true)
            }
            Some(Err(error)) => classify(&error).map(|()| false),
        }
    }

    /// Whether a rebalance was noted since [`Member::changes`] was taken last.
    pub(super) fn changed(&self) -> bool {
        self.consumer.context().changed.load(Ordering::Acquire)
    }

    pub(super) fn changes(&self) -> Vec<Change> {
        let notes = self.consumer.context();
        notes.changed.store(false, Ordering::Release);
        std::mem::take(&mut *notes.changes.lock().expect("no holder of this lock panics"))
    }

    /// How far a position is from the last stable offset, as it was told last; `None` before that. At the position is what
    /// waits in `batch`.
    pub(super) fn lag(&self, partition: u32, position: u64, batch: &Batch) -> Option<u64> {
        let ends = self.consumer.context().ends.lock().expect("no holder of this lock panics");
        let End { stable, taken } = ends.get(&partition)?;
        Some(if *taken && batch.is_empty() { 0 } else { stable.saturating_sub(position) })
    }

    /// First and next offset of a partition.
    pub(super) fn bounds(&self, partition: u32) -> Result<(u64, u64), LogError> {
        let (low, high) = self
            .consumer
            .fetch_watermarks(&self.topic, partition.cast_signed(), ANSWER)
            .map_err(unavailable("watermarks"))?;
        Ok((low.cast_unsigned(), high.cast_unsigned()))
    }

    /// Answers the group: begins to read the partitions dealt to us, each at its position, perhaps none.
    pub(super) fn take_up(&self, positions: &[(u32, u64)]) -> Result<(), LogError> {
        for &(partition, offset) in positions {
            self.check(partition, offset)?;
            self.read_on(partition);
        }
        let list = self.offsets(positions.iter().copied());
        self.consumer.incremental_assign(&list).map_err(unavailable("assign"))
    }

    /// Goes on reading a held partition elsewhere.
    pub(super) fn seek(&self, partition: u32, offset: u64) -> Result<(), LogError> {
        self.check(partition, offset)?;
        self.read_on(partition);
        let position = Offset::Offset(offset.cast_signed());
        self.consumer.seek(&self.topic, partition.cast_signed(), position, ANSWER).map_err(unavailable("seek"))
    }

    /// What was told of a partition's records is not of those that come now.
    fn read_on(&self, partition: u32) {
        let mut ends = self.consumer.context().ends.lock().expect("no holder of this lock panics");
        if let Some(end) = ends.get_mut(&partition) {
            end.taken = false;
        }
    }

    /// Refuses a position that the log does not hold.
    fn check(&self, partition: u32, offset: u64) -> Result<(), LogError> {
        let (low, high) = self.bounds(partition)?;
        if (low..=high).contains(&offset) {
            return Ok(());
        }
        Err(LogError::Refused(format!(
            "{}/{partition} holds offsets {low} to {high}, but the position to go on from is {offset}: records are missing",
            self.topic
        )))
    }

    pub(super) fn pause(&self, partitions: impl IntoIterator<Item = u32>) -> Result<(), LogError> {
        self.consumer.pause(&self.list(partitions)).map_err(unavailable("pause"))
    }

    pub(super) fn resume(&self, partitions: impl IntoIterator<Item = u32>) -> Result<(), LogError> {
        self.consumer.resume(&self.list(partitions)).map_err(unavailable("resume"))
    }

    fn list(&self, partitions: impl IntoIterator<Item = u32>) -> TopicPartitionList {
        list(&self.topic, partitions)
    }

    /// The group's committed offsets, once no transaction that could still change them is open: `None` where there is
    /// none. (KIP-447; librdkafka asks for stable offsets when the isolation level is `read_committed`.)
    pub(super) fn committed(&self, partitions: &[u32], within: Duration) -> Result<Vec<Option<u64>>, LogError> {
        committed(&self.consumer, &self.topic, partitions, within)
    }

    /// Offsets as a list, for a transaction or a commit.
    pub(super) fn offsets(&self, next: impl IntoIterator<Item = (u32, u64)>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in next {
            let added =
                list.add_partition_offset(&self.topic, partition.cast_signed(), Offset::Offset(offset.cast_signed()));
            added.expect("an offset below 2^63 is a valid offset");
        }
        list
    }

    /// After all that came to us of each partition, and control records that followed.
    pub(super) fn positions(&self) -> BTreeMap<u32, u64> {
        let Ok(list) = self.consumer.position() else { return BTreeMap::new() };
        let position = |one: &TopicPartitionListElem<'_>| {
            let Offset::Offset(offset) = one.offset() else { return None };
            Some((one.partition().cast_unsigned(), offset.cast_unsigned()))
        };
        list.elements().iter().filter_map(position).collect()
    }

    pub(super) fn consumer(&self) -> &BaseConsumer<Notes> {
        &self.consumer
    }
}

/// The offsets that the consumer's group committed, where it committed any: as its isolation level says, all of them settled,
/// or those before a transaction that is open.
pub(super) fn committed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[u32],
    within: Duration,
) -> Result<Vec<Option<u64>>, LogError> {
    let deadline = Instant::now() + within;
    loop {
        match consumer.committed_offsets(list(topic, partitions.iter().copied()), ANSWER) {
            // The call succeeds as a whole while a partition could not be looked up.
            Ok(list) if list.elements().iter().all(|element| element.error().is_ok()) => {
                let offset_of = |&partition: &u32| {
                    let element = list.find_partition(topic, partition.cast_signed())?;
                    element.offset().to_raw().and_then(|raw| u64::try_from(raw).ok())
                };
                return Ok(partitions.iter().map(offset_of).collect());
            }
            Ok(_) | Err(_) if Instant::now() < deadline => std::thread::sleep(AGAIN),
            Ok(_) => return Err(LogError::Unavailable("committed offsets: not known for every partition".into())),
            Err(error) => return Err(unavailable("committed offsets")(error)),
        }
    }
}

fn list(topic: &str, partitions: impl IntoIterator<Item = u32>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(topic, partition.cast_signed());
    }
    list
}

/// What an error of polling means: nothing to do (librdkafka is at it already), or a new start.
pub(super) fn classify(error: &KafkaError) -> Result<(), LogError> {
    let Some(code) = error.rdkafka_error_code() else {
        return Err(LogError::Unavailable(format!("consumer: {error}")));
    };
    match code {
        RDKafkaErrorCode::BrokerTransportFailure
        | RDKafkaErrorCode::AllBrokersDown
        | RDKafkaErrorCode::OperationTimedOut
        | RDKafkaErrorCode::RequestTimedOut
        | RDKafkaErrorCode::Resolve
        | RDKafkaErrorCode::NotCoordinator
        | RDKafkaErrorCode::CoordinatorNotAvailable
        | RDKafkaErrorCode::CoordinatorLoadInProgress
        | RDKafkaErrorCode::RebalanceInProgress
        | RDKafkaErrorCode::NotLeaderForPartition => {
            tracing::debug!(%error, "consumer");
            Ok(())
        }
        // The position is gone from under us, or was never valid: nobody may guess another one.
        RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => {
            Err(LogError::Refused(format!("the log no longer holds the position: {error}")))
        }
        _ => Err(LogError::Unavailable(format!("consumer: {error}"))),
    }
}
