//! Reads partitions of its own choice from positions, in no group.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use millrace_contracts::Topic;
use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use super::member::{classify, log_error};
use super::{KafkaLog, unavailable};
use crate::{Batch, Limits, LogError, Polled, Record};

const ANSWER: Duration = Duration::from_secs(10);

/// See [`crate::Reader`].
pub struct Reader {
    consumer: BaseConsumer<Quiet>,
    topic: String,
    positions: BTreeMap<u32, u64>,
    /// Filled, or ended, but not handed out yet.
    ready: VecDeque<Ready>,
}

/// Keeps the end of a partition, which librdkafka reports as an error, out of the logs.
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ConsumerContext for Quiet {}

/// A consumer that is no member of a group.
pub(super) fn consumer(config: &ClientConfig) -> Result<BaseConsumer<Quiet>, LogError> {
    BaseConsumer::from_config_and_context(config, Quiet)
        .map_err(|error| LogError::Refused(format!("kafka settings: {error}")))
}

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
        let consumer = consumer(&self.0.config.reader(&self.0.names.group("reader")))?;
        let topic = self.full_name(topic).to_owned();
        let mut reader = Reader { consumer, topic, positions: BTreeMap::new(), ready: VecDeque::new() };
        reader.assign(from)?;
        Ok(reader)
    }
}

impl Reader {
    /// Reads these partitions from now on, each from its position.
    pub(super) fn assign(&mut self, from: &[(u32, u64)]) -> Result<(), LogError> {
        let mut list = TopicPartitionList::new();
        for &(partition, offset) in from {
            list.add_partition_offset(&self.topic, partition.cast_signed(), Offset::Offset(offset.cast_signed()))
                .map_err(|error| LogError::Refused(format!("position: {error}")))?;
        }
        self.consumer.assign(&list).map_err(unavailable("assign"))?;
        self.positions = from.iter().copied().collect();
        Ok(())
    }

    /// First offset and last stable offset of a partition.
    pub(super) fn bounds(&self, partition: u32) -> Result<(u64, u64), LogError> {
        let bounds = self.consumer.fetch_watermarks(&self.topic, partition.cast_signed(), ANSWER);
        let (start, end) = bounds.map_err(unavailable("watermarks"))?;
        Ok((start.cast_unsigned(), end.cast_unsigned()))
    }

    /// What was fetched already may still come.
    pub(crate) fn leave(&mut self, partition: u32) {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, partition.cast_signed());
        if let Err(error) = self.consumer.pause(&list) {
            tracing::debug!(%error, partition, "a partition is read on for nothing");
        }
    }

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
                Duration::ZERO
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
                Some(Err(error)) => classify(&error)?,
            }
        }
        self.ready.extend(filling.into_values().map(Ready::Records));
        self.ready.extend(ended.into_iter().map(Ready::CaughtUp));
        Ok(())
    }
}
