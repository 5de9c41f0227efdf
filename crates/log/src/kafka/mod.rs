//! The engine on Apache Kafka, by librdkafka.
//!
//! Every worker has its own thread; callbacks only record. The reasons for each librdkafka setting are in `config`, the
//! workarounds for its defects where they apply (`stage`, `transaction`, `restore`).

mod admin;
mod append;
mod bounded;
mod config;
mod consumer;
mod fetch;
#[cfg(test)]
mod generation_tests;
mod group;
mod member;
#[cfg(test)]
mod mocked;
mod numbers;
mod offsets;
mod owner;
mod reader;
mod restore;
mod scan;
mod settle;
mod settle_outputs;
mod sink;
mod stage;
mod topic_check;
mod transaction;
mod unassigned;

use std::sync::Arc;
use std::time::Duration;

use millrace_contracts::{Names, Partitions, TOPICS, Topic};
use rdkafka::error::KafkaError;

use crate::topics::{DeclaredTopic, Topics};
use crate::{LogError, NewRecord, Receipts};
use append::Appender;
use fetch::Fetchers;
use offsets::Lookup;

#[cfg(test)]
pub(crate) use config::tests::config as test_config;
pub use config::{AppendAcks, KafkaConfig, Properties};
pub(crate) use reader::Reader;

/// The log on Apache Kafka. Cheap to clone.
#[derive(Clone)]
pub struct KafkaLog(Arc<Inner>);

struct Inner {
    config: KafkaConfig,
    names: Names,
    topics: Topics,
    appender: Appender,
    /// Appends that all in-sync replicas acknowledge, where `appender` waits for less.
    replicated: Option<Appender>,
    lookup: Lookup,
    fetchers: Fetchers,
}

impl std::fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaLog").field("brokers", &self.0.config.brokers).finish_non_exhaustive()
    }
}

impl KafkaLog {
    /// Connects, and waits for one broker to respond. Blocking.
    pub fn open(config: KafkaConfig, names: Names) -> Result<Self, LogError> {
        Self::open_with_topics(config, names, TOPICS)
    }

    /// Opens a log with another table of topics than [`TOPICS`].
    pub fn open_with_topics(config: KafkaConfig, names: Names, topics: &[Topic]) -> Result<Self, LogError> {
        let topics = Topics::new(topics, &names, config.partitions);
        let appender = Appender::open(&config, &topics)?;
        let all = KafkaConfig { append_acks: AppendAcks::All, ..config.clone() };
        let replicated = (config.append_acks != AppendAcks::All).then(|| Appender::open(&all, &topics)).transpose()?;
        let (lookup, fetchers) = (Lookup::default(), Fetchers::default());
        Ok(Self(Arc::new(Inner { config, names, topics, appender, replicated, lookup, fetchers })))
    }

    /// Refuses partitions that were added to a topic while this process runs: users would be counted in two places.
    fn check_assigned(&self, topic: Topic, partitions: &[u32]) -> Result<(), LogError> {
        let declared = self.0.topics.get(topic);
        match partitions.iter().find(|&&partition| partition >= declared.partitions) {
            None => Ok(()),
            Some(partition) => Err(LogError::refused(format!(
                "topic {} has a partition {partition}, and {}: users would be counted in two places",
                declared.full_name,
                expected_partitions(declared)
            ))),
        }
    }

    fn full_name(&self, topic: Topic) -> &str {
        &self.0.topics.get(topic).full_name
    }

    pub(crate) fn append(&self, records: &[NewRecord<'_>]) -> Receipts {
        self.0.appender.append(records, |topic| self.full_name(topic))
    }

    pub(crate) fn append_replicated(&self, records: &[NewRecord<'_>]) -> Receipts {
        let appender = self.0.replicated.as_ref().unwrap_or(&self.0.appender);
        appender.append(records, |topic| self.full_name(topic))
    }

    pub(crate) fn partitions(&self, topic: Topic) -> u32 {
        self.0.topics.get(topic).partitions
    }

    pub(crate) fn health(&self) -> Result<(), String> {
        self.0.appender.health()?;
        self.0.replicated.as_ref().map_or(Ok(()), Appender::health)
    }

    pub(crate) async fn close(&self, within: Duration) {
        let log = self.clone();
        let close = move || {
            log.0.appender.close(within);
            log.0.replicated.iter().for_each(|appender| appender.close(within));
        };
        let closed = tokio::task::spawn_blocking(close).await;
        closed.expect("closing a producer does not panic");
    }
}

/// The declared number of partitions, in an error.
fn expected_partitions(declared: &DeclaredTopic) -> String {
    match declared.topic.partitions {
        Partitions::Configured => format!("kafka.partitions is {}", declared.partitions),
        Partitions::Fixed(count) => format!("it must have {count}"),
    }
}

/// An error of librdkafka that a fresh start is expected to overcome.
fn unavailable(operation: &str) -> impl FnOnce(KafkaError) -> LogError + '_ {
    move |error| LogError::unavailable(format!("{operation}: {error}")).because(error)
}
