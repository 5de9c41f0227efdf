//! The port: one type for both engines.

use std::sync::Arc;
use std::time::Duration;

use millrace_contracts::Topic;
use tokio_util::sync::CancellationToken;

use crate::fault::sabotaged;
use crate::{
    Batch, EmbeddedLog, KafkaLog, Limits, LogError, Receipts, RunOptions, Sink, Stage, TopicInfo, embedded, kafka,
};

/// A record to append. The partition is the caller's choice.
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

/// What one poll of a [`Reader`] brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polled {
    /// Records, in the batch given.
    Records,
    /// Everything readable of a partition has been read: the log itself said so.
    CaughtUp {
        /// The partition.
        partition: u32,
        /// Where reading stands.
        position: u64,
    },
    /// Nothing within the time.
    Nothing,
}

/// Reads partitions of one topic from positions: committed records, in order. Blocking: use it on a thread of its own.
#[derive(Debug)]
pub enum Reader {
    /// Of Apache Kafka.
    Kafka(kafka::Reader),
    /// Of the embedded engine.
    Embedded(embedded::Reader),
}

impl Log {
    /// Appends records, each to its partition; those of one partition in order. Never blocks: what cannot be enqueued at
    /// once is refused. The enqueued records of a call that is dropped unfinished may still be written.
    pub fn append(&self, records: &[NewRecord<'_>]) -> Receipts {
        let receipts = match self {
            Self::Kafka(log) => log.append(records),
            Self::Embedded(log) => log.append(records),
        };
        if sabotaged("sabotage::answer-early") { receipts.answered_early() } else { receipts }
    }

    /// A reader of `topic`, each partition from the position given with it.
    pub fn reader(&self, topic: Topic, from: &[(u32, u64)]) -> Result<Reader, LogError> {
        match self {
            Self::Kafka(log) => log.reader(topic, from).map(Reader::Kafka),
            Self::Embedded(log) => log.reader(topic, from).map(Reader::Embedded),
        }
    }

    /// Runs a stage on threads of its own until `stop` is cancelled. Failures that a fresh start can heal are retried
    /// with growing pauses; any other ends the run.
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

    /// Runs sinks on threads of their own, one made by `sink` for each worker, until `stop` is cancelled.
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

    /// Creates the declared topics that are missing, and refuses when one has another number of partitions than
    /// configured (users would be counted in two places) or is stamped by its producers where it must not be.
    pub async fn create_topics(&self) -> Result<(), LogError> {
        match self {
            Self::Kafka(log) => log.create_topics().await,
            Self::Embedded(log) => log.create_topics(),
        }
    }

    /// Refuses existing topics that are set up so that the guarantees do not hold; part of [`Log::create_topics`].
    pub async fn check_topics(&self) -> Result<(), LogError> {
        match self {
            Self::Kafka(log) => log.check_topics().await,
            Self::Embedded(log) => log.create_topics(),
        }
    }

    /// Every declared topic as it stands.
    pub async fn describe(&self) -> Result<Vec<TopicInfo>, LogError> {
        match self {
            Self::Kafka(log) => log.describe().await,
            Self::Embedded(log) => log.describe(),
        }
    }

    /// Number of partitions of every topic, as configured and checked by [`Log::create_topics`].
    pub fn partitions(&self) -> u32 {
        match self {
            Self::Kafka(log) => log.partitions(),
            Self::Embedded(log) => log.partitions(),
        }
    }

    /// Whether appends are expected to succeed; otherwise why not.
    pub fn health(&self) -> Result<(), String> {
        match self {
            Self::Kafka(log) => log.health(),
            Self::Embedded(log) => log.health(),
        }
    }

    /// Ends the log in order: appends are refused from now on, those under way are waited for, at most `within`.
    pub async fn close(&self, within: Duration) {
        match self {
            Self::Kafka(log) => log.close(within).await,
            Self::Embedded(log) => log.close(within).await,
        }
    }
}

impl Reader {
    /// Waits for records of any one partition, at most `limits.wait`. `batch` is cleared and filled; one poll fills it from
    /// one partition only.
    pub fn poll(&mut self, batch: &mut Batch, limits: Limits) -> Result<Polled, LogError> {
        match self {
            Self::Kafka(reader) => reader.poll(batch, limits),
            Self::Embedded(reader) => reader.poll(batch, limits),
        }
    }

    /// Reads no more of a partition.
    pub(crate) fn leave(&mut self, partition: u32) {
        match self {
            Self::Kafka(reader) => reader.leave(partition),
            Self::Embedded(reader) => reader.leave(partition),
        }
    }
}
