//! Creates and describes topics.

use std::time::{Duration, Instant};

use millrace_contracts::{Cleanup, TOPICS, Topic};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::Metadata;

use super::config::MAX_RECORD_BYTES;
use super::{KafkaLog, unavailable};
use crate::{LogError, PartitionInfo, TopicInfo};

const ANSWER: Duration = Duration::from_secs(15);
const TIMESTAMPS: &str = "message.timestamp.type";
const BY_LOG: &str = "LogAppendTime";

impl KafkaLog {
    pub(crate) async fn create_topics(&self) -> Result<(), LogError> {
        let admin = self.admin()?;
        let settings: Vec<Vec<(&str, String)>> = TOPICS.iter().map(|topic| self.topic_settings(topic)).collect();
        let topics: Vec<NewTopic<'_>> = TOPICS
            .iter()
            .zip(&settings)
            .map(|(topic, settings)| {
                let replicas = TopicReplication::Fixed(self.0.config.replication_factor);
                let new = NewTopic::new(self.full_name(*topic), self.partitions().cast_signed(), replicas);
                settings.iter().fold(new, |new, (key, value)| new.set(key, value))
            })
            .collect();
        let created = admin.create_topics(&topics, &options()).await.map_err(unavailable("create topics"))?;
        for result in created {
            match result {
                Ok(name) => tracing::info!(topic = name, partitions = self.partitions(), "topic created"),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, code)) => return Err(LogError::Unavailable(format!("create topic {name}: {code}"))),
            }
        }
        let log = self.clone();
        blocking(move || log.check_partitions()).await?;
        self.check_topics().await
    }

    /// Refuses a topic in which a producer's clock would decide what time it is.
    pub(crate) async fn check_topics(&self) -> Result<(), LogError> {
        let names: Vec<&str> =
            TOPICS.iter().filter(|topic| topic.log_time).map(|topic| self.full_name(*topic)).collect();
        let asked: Vec<ResourceSpecifier<'_>> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let told = self.admin()?.describe_configs(&asked, &options()).await.map_err(unavailable("topic settings"))?;
        for (name, told) in names.into_iter().zip(told) {
            let stamped = match &told {
                Ok(settings) => settings.entry_map().get(TIMESTAMPS).and_then(|entry| entry.value.as_deref()),
                Err(RDKafkaErrorCode::UnknownTopicOrPartition) => continue,
                Err(code) => {
                    tracing::warn!(topic = name, %code, "not known whether {TIMESTAMPS} of the topic is {BY_LOG}");
                    continue;
                }
            };
            if stamped != Some(BY_LOG) {
                return Err(LogError::Refused(format!(
                    "topic {name} has {TIMESTAMPS}={}: one producer with a wrong clock would move the time of the log. \
                     Set it with Kafka's own tool: kafka-configs --alter --entity-type topics --entity-name {name} \
                     --add-config {TIMESTAMPS}={BY_LOG}",
                    stamped.unwrap_or("?")
                )));
            }
        }
        Ok(())
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>, LogError> {
        AdminClient::from_config(&self.0.config.reader("admin"))
            .map_err(|error| LogError::Refused(format!("kafka settings: {error}")))
    }

    fn topic_settings(&self, topic: &Topic) -> Vec<(&'static str, String)> {
        let mut settings = vec![
            ("max.message.bytes", MAX_RECORD_BYTES.to_string()),
            ("min.insync.replicas", self.0.config.min_insync_replicas.to_string()),
        ];
        if topic.log_time {
            settings.push((TIMESTAMPS, BY_LOG.into()));
        }
        match topic.cleanup {
            Cleanup::Delete { retention_ms } => {
                settings.extend([("cleanup.policy", "delete".into()), ("retention.ms", retention_ms.to_string())]);
            }
            // Deltas come in small and often: the cleaner may look at them from 64 MiB or an hour on.
            Cleanup::Compact => settings.extend([
                ("cleanup.policy", "compact".into()),
                ("segment.bytes", (64 << 20).to_string()),
                ("segment.ms", "3600000".into()),
            ]),
        }
        settings
    }

    /// A topic that was created a moment ago is not known everywhere at once.
    fn check_partitions(&self) -> Result<(), LogError> {
        let client = self.look()?;
        let deadline = Instant::now() + ANSWER;
        loop {
            let metadata = client.fetch_metadata(None, ANSWER).map_err(unavailable("metadata"))?;
            let counts = TOPICS.map(|topic| partitions_of(&metadata, self.full_name(topic)));
            if let Some((topic, count)) =
                TOPICS.iter().zip(counts).find(|(_, count)| ![0, self.partitions()].contains(count))
            {
                return Err(LogError::Refused(format!(
                    "topic {} has {count} partitions, and kafka.partitions is {}: users would be counted in two places",
                    self.full_name(*topic),
                    self.partitions()
                )));
            }
            if !counts.contains(&0) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(LogError::Unavailable("topics were created but are not to be seen".into()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) async fn describe(&self) -> Result<Vec<TopicInfo>, LogError> {
        let log = self.clone();
        blocking(move || log.describe_now()).await
    }

    fn describe_now(&self) -> Result<Vec<TopicInfo>, LogError> {
        let client = self.look()?;
        let metadata = client.fetch_metadata(None, ANSWER).map_err(unavailable("metadata"))?;
        TOPICS
            .iter()
            .map(|&topic| {
                let full_name = self.full_name(topic).to_owned();
                let partitions = (0..partitions_of(&metadata, &full_name))
                    .map(|partition| {
                        let (start, end) = client
                            .fetch_watermarks(&full_name, partition.cast_signed(), ANSWER)
                            .map_err(unavailable("watermarks"))?;
                        Ok(PartitionInfo { start: start.cast_unsigned(), end: end.cast_unsigned() })
                    })
                    .collect::<Result<_, LogError>>()?;
                Ok(TopicInfo { topic, full_name, partitions })
            })
            .collect()
    }

    fn look(&self) -> Result<BaseConsumer, LogError> {
        let config = self.0.config.reader(&self.0.names.group("admin"));
        BaseConsumer::from_config(&config).map_err(|error| LogError::Refused(format!("kafka settings: {error}")))
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(ANSWER)).request_timeout(Some(ANSWER))
}

/// Zero when the topic is not known.
fn partitions_of(metadata: &Metadata, name: &str) -> u32 {
    let found = metadata.topics().iter().find(|topic| topic.name() == name);
    found.map_or(0, |topic| u32::try_from(topic.partitions().len()).unwrap_or(u32::MAX))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| LogError::Unavailable(format!("task: {error}")))?
}
