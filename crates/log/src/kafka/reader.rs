//! Reads chosen partitions from positions, outside any group.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use millrace_contracts::{ProjectionPosition, Topic};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use super::consumer::{QuietContext, classify, consumer, list};
use super::{KafkaLog, unavailable};
use crate::resume::check_positions;
use crate::{Batch, Limits, LogError, PollOutcome, Record, SinkCopy};

/// Timeout of a request for offsets.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// See [`crate::Reader`].
pub struct Reader {
    consumer: BaseConsumer<QuietContext>,
    topic: String,
    positions: BTreeMap<u32, u64>,
    /// Results of polling, not returned yet.
    ready: VecDeque<Ready>,
}

/// One result of polling.
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
        let mut reader = self.reader_with(topic, "read_committed")?;
        reader.assign(from)?;
        Ok(reader)
    }

    /// A reader that stops at no open transaction and returns what is aborted too; nothing is assigned to it.
    pub(super) fn uncommitted_reader(&self, topic: Topic) -> Result<Reader, LogError> {
        self.reader_with(topic, "read_uncommitted")
    }

    /// A reader for single records, which reads little beyond each; nothing is assigned to it.
    pub(super) fn fetching_reader(&self, topic: Topic) -> Result<Reader, LogError> {
        let mut config = self.0.config.reader(&self.0.names.group("reader"));
        // A broker returns a whole batch all the same, if it is larger.
        config.set("fetch.message.max.bytes", "131072").set("queued.min.messages", "1");
        self.reader_of(topic, &config)
    }

    fn reader_with(&self, topic: Topic, isolation: &str) -> Result<Reader, LogError> {
        let mut config = self.0.config.reader(&self.0.names.group("reader"));
        self.reader_of(topic, config.set("isolation.level", isolation))
    }

    fn reader_of(&self, topic: Topic, config: &ClientConfig) -> Result<Reader, LogError> {
        let consumer = consumer(config)?;
        let topic = self.full_name(topic).to_owned();
        Ok(Reader { consumer, topic, positions: BTreeMap::new(), ready: VecDeque::new() })
    }

    /// Where reading resumes for positions of a sink, which are checked as by [`crate::Log::check_positions`].
    pub(crate) fn resume(
        &self,
        topic: Topic,
        positions: &[(u32, ProjectionPosition)],
        copy: Option<SinkCopy<'_>>,
    ) -> Result<Vec<(u32, u64)>, LogError> {
        if positions.is_empty() {
            return Ok(Vec::new());
        }
        let mut reader = self.reader(topic, &[])?;
        let (mut bounds, mut resumed) = (BTreeMap::new(), Vec::new());
        for &(partition, position) in positions {
            let (start, end) = reader.bounds(partition)?;
            bounds.insert(partition, (start, end));
            // A transaction's marker follows its records: retention drops it, too, and the first offset is past the position.
            let past = match copy.filter(|_| position.next_offset < start) {
                Some(copy) => self.read_past(copy, topic, partition, position.next_offset)?,
                None => None,
            };
            let past = past.filter(|&offset| offset >= start);
            let past = past.map(|next_offset| ProjectionPosition { next_offset, last_record: None });
            resumed.push((partition, past.unwrap_or(position)));
        }
        check_positions(
            topic,
            &resumed,
            |partition| Ok(bounds[&partition]),
            |from| {
                reader.assign(from)?;
                Ok(crate::Reader::Kafka(reader))
            },
        )?;
        Ok(resumed.into_iter().map(|(partition, position)| (partition, position.next_offset)).collect())
    }
}

impl Reader {
    /// Replaces the assignment: reads these partitions, each from its position.
    pub(crate) fn assign(&mut self, from: &[(u32, u64)]) -> Result<(), LogError> {
        let mut list = TopicPartitionList::new();
        for &(partition, offset) in from {
            list.add_partition_offset(&self.topic, partition.cast_signed(), Offset::Offset(offset.cast_signed()))
                .map_err(|error| LogError::refused(format!("position: {error}")).because(error))?;
        }
        self.consumer.assign(&list).map_err(unavailable("assign"))?;
        self.positions = from.iter().copied().collect();
        self.ready.clear();
        Ok(())
    }

    /// The first offset and the last stable offset of a partition.
    pub(super) fn bounds(&self, partition: u32) -> Result<(u64, u64), LogError> {
        let bounds = self.consumer.fetch_watermarks(&self.topic, partition.cast_signed(), REQUEST_TIMEOUT);
        let (start, end) = bounds.map_err(unavailable("watermarks"))?;
        Ok((start.cast_unsigned(), end.cast_unsigned()))
    }

    /// Stops reading a partition. Records that were fetched already may still be returned.
    pub(crate) fn unassign(&mut self, partition: u32) {
        if let Err(error) = self.consumer.pause(&list(&self.topic, [partition])) {
            tracing::debug!(%error, partition, "cannot pause a partition that is read to its end");
        }
    }

    pub(crate) fn poll(&mut self, batch: &mut Batch, limits: Limits) -> Result<PollOutcome, LogError> {
        batch.clear();
        if self.ready.is_empty() {
            self.collect(limits)?;
        }
        Ok(match self.ready.pop_front() {
            None => PollOutcome::Nothing,
            Some(Ready::Records(records)) => {
                *batch = records;
                PollOutcome::Records
            }
            Some(Ready::CaughtUp(partition)) => {
                PollOutcome::CaughtUp { partition, position: self.positions[&partition] }
            }
        })
    }

    /// Polls until a limit is met or no more records are fetched.
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
                Some(Err(error)) => classify(error)?,
            }
        }
        self.ready.extend(filling.into_values().map(Ready::Records));
        self.ready.extend(ended.into_iter().map(Ready::CaughtUp));
        Ok(())
    }
}
