//! The port: one type for both engines.

use std::sync::Arc;
use std::time::Duration;

use millrace_contracts::{ProjectionPosition, Topic};
use tokio_util::sync::CancellationToken;

use crate::{
    Batch, EmbeddedLog, Fetched, GroupPosition, KafkaLog, Limits, LogError, PollOutcome, Receipts, RunOptions, Sink,
    SinkCopy, Stage, TopicInfo, embedded, fault, kafka,
};

/// A record to append. The caller chooses the partition.
#[derive(Debug, Clone, Copy)]
pub struct NewRecord<'a> {
    /// The topic.
    pub topic: Topic,
    /// The partition, below the topic's number of partitions.
    pub partition: u32,
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
}

/// The log. Cheap to clone; every clone is the same log.
#[derive(Debug, Clone)]
pub enum Log {
    /// Apache Kafka.
    Kafka(KafkaLog),
    /// One directory on this machine.
    Embedded(EmbeddedLog),
}

/// Reads partitions of one topic from positions: committed records, in order. Blocking: use it on its own thread.
#[derive(Debug)]
pub enum Reader {
    /// Of Apache Kafka.
    Kafka(kafka::Reader),
    /// Of the embedded engine.
    Embedded(embedded::Reader),
}

impl Log {
    /// Appends records, each to its partition; those of one partition in order. Never blocks: a record that cannot be
    /// enqueued at once is refused. If the returned future is dropped, enqueued records may still be written.
    pub fn append(&self, records: &[NewRecord<'_>]) -> Receipts {
        fault::acknowledge_early(match self {
            Self::Kafka(log) => log.append(records),
            Self::Embedded(log) => log.append(records),
        })
    }

    /// The id of the log: that of the cluster with the topic of events, or that of the directory. Another log has another one.
    pub async fn id(&self) -> Result<String, LogError> {
        match self {
            Self::Kafka(log) => log.id().await,
            Self::Embedded(log) => Ok(log.id().to_owned()),
        }
    }

    /// The position of the group of a sink's role in a partition; `None` if it never committed one. Blocking.
    pub fn group_position(&self, role: &str, topic: Topic, partition: u32) -> Result<Option<GroupPosition>, LogError> {
        match self {
            Self::Kafka(log) => log.group_position(role, topic, partition),
            Self::Embedded(log) => log.group_position(role, topic, partition),
        }
    }

    /// Refuses positions of a sink that the log does not hold, or before which it has another record than the position names.
    /// Every run of a sink begins with it. A position below the first offset passes if the group of `copy` has recorded that
    /// no record lies between. Blocking.
    pub fn check_positions(
        &self,
        topic: Topic,
        positions: &[(u32, ProjectionPosition)],
        copy: Option<SinkCopy<'_>>,
    ) -> Result<(), LogError> {
        match self {
            Self::Kafka(log) => log.resume(topic, positions, copy).map(drop),
            Self::Embedded(log) => log.check_positions(topic, positions),
        }
    }

    /// Sets the position of a group that has no members. Blocking.
    pub fn set_group_position(
        &self,
        role: &str,
        topic: Topic,
        partition: u32,
        position: GroupPosition,
    ) -> Result<(), LogError> {
        match self {
            Self::Kafka(log) => log.set_group_position(role, topic, partition, position),
            Self::Embedded(log) => log.set_group_position(role, topic, partition, position),
        }
    }

    /// Appends records like [`Log::append`], acknowledged by all in-sync replicas whatever `command.durability` is; through
    /// a queue of their own where that differs.
    pub fn append_replicated(&self, records: &[NewRecord<'_>]) -> Receipts {
        fault::acknowledge_early(match self {
            Self::Kafka(log) => log.append_replicated(records),
            Self::Embedded(log) => log.append(records),
        })
    }

    /// The offset of a partition's oldest retained record.
    pub async fn start(&self, topic: Topic, partition: u32) -> Result<u64, LogError> {
        Ok(self.offsets(topic, partition).await?.0)
    }

    /// The offset behind a partition's newest readable record, if this process has it at hand, as on the embedded engine:
    /// without a request.
    pub fn local_end(&self, topic: Topic, partition: u32) -> Option<u64> {
        match self {
            Self::Kafka(_) => None,
            Self::Embedded(log) => log.offsets(topic, partition).ok().map(|(_, end)| end),
        }
    }

    /// The offset behind a partition's newest readable record: every record acknowledged before the call is below it.
    pub async fn end(&self, topic: Topic, partition: u32) -> Result<u64, LogError> {
        Ok(self.offsets(topic, partition).await?.1)
    }

    /// The offset behind the newest readable record of every partition, like [`Log::end`].
    pub async fn ends(&self, topic: Topic) -> Result<Vec<u64>, LogError> {
        match self {
            Self::Kafka(log) => log.ends(topic).await,
            Self::Embedded(log) => {
                let end = |partition| log.offsets(topic, partition).map(|(_, end)| end);
                (0..log.partitions(topic)).map(end).collect()
            }
        }
    }

    async fn offsets(&self, topic: Topic, partition: u32) -> Result<(u64, u64), LogError> {
        match self {
            Self::Kafka(log) => log.offsets(topic, partition).await,
            Self::Embedded(log) => log.offsets(topic, partition),
        }
    }

    /// The offset of a partition's first record with a timestamp at or after `ms` since the epoch; its end if there is none.
    pub async fn offset_at(&self, topic: Topic, partition: u32, ms: i64) -> Result<u64, LogError> {
        match self {
            Self::Kafka(log) => log.offset_at(topic, partition, ms).await,
            Self::Embedded(log) => log.offset_at(topic, partition, ms),
        }
    }

    /// Reads single records of a partition by their offsets, which ascend, without what lies between them. It ends early past
    /// `limits.bytes` or after `limits.wait`; `limits.records` does not matter. Blocking.
    pub fn fetch(&self, topic: Topic, partition: u32, offsets: &[u64], limits: Limits) -> Result<Fetched, LogError> {
        match self {
            Self::Kafka(log) => log.fetch(topic, partition, offsets, limits),
            Self::Embedded(log) => log.fetch(topic, partition, offsets, limits),
        }
    }

    /// Has a reader of `topic` read these partitions from now on, each from its position: cheaper than another reader.
    pub fn reassign(&self, reader: &mut Reader, topic: Topic, from: &[(u32, u64)]) -> Result<(), LogError> {
        match reader {
            Reader::Kafka(reader) => reader.assign(from),
            Reader::Embedded(_) => {
                *reader = self.reader(topic, from)?;
                Ok(())
            }
        }
    }

    /// A reader of `topic`, from a position in each partition.
    pub fn reader(&self, topic: Topic, from: &[(u32, u64)]) -> Result<Reader, LogError> {
        match self {
            Self::Kafka(log) => log.reader(topic, from).map(Reader::Kafka),
            Self::Embedded(log) => log.reader(topic, from).map(Reader::Embedded),
        }
    }

    /// Runs a stage on its own threads until `stop` is canceled. Retries failures that a fresh start can overcome, with
    /// backoff; any other ends the run.
    pub async fn run_stage<S: Stage>(
        &self,
        stage: S,
        options: RunOptions,
        stop: CancellationToken,
    ) -> Result<(), LogError> {
        let stage = Arc::new(stage);
        match self {
            Self::Kafka(log) => log.run_stage(stage, options, stop).await,
            Self::Embedded(log) => log.run_stage(stage, options, stop).await,
        }
    }

    /// Runs sinks on their own threads until `stop` is canceled; `sink` makes one for each worker.
    pub async fn run_sink<S: Sink>(
        &self,
        sink: impl Fn() -> S + Send + Sync + 'static,
        options: RunOptions,
        stop: CancellationToken,
    ) -> Result<(), LogError> {
        match self {
            Self::Kafka(log) => log.run_sink(sink, options, stop).await,
            Self::Embedded(log) => log.run_sink(sink, options, stop).await,
        }
    }

    /// Creates the declared topics that are missing. Refuses one with another number of partitions than declared (users
    /// would be counted in two places), and what [`Log::check_topics`] refuses.
    pub async fn create_topics(&self) -> Result<(), LogError> {
        match self {
            Self::Kafka(log) => log.create_topics().await,
            Self::Embedded(log) => log.create_topics(),
        }
    }

    /// Refuses existing topics with settings that break the guarantees; part of [`Log::create_topics`]. Returns the settings
    /// that only need attention, each with its consequence and the command that changes it.
    pub async fn check_topics(&self) -> Result<Vec<String>, LogError> {
        match self {
            Self::Kafka(log) => log.check_topics().await,
            Self::Embedded(log) => log.create_topics().map(|()| Vec::new()),
        }
    }

    /// Describes every declared topic.
    pub async fn describe(&self) -> Result<Vec<TopicInfo>, LogError> {
        match self {
            Self::Kafka(log) => log.describe().await,
            Self::Embedded(log) => log.describe(),
        }
    }

    /// The number of partitions of a topic, as declared and checked by [`Log::create_topics`].
    ///
    /// # Panics
    /// If the log's table of topics does not declare the topic.
    pub fn partitions(&self, topic: Topic) -> u32 {
        match self {
            Self::Kafka(log) => log.partitions(topic),
            Self::Embedded(log) => log.partitions(topic),
        }
    }

    /// Whether appends are expected to succeed; the reason if not.
    pub fn health(&self) -> Result<(), String> {
        match self {
            Self::Kafka(log) => log.health(),
            Self::Embedded(log) => log.health(),
        }
    }

    /// Shuts down: refuses new appends and waits for those in flight, at most `within`.
    pub async fn close(&self, within: Duration) {
        match self {
            Self::Kafka(log) => log.close(within).await,
            Self::Embedded(log) => log.close(within).await,
        }
    }
}

impl Reader {
    /// Clears `batch` and fills it with records of one partition. Waits at most `limits.wait`.
    pub fn poll(&mut self, batch: &mut Batch, limits: Limits) -> Result<PollOutcome, LogError> {
        match self {
            Self::Kafka(reader) => reader.poll(batch, limits),
            Self::Embedded(reader) => reader.poll(batch, limits),
        }
    }

    /// Stops reading a partition.
    pub(crate) fn unassign(&mut self, partition: u32) {
        match self {
            Self::Kafka(reader) => reader.unassign(partition),
            Self::Embedded(reader) => reader.unassign(partition),
        }
    }
}
