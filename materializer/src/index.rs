//! The sink of the index of messages: which offsets of `messages` are of which topic.
//!
//! It leaves out what the ring of a coordinator does: messages that wait for their delay, and keyed ones that a coordinator
//! appended late, behind the opening of its successor. So the index's position has that coordinator with it.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::time::Duration;

use millrace_base::Backoff;
use millrace_contracts::topics::{Message, TopicOwner};
use millrace_contracts::{DecodeError, ProjectionPosition, ProjectionWrite, StoreError, Topic, WriteOutcome, metric};
use millrace_log::{Batch, Log, LogError, RunOptions, Sink, Status};
use millrace_service::health::Component;
use millrace_store::{IndexPosition, IndexRow, IndexStep, MessageIndex};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::pace::Pace;

/// Its component and its consumer group.
pub(crate) const ROLE: &str = "materializer-index";
const REMEDY: &str = "restore `messages`, or run `BEGIN; UPDATE message_index_position SET position = NULL; TRUNCATE \
                      message_index; COMMIT` in PostgreSQL: the index is then built from this log";
/// Between two looks for days that the log has dropped.
const RETENTION_INTERVAL: Duration = Duration::from_mins(5);
const DAY_MS: i64 = 86_400_000;

/// The projection into the index.
pub(crate) struct Indexing {
    pub(crate) index: MessageIndex,
    pub(crate) config: Config,
    pub(crate) log: Log,
    pub(crate) instance: String,
    pub(crate) component: Component,
    pub(crate) stop: CancellationToken,
}

impl Indexing {
    /// Indexes until stopped; restarts after a failure, forever. Only a damaged log ends it.
    pub(crate) async fn run(self) -> Result<(), LogError> {
        metrics::counter!(metric::INDEXED_MESSAGES.name).increment(0);
        tokio::select! {
            ended = self.index_until_stopped() => ended,
            never = self.retain() => match never {},
        }
    }

    async fn index_until_stopped(&self) -> Result<(), LogError> {
        let mut backoff = Backoff::new(self.config.retry_min_delay.0, self.config.retry_max_delay.0);
        loop {
            let began = Instant::now();
            let (status, statuses) = watch::channel(Status::Starting);
            let options = RunOptions {
                role: ROLE.into(),
                instance: self.instance.clone(),
                workers: self.config.workers,
                step: self.config.step(),
                status,
            };
            let (index, log) = (self.index.clone(), self.log.clone());
            let (config, stop) = (self.config.clone(), self.stop.clone());
            let pace = move || Pace::new(config.index_interval.0, config.step(), stop.clone());
            let sink = move || IndexSink::new(index.clone(), log.clone(), pace());
            let ended = tokio::select! {
                ended = self.log.run_sink(sink, options, self.stop.clone()) => ended,
                never = report_status(statuses, &self.component) => match never {},
            };
            match ended {
                Ok(()) => return Ok(()),
                Err(error @ LogError::Damaged(_)) => return Err(error),
                Err(error @ (LogError::Refused(_) | LogError::Unavailable(_))) => {
                    if began.elapsed() > self.config.retry_max_delay.0 {
                        backoff.reset();
                    }
                    let pause = backoff.next_pause();
                    tracing::error!(%error, "the index of messages stopped, restarting in {pause:?}");
                    self.component.not_ready(error.to_string());
                    if tokio::time::timeout(pause, self.stop.cancelled()).await.is_ok() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Drops what the log has dropped, from time to time.
    async fn retain(&self) -> Infallible {
        loop {
            if let Err(error) = self.drop_old().await {
                tracing::warn!(%error, "cannot drop old days of the index of messages, trying again later");
            }
            tokio::time::sleep(RETENTION_INTERVAL).await;
        }
    }

    async fn drop_old(&self) -> Result<(), String> {
        let mut starts = Vec::new();
        for partition in 0..self.log.partitions(Topic::MESSAGES) {
            starts.push(self.log.start(Topic::MESSAGES, partition).await.map_err(|error| error.to_string())?);
        }
        let dropped = self.index.drop_below(&starts).await.map_err(|error| error.to_string())?;
        if dropped > 0 {
            tracing::info!(dropped, "dropped days of the index of messages that the log has dropped");
        }
        Ok(())
    }
}

/// Reports ready while partitions run. Never returns.
async fn report_status(mut status: watch::Receiver<Status>, component: &Component) -> Infallible {
    loop {
        match status.borrow_and_update().not_ready() {
            None => component.ready(),
            Some(why) => component.not_ready(why),
        }
        if status.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Writes the index, a step at a time.
struct IndexSink {
    index: MessageIndex,
    log: Log,
    /// A step should have many messages, and a topic few rows.
    pace: Pace,
    /// The coordinator whose opening was read last in each partition, as the index has it.
    owners: HashMap<u32, Option<u64>>,
}

impl IndexSink {
    fn new(index: MessageIndex, log: Log, pace: Pace) -> Self {
        Self { index, log, pace, owners: HashMap::new() }
    }

    /// The position of a partition. One that the log's start has passed is reset, as after a time without this sink that was
    /// longer than the retention: the runner would refuse it for good, but an index lacks nothing that the log still has once it
    /// is built from the log's start.
    async fn stored(&self, partition: u32) -> Result<Option<IndexPosition>, StoreError> {
        let Some(stored) = self.index.position(partition).await? else { return Ok(None) };
        let position = stored.position.next_offset;
        let start = self.log.start(Topic::MESSAGES, partition).await;
        let start = start
            .map_err(|error| StoreError { next: error.next(), ..StoreError::stop(error.to_string()).because(error) })?;
        if position >= start {
            return Ok(Some(stored));
        }
        tracing::warn!(partition, position, start, "the log has dropped messages that were not indexed: rebuilding");
        self.index.reset_partition(partition, position).await?;
        Ok(None)
    }
}

impl Sink for IndexSink {
    fn topic(&self) -> Topic {
        Topic::MESSAGES
    }

    fn remedy(&self) -> String {
        REMEDY.into()
    }

    async fn position(&mut self, partition: u32) -> Result<Option<ProjectionPosition>, StoreError> {
        let stored = self.stored(partition).await?;
        self.owners.insert(partition, stored.and_then(|stored| stored.owner));
        Ok(stored.map(|stored| stored.position))
    }

    async fn write(&mut self, writes: &[ProjectionWrite<'_, Batch>]) -> Result<Vec<WriteOutcome>, StoreError> {
        self.pace.wait(writes).await;
        let owner = |partition: u32| self.owners.get(&partition).copied().flatten();
        let steps = writes.iter().map(|write| fold(write.items, owner(write.partition)));
        let steps: Vec<IndexStep> = steps.collect::<Result<_, _>>()?;
        let indexed: Vec<ProjectionWrite<'_, IndexStep>> =
            writes.iter().zip(&steps).map(|(write, step)| write.with_items(step)).collect();
        let outcomes = self.index.write(&indexed).await?;
        self.pace.written(writes);
        for ((write, step), outcome) in writes.iter().zip(&steps).zip(&outcomes) {
            if *outcome == WriteOutcome::Applied {
                self.owners.insert(write.partition, step.owner);
                let messages: usize = step.rows.iter().map(|row| row.offsets.len()).sum();
                metrics::counter!(metric::INDEXED_MESSAGES.name).increment(messages as u64);
            }
        }
        Ok(outcomes)
    }
}

/// The rows of a batch. Pure.
///
/// A record that nothing can decode is no message, for the ring neither. One with a schema of a later version may be one: the
/// sink stops before it, since laggards would skip what the index passes over.
fn fold(batch: &Batch, mut owner: Option<u64>) -> Result<IndexStep, StoreError> {
    let mut topics: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut newest_ms = 0;
    for record in batch.iter() {
        newest_ms = newest_ms.max(record.timestamp_ms);
        let Some(value) = record.value else { continue };
        if record.key.is_empty() {
            owner = decoded(TopicOwner::decode(value), batch.partition(), record.offset)?.map(|it| it.nonce).or(owner);
            continue;
        }
        let Some(message) = decoded(Message::decode(value), batch.partition(), record.offset)? else { continue };
        if !message.is_late(owner) && !message.waits() {
            topics.entry(message.topic_id).or_default().push(record.offset);
        }
    }
    let rows = topics.into_iter().flat_map(|(topic_id, offsets)| {
        let rows =
            offsets.chunks(IndexRow::MAX_OFFSETS).map(|offsets| IndexRow { topic_id, offsets: offsets.to_vec() });
        rows.collect::<Vec<_>>()
    });
    Ok(IndexStep { day: u32::try_from(newest_ms / DAY_MS).unwrap_or_default(), rows: rows.collect(), owner })
}

/// What a record holds; `None` if that is nothing of any version.
fn decoded<T>(value: Result<T, DecodeError>, partition: u32, offset: u64) -> Result<Option<T>, StoreError> {
    match value {
        Ok(value) => Ok(Some(value)),
        Err(error @ DecodeError::SchemaId { .. }) => {
            let record = format!("{}/{partition}@{offset}", Topic::MESSAGES.name);
            let problem = "another version of Millrace wrote it; update the materializer";
            Err(StoreError::stop(format!("{record} cannot be indexed: {error}: {problem}")).because(error))
        }
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use millrace_contracts::topics::Delay;
    use millrace_log::Record;

    use super::*;

    fn message(topic_id: u64, delay: Delay, nonce: Option<u64>) -> Vec<u8> {
        let message = Message {
            topic_id,
            published_ms: 0,
            id: "id",
            delay,
            key: None,
            idempotency_key: nonce.map(|_| "key"),
            nonce,
            content_type: "text/plain",
            attributes: Vec::new(),
            body: b"body",
        };
        let mut value = Vec::new();
        message.encode(&mut value);
        value
    }

    fn opening(nonce: u64) -> Vec<u8> {
        let mut value = Vec::new();
        TopicOwner { nonce, url: String::new(), at_ms: 0 }.encode(&mut value);
        value
    }

    #[test]
    fn a_step_has_the_messages_that_can_be_handed_out() {
        let plain = |topic| (&b"t"[..], message(topic, Delay::None, None));
        let records: [(&[u8], Vec<u8>); 10] = [
            plain(7),
            plain(8),
            (b"t", message(7, Delay::Until(9), None)),
            (b"t", message(7, Delay::From(2), None)),
            (b"t", message(7, Delay::None, Some(1))),
            (b"", opening(2)),
            // Of the coordinator before.
            (b"t", message(7, Delay::None, Some(1))),
            (b"t", message(7, Delay::None, Some(2))),
            (b"t", b"none".to_vec()),
            plain(8),
        ];
        let mut batch = Batch::new(3);
        for (offset, (key, value)) in (100..).zip(&records) {
            batch.push(Record { offset, timestamp_ms: 3 * DAY_MS + 5, key, value: Some(value) });
        }
        let row = |topic_id, offsets: &[u64]| IndexRow { topic_id, offsets: offsets.to_vec() };
        let rows = vec![row(7, &[100, 103, 104, 107]), row(8, &[101, 109])];
        assert_eq!(fold(&batch, None), Ok(IndexStep { day: 3, rows, owner: Some(2) }));
        // With the owner of the step before.
        let mut late = Batch::new(3);
        late.push(Record { offset: 110, timestamp_ms: 0, key: b"t", value: Some(&records[4].1) });
        assert_eq!(fold(&late, Some(2)), Ok(IndexStep { day: 0, rows: Vec::new(), owner: Some(2) }));
    }

    #[test]
    fn a_record_of_a_later_version_is_not_passed_over() {
        for (key, mut value) in [(&b"t"[..], message(7, Delay::None, None)), (b"", opening(2))] {
            // The magic byte, then the schema.
            value[1..5].copy_from_slice(&9_999_u32.to_be_bytes());
            let mut batch = Batch::new(3);
            batch.push(Record { offset: 100, timestamp_ms: 0, key, value: Some(&value) });
            let error = fold(&batch, None).unwrap_err();
            assert!(error.to_string().starts_with("messages/3@100 cannot be indexed: schema id 9999"), "{error}");
        }
    }

    #[test]
    fn rows_are_bounded() {
        let mut batch = Batch::new(0);
        let value = message(7, Delay::None, None);
        let count = 2 * IndexRow::MAX_OFFSETS as u64 + 1;
        for offset in 0..count {
            batch.push(Record { offset, timestamp_ms: 0, key: b"t", value: Some(&value) });
        }
        let rows = fold(&batch, None).unwrap().rows;
        assert_eq!(rows.iter().map(|row| row.offsets.len()).collect::<Vec<_>>(), [1_024, 1_024, 1]);
        let all: Vec<u64> = rows.into_iter().flat_map(|row| row.offsets).collect();
        assert!(all.into_iter().eq(0..count));
    }
}
