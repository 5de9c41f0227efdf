//! What group members and plain readers share: a quiet client context, committed offsets, the classes of errors.

use std::time::{Duration, Instant};

use millrace_base::Backoff;
use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaConfRes;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::unavailable;
use crate::LogError;

/// Timeout of a request for offsets.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The pauses between two tries of a failed request.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(200));

/// A client context that logs errors for diagnosis only.
pub(super) struct QuietContext;

impl ClientContext for QuietContext {
    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ConsumerContext for QuietContext {}

/// A consumer outside any group.
pub(super) fn consumer(config: &ClientConfig) -> Result<BaseConsumer<QuietContext>, LogError> {
    BaseConsumer::from_config_and_context(config, QuietContext).map_err(invalid_settings)
}

/// librdkafka refused the settings of a client. Its error has the value of a refused property, which may be a password
/// under a misspelled name: only the name is reported.
pub(super) fn invalid_settings(error: KafkaError) -> LogError {
    match error {
        KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, _, key, _) => {
            LogError::refused(format!("kafka settings: librdkafka has no property {key}"))
        }
        KafkaError::ClientConfig(_, _, key, _) => {
            LogError::refused(format!("kafka settings: the value of {key} is none that librdkafka allows"))
        }
        error => LogError::refused(format!("kafka settings: {error}")).because(error),
    }
}

/// Logs an error of a client at level debug: what it causes is reported where it fails. Skips the end of a partition,
/// which librdkafka reports as an error.
pub(super) fn log_error(error: &KafkaError, reason: &str) {
    if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
        tracing::debug!(%error, reason, "librdkafka");
    }
}

/// The committed offsets of the consumer's group, `None` where it committed none. By the consumer's isolation level,
/// either with all transactions settled or as before those that are open.
pub(super) fn committed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[u32],
    within: Duration,
    canceled: &CancellationToken,
) -> Result<Vec<Option<u64>>, LogError> {
    let deadline = Instant::now() + within;
    let timeout = REQUEST_TIMEOUT.min(within);
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    loop {
        match consumer.committed_offsets(list(topic, partitions.iter().copied()), timeout) {
            // The call succeeds as a whole even if a partition failed.
            Ok(list) if list.elements().iter().all(|element| element.error().is_ok()) => {
                let offset_of = |&partition: &u32| {
                    let element = list.find_partition(topic, partition.cast_signed())?;
                    element.offset().to_raw().and_then(|raw| u64::try_from(raw).ok())
                };
                return Ok(partitions.iter().map(offset_of).collect());
            }
            Ok(_) | Err(_) if Instant::now() < deadline && !canceled.is_cancelled() => {
                std::thread::sleep(backoff.next_pause());
            }
            Ok(_) => return Err(LogError::unavailable("committed offsets: not available for every partition")),
            Err(error) => return Err(unavailable("committed offsets")(error)),
        }
    }
}

/// Refuses a position that a partition with these bounds does not have.
pub(super) fn check_bounds(topic: &str, partition: u32, (low, high): (u64, u64), offset: u64) -> Result<(), LogError> {
    if (low..=high).contains(&offset) {
        return Ok(());
    }
    Err(LogError::refused(format!(
        "{topic}/{partition} holds offsets {low} to {high}, but the position to resume at is {offset}: records are missing"
    )))
}

pub(super) fn list(topic: &str, partitions: impl IntoIterator<Item = u32>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(topic, partition.cast_signed());
    }
    list
}

/// Offsets of partitions, for a transaction or a commit.
pub(super) fn offset_list(topic: &str, next: impl IntoIterator<Item = (u32, u64)>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in next {
        let added = list.add_partition_offset(topic, partition.cast_signed(), Offset::Offset(offset.cast_signed()));
        added.expect("an offset below 2^63 is a valid offset");
    }
    list
}

/// Classifies an error of polling: `Ok` if librdkafka recovers by itself, an error otherwise.
pub(super) fn classify(error: KafkaError) -> Result<(), LogError> {
    let Some(code) = error.rdkafka_error_code() else {
        return Err(unavailable("consumer")(error));
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
        // The position was deleted, or was never valid. Guessing another one would lose or repeat records.
        RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => {
            Err(LogError::refused(format!("the log no longer holds the position: {error}")).because(error))
        }
        _ => Err(unavailable("consumer")(error)),
    }
}
