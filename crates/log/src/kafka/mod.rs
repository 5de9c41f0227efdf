//! The engine on Apache Kafka, by librdkafka.
//!
//! Every worker is a thread of its own; callbacks only take notes. What librdkafka cannot be trusted with, and why each
//! setting is what it is, stands where it is set (`config`) or where it bites (`stage`, `restore`).

mod admin;
mod append;
mod bounded;
mod config;
mod hole;
mod member;
#[cfg(test)]
mod mocked;
mod reader;
mod restore;
mod sink;
mod stage;
mod transaction;

use std::sync::Arc;
use std::time::Duration;

use millrace_contracts::{Names, TOPICS, Topic};
use rdkafka::error::KafkaError;

use crate::{LogError, NewRecord, Receipts};
use append::Appender;

pub use config::{AppendAcks, KafkaConfig};
pub(crate) use reader::Reader;

/// The log on Apache Kafka. Cheap to clone.
#[derive(Clone)]
pub struct KafkaLog(Arc<Inner>);

struct Inner {
    config: KafkaConfig,
    names: Names,
    /// Full names of [`TOPICS`], in its order: asked for at every append.
    topics: [String; TOPICS.len()],
    appender: Appender,
}

impl std::fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaLog").field("brokers", &self.0.config.brokers).finish_non_exhaustive()
    }
}

impl KafkaLog {
    /// Connects, and waits for one broker to answer. Blocking.
    pub fn open(config: KafkaConfig, names: Names) -> Result<Self, LogError> {
        let appender = Appender::open(&config)?;
        let topics = TOPICS.map(|topic| names.topic(&topic));
        Ok(Self(Arc::new(Inner { config, names, topics, appender })))
    }

    /// A topic that got partitions while we run deals them out: users would be counted in two places.
    fn check_assigned(&self, topic: Topic, partitions: &[u32]) -> Result<(), LogError> {
        match partitions.iter().find(|&&partition| partition >= self.0.config.partitions) {
            None => Ok(()),
            Some(partition) => Err(LogError::Refused(format!(
                "topic {} has a partition {partition}, and kafka.partitions is {}: users would be counted in two places",
                self.full_name(topic),
                self.0.config.partitions
            ))),
        }
    }

    fn full_name(&self, topic: Topic) -> &str {
        let index = TOPICS.iter().position(|declared| declared.name == topic.name);
        &self.0.topics[index.expect("a topic is a row of the table of topics")]
    }

    pub(crate) fn append(&self, records: &[NewRecord<'_>]) -> Receipts {
        self.0.appender.append(records, |topic| self.full_name(topic))
    }

    pub(crate) fn partitions(&self) -> u32 {
        self.0.config.partitions
    }

    pub(crate) fn health(&self) -> Result<(), String> {
        self.0.appender.health()
    }

    pub(crate) async fn close(&self, within: Duration) {
        let log = self.clone();
        let closed = tokio::task::spawn_blocking(move || log.0.appender.close(within)).await;
        closed.expect("closing a producer does not panic");
    }
}

/// An error of librdkafka that a fresh start may heal.
fn unavailable(doing: &str) -> impl FnOnce(KafkaError) -> LogError + '_ {
    move |error| LogError::Unavailable(format!("{doing}: {error}"))
}
