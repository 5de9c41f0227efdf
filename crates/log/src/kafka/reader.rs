//! Reads partitions of its own choice from positions, in no group.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use millrace_contracts::Topic;
use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Message, Offset, TopicPartitionList};

use super::member::log_error;
use super::{KafkaLog, unavailable};
use crate::{Batch, Limits, LogError, Polled, Record};

/// See [`crate::Reader`].
pub struct Reader {
    consumer: BaseConsumer<Quiet>,
    positions: BTreeMap<u32, u64>,
    /// Filled, or ended, but not handed out yet.
    ready: VecDeque<Ready>,
}

/// Keeps the end of a partition, which librdkafka reports as an error, out of the logs.
struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ConsumerContext for Quiet {}

enum Ready {
    Records(Batch),
    CaughtUp(u32),
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("positions", &self.positions).finish_non_exhaustive()
    }
}

impl KafkaLog {
    pub(crate) fn reader(&self, topic: Topic, from: &[(u32, u64)]) -> Result<Reader, LogError> {
        let config = self.0.config.reader(&self.0.names.group("reader"));
        let consumer = BaseConsumer::from_config_and_context(&config, Quiet)
            .map_err(|error| LogError::Refused(format!("kafka settings: {error}")))?;
        let mut list = TopicPartitionList::new();
        for &(partition, offset) in from {
            let offset = Offset::Offset(offset.cast_signed());
            list.add_partition_offset(self.full_name(topic), partition.cast_signed(), offset)
                .map_err(|error| LogError::Refused(format!("position: {error}")))?;
        }
        consumer.assign(&list).map_err(unavailable("assign"))?;
        Ok(Reader { consumer, positions: from.iter().copied().collect(), ready: VecDeque::new() })
    }
}

impl Reader {
    pub(crate) fn poll(&mut self, batch: &mut Batch, limits: Limits) -> Result<Polled, LogError> {
        batch.clear();
        if self.ready.is_empty() {
            self.collect(limits)?;
        }
        Ok(match self.ready.pop_front() {
            None => Polled::Nothing,
            Some(Ready::Records(records)) => {
                *batch = records;
                Polled::Records
            }
            Some(Ready::CaughtUp(partition)) => Polled::CaughtUp { partition, position: self.positions[&partition] },
        })
    }

    /// Polls until the limits are met or nothing more is there at once.
    fn collect(&mut self, limits: Limits) -> Result<(), LogError> {
        let deadline = Instant::now() + limits.wait;
        let mut filling: BTreeMap<u32, Batch> = BTreeMap::new();
        let mut ended = Vec::new();
        let (mut records, mut bytes) = (0, 0);
        while records < limits.records && bytes < limits.bytes {
            let wait = if records == 0 && ended.is_empty() {
                deadline.saturating_duration_since(Instant::now())
            } else {
                std::time::Duration::ZERO
            };
            match self.consumer.poll(wait) {
                None if records == 0 && ended.is_empty() && Instant::now() < deadline => {}
                None => break,
                Some(Ok(message)) => {
                    let partition = message.partition().cast_unsigned();
                    let record = Record {
                        offset: message.offset().cast_unsigned(),
                        timestamp_ms: message.timestamp().to_millis().unwrap_or_default(),
                        key: message.key().unwrap_or_default(),
                        value: message.payload(),
                    };
                    records += 1;
                    bytes += record.key.len() + record.value.map_or(0, <[u8]>::len);
                    ended.retain(|&end| end != partition);
                    self.positions.insert(partition, record.offset + 1);
                    filling.entry(partition).or_insert_with(|| Batch::new(partition)).push(record);
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => ended.push(partition.cast_unsigned()),
                Some(Err(error)) => match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                        return Err(LogError::Refused(format!("the log does not hold the position: {error}")));
                    }
                    Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown) => {}
                    _ => return Err(unavailable("read")(error)),
                },
            }
        }
        self.ready.extend(filling.into_values().map(Ready::Records));
        self.ready.extend(ended.into_iter().map(Ready::CaughtUp));
        Ok(())
    }
}
