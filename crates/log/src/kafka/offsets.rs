//! Looks up offsets of partitions: first, end, and by time.

use std::sync::Mutex;
use std::time::Duration;

use millrace_contracts::Topic;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::consumer::{QuietContext, consumer};
use super::{KafkaLog, unavailable};
use crate::LogError;

const PATIENCE: Duration = Duration::from_secs(10);

/// Consumers outside any group that do nothing but look up offsets: one for each look-up at the same time.
pub(super) type Lookup = Mutex<Vec<BaseConsumer<QuietContext>>>;

/// Most idle consumers.
const MAX_IDLE: usize = 4;

impl KafkaLog {
    /// First offset and last stable offset of a partition.
    pub(crate) async fn offsets(&self, topic: Topic, partition: u32) -> Result<(u64, u64), LogError> {
        self.look_up(topic, move |consumer, name| {
            let bounds = consumer.fetch_watermarks(name, partition.cast_signed(), PATIENCE);
            let (start, end) = bounds.map_err(unavailable("watermarks"))?;
            Ok((start.cast_unsigned(), end.cast_unsigned()))
        })
        .await
    }

    /// The last stable offset of every partition, by one request to each broker: [`KafkaLog::offsets`] makes two for each
    /// partition.
    pub(crate) async fn ends(&self, topic: Topic) -> Result<Vec<u64>, LogError> {
        let partitions = self.partitions(topic);
        self.look_up(topic, move |consumer, name| {
            let mut ends = TopicPartitionList::new();
            for partition in 0..partitions {
                // In place of a time: the same request has both.
                ends.add_partition_offset(name, partition.cast_signed(), Offset::End).map_err(unavailable("ends"))?;
            }
            let found = consumer.offsets_for_times(ends, PATIENCE).map_err(unavailable("ends"))?;
            let end = |partition: u32| {
                let unknown = || LogError::unavailable(format!("ends: none of partition {partition}"));
                let element = found.find_partition(name, partition.cast_signed()).ok_or_else(unknown)?;
                element.error().map_err(unavailable("ends"))?;
                match element.offset() {
                    Offset::Offset(end) => Ok(end.cast_unsigned()),
                    _ => Err(unknown()),
                }
            };
            (0..partitions).map(end).collect()
        })
        .await
    }

    /// The first offset at or after a time, the end if there is none.
    pub(crate) async fn offset_at(&self, topic: Topic, partition: u32, ms: i64) -> Result<u64, LogError> {
        let found = self
            .look_up(topic, move |consumer, name| {
                let mut times = TopicPartitionList::new();
                times
                    .add_partition_offset(name, partition.cast_signed(), Offset::Offset(ms.max(0)))
                    .map_err(unavailable("offset by time"))?;
                let found = consumer.offsets_for_times(times, PATIENCE).map_err(unavailable("offset by time"))?;
                Ok(found.elements().first().and_then(|element| match element.offset() {
                    Offset::Offset(offset) => u64::try_from(offset).ok(),
                    _ => None,
                }))
            })
            .await?;
        match found {
            Some(offset) => Ok(offset),
            None => Ok(self.offsets(topic, partition).await?.1),
        }
    }

    async fn look_up<T: Send + 'static>(
        &self,
        topic: Topic,
        ask: impl FnOnce(&BaseConsumer<QuietContext>, &str) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let log = self.clone();
        let blocking = move || {
            let idle = log.0.lookup.lock().expect("nothing panics while it is held").pop();
            let consumer = match idle {
                Some(consumer) => consumer,
                None => consumer(&log.0.config.reader(&log.0.names.group("reader")))?,
            };
            let found = ask(&consumer, log.full_name(topic))?;
            let mut idle = log.0.lookup.lock().expect("nothing panics while it is held");
            if idle.len() < MAX_IDLE {
                idle.push(consumer);
            }
            Ok(found)
        };
        let joined = tokio::task::spawn_blocking(blocking).await;
        joined.map_err(|error| LogError::unavailable(format!("offset lookup: {error}")))?
    }
}
