//! Creates and describes topics, and checks their partitions.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use millrace_base::Backoff;
use millrace_contracts::{Cleanup, Topic};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::{Metadata, MetadataTopic};

use super::config::MAX_RECORD_BYTES;
use super::consumer::invalid_settings;
use super::{KafkaLog, expected_partitions, unavailable};
use crate::{LogError, PartitionInfo, TopicInfo};

/// Timeout of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
pub(super) const TIMESTAMP_TYPE: &str = "message.timestamp.type";
pub(super) const LOG_APPEND_TIME: &str = "LogAppendTime";
/// The pauses between two looks for topics that were just created.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

impl KafkaLog {
    pub(crate) async fn create_topics(&self) -> Result<(), LogError> {
        let admin = self.admin()?;
        let settings: Vec<Vec<(&str, String)>> =
            self.0.topics.iter().map(|declared| self.topic_settings(&declared.topic)).collect();
        let topics: Vec<NewTopic<'_>> = self
            .0
            .topics
            .iter()
            .zip(&settings)
            .map(|(declared, settings)| {
                let replicas = TopicReplication::Fixed(self.0.config.replication_factor);
                let new = NewTopic::new(&declared.full_name, declared.partitions.cast_signed(), replicas);
                settings.iter().fold(new, |new, (key, value)| new.set(key, value))
            })
            .collect();
        let created = admin.create_topics(&topics, &options()).await.map_err(unavailable("create topics"))?;
        for result in created {
            match result {
                Ok(name) => tracing::info!(topic = name, "topic created"),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, code)) => {
                    return Err(LogError::unavailable(format!("create topic {name}: {code}")).because(code));
                }
            }
        }
        let log = self.clone();
        blocking(move || log.check_partitions()).await?;
        for warning in self.check_topics().await? {
            tracing::warn!("{warning}");
        }
        Ok(())
    }

    /// The id of the cluster and the topic of events: a cluster may have several logs.
    pub(crate) async fn id(&self) -> Result<String, LogError> {
        let log = self.clone();
        let id = move || {
            let client = log.admin_consumer()?;
            // The id comes with the metadata.
            client.fetch_metadata(None, REQUEST_TIMEOUT).map_err(unavailable("metadata"))?;
            let cluster = client.client().fetch_cluster_id(REQUEST_TIMEOUT);
            let cluster =
                cluster.ok_or_else(|| LogError::unavailable("the brokers do not report the id of the cluster"))?;
            Ok(format!("{cluster}/{}", log.full_name(Topic::EVENTS)))
        };
        blocking(id).await
    }

    pub(super) fn admin(&self) -> Result<AdminClient<DefaultClientContext>, LogError> {
        AdminClient::from_config(&self.0.config.reader("admin")).map_err(invalid_settings)
    }

    fn topic_settings(&self, topic: &Topic) -> Vec<(&'static str, String)> {
        let mut settings = vec![
            ("max.message.bytes", MAX_RECORD_BYTES.to_string()),
            ("min.insync.replicas", self.0.config.min_insync_replicas.to_string()),
        ];
        if topic.log_time {
            settings.push((TIMESTAMP_TYPE, LOG_APPEND_TIME.into()));
        }
        match topic.cleanup {
            Cleanup::Delete { retention_ms } => {
                settings.extend([("cleanup.policy", "delete".into()), ("retention.ms", retention_ms.to_string())]);
            }
            // Changes are small and frequent: the cleaner may compact them from 64 MiB or an hour on.
            Cleanup::Compact => settings.extend([
                ("cleanup.policy", "compact".into()),
                ("segment.bytes", (64 << 20).to_string()),
                ("segment.ms", "3600000".into()),
            ]),
        }
        settings
    }

    /// Refuses a topic with another number of partitions than declared. Waits for topics that were just created: not
    /// every broker has their metadata at once.
    fn check_partitions(&self) -> Result<(), LogError> {
        let client = self.admin_consumer()?;
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            let metadata = client.fetch_metadata(None, REQUEST_TIMEOUT).map_err(unavailable("metadata"))?;
            let mut missing = None;
            for declared in self.0.topics.iter() {
                match partitions_of(&metadata, &declared.full_name) {
                    0 => missing = Some(&declared.full_name),
                    count if count == declared.partitions => {}
                    count => {
                        return Err(LogError::refused(format!(
                            "topic {} has {count} partitions, and {}: users would be counted in two places",
                            declared.full_name,
                            expected_partitions(declared)
                        )));
                    }
                }
            }
            let Some(missing) = missing else { return Ok(()) };
            if Instant::now() > deadline {
                return Err(LogError::unavailable(format!("topic {missing} was created but is not in the metadata")));
            }
            std::thread::sleep(backoff.next_pause());
        }
    }

    pub(crate) async fn describe(&self) -> Result<Vec<TopicInfo>, LogError> {
        let log = self.clone();
        blocking(move || log.describe_now()).await
    }

    fn describe_now(&self) -> Result<Vec<TopicInfo>, LogError> {
        let client = self.admin_consumer()?;
        let metadata = client.fetch_metadata(None, REQUEST_TIMEOUT).map_err(unavailable("metadata"))?;
        let topics = self.0.topics.iter();
        topics
            .map(|declared| {
                let full_name = declared.full_name.clone();
                let partitions = (0..partitions_of(&metadata, &full_name))
                    .map(|partition| {
                        let (start, end) = client
                            .fetch_watermarks(&full_name, partition.cast_signed(), REQUEST_TIMEOUT)
                            .map_err(unavailable("watermarks"))?;
                        Ok(PartitionInfo { start: start.cast_unsigned(), end: end.cast_unsigned() })
                    })
                    .collect::<Result<_, LogError>>()?;
                Ok(TopicInfo { topic: declared.topic, full_name, partitions })
            })
            .collect()
    }

    /// The replicas of each topic: of the partition with the fewest.
    pub(super) async fn replicas(&self) -> Result<HashMap<String, i64>, LogError> {
        let log = self.clone();
        let replicas = move || -> Result<HashMap<String, i64>, LogError> {
            let metadata =
                log.admin_consumer()?.fetch_metadata(None, REQUEST_TIMEOUT).map_err(unavailable("metadata"))?;
            let fewest = |topic: &MetadataTopic| topic.partitions().iter().map(|one| one.replicas().len()).min();
            let of = |topic: &MetadataTopic| Some((topic.name().to_owned(), i64::try_from(fewest(topic)?).ok()?));
            Ok(metadata.topics().iter().filter_map(of).collect())
        };
        blocking(replicas).await
    }

    fn admin_consumer(&self) -> Result<BaseConsumer, LogError> {
        let config = self.0.config.reader(&self.0.names.group("admin"));
        BaseConsumer::from_config(&config).map_err(invalid_settings)
    }
}

pub(super) fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT)).request_timeout(Some(REQUEST_TIMEOUT))
}

/// The number of partitions in the metadata; 0 if the topic is missing.
fn partitions_of(metadata: &Metadata, name: &str) -> u32 {
    let found = metadata.topics().iter().find(|topic| topic.name() == name);
    found.map_or(0, |topic| u32::try_from(topic.partitions().len()).unwrap_or(u32::MAX))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| LogError::unavailable(format!("task: {error}")).because(error))?
}
