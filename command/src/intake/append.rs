//! Appends events to the log, and turns the log's report into outcome codes.
//!
//! An answer waits for the report, unless its durability is `cached` and the log is healthy: then it is sent as soon as the
//! records are enqueued, and the report is counted later. The queue belongs to the log, which bounds it.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use millrace_contracts::{Code, EventRef, Refusal, Topic, UserHash, partition_of};
use millrace_log::{Log, NewRecord, Outcome, Receipts, RefusalCause};
use millrace_service::spread_retry;
use tokio_util::task::TaskTracker;

use super::Durability;
use crate::metrics::Metrics;

/// The position of a record in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) partition: u32,
    pub(crate) offset: u64,
}

/// The outcome of one event: its position, if the answer waited for the log's report, or why it was refused.
pub(crate) type Appended = Result<Option<Position>, Refusal>;

/// Appends events to the log.
pub(crate) struct Appender {
    log: Log,
    metrics: Arc<Metrics>,
    /// Tasks that wait for the reports on events that were answered early.
    early: TaskTracker,
}

impl Appender {
    pub(crate) fn new(log: Log, metrics: Arc<Metrics>) -> Self {
        Self { log, metrics, early: TaskTracker::new() }
    }

    pub(crate) fn partitions(&self) -> u32 {
        self.log.partitions(Topic::EVENTS)
    }

    /// Appends one event.
    pub(crate) async fn one(&self, event: &EventRef<'_>, durability: Durability) -> Appended {
        let id = event.event_id.map_or(0, str::len);
        let mut value = Vec::with_capacity(event.user.len() + id + 32);
        event.encode(&mut value);
        let partition = partition_of(UserHash::of(event.user), self.partitions());
        let record = NewRecord { topic: Topic::EVENTS, partition, key: event.user.as_bytes(), value: &value };
        let early = self.answers_early(durability);
        let receipts = self.log.append(&[record]);
        if early {
            let now = receipts.refused(0).map_or(Ok(None), |why| Err(refusal_of(why)));
            self.follow(receipts, vec![now.is_err()]);
            return now;
        }
        let outcome = self.report(receipts, 1).await.first().copied().unwrap_or(Outcome::Unknown);
        appended(partition, outcome)
    }

    /// Appends many events. Returns their outcomes in order.
    pub(crate) async fn all(&self, events: &Encoded, durability: Durability) -> Vec<Appended> {
        if events.records.is_empty() {
            return Vec::new();
        }
        let records: Vec<_> = events.records.iter().map(|record| events.record(record)).collect();
        let early = self.answers_early(durability);
        let receipts = self.log.append(&records);
        if early {
            let refused = |index| receipts.refused(index).map_or(Ok(None), |why| Err(refusal_of(why)));
            let outcomes: Vec<Appended> = (0..records.len()).map(refused).collect();
            self.follow(receipts, outcomes.iter().map(Result::is_err).collect());
            return outcomes;
        }
        let outcomes = self.report(receipts, records.len()).await;
        records.iter().zip(outcomes).map(|(record, outcome)| appended(record.partition, outcome)).collect()
    }

    /// Whether to answer before the log's report. Not while the log is unhealthy: most of its reports are refusals then.
    fn answers_early(&self, durability: Durability) -> bool {
        durability == Durability::Cached && self.log.health().is_ok()
    }

    /// Waits for the log's report. If the request is dropped meanwhile, the outcome of its events is unknown.
    async fn report(&self, receipts: Receipts, events: usize) -> Vec<Outcome> {
        let mut unreported = Unreported { metrics: &self.metrics, events: events as u64 };
        let outcomes = receipts.await;
        unreported.events = 0;
        outcomes
    }

    /// Counts the outcomes of records whose events are answered now, except those `refused` already.
    fn follow(&self, receipts: Receipts, refused: Vec<bool>) {
        let early = refused.iter().filter(|&&refused| !refused).count();
        if early == 0 {
            return;
        }
        self.metrics.answered_early(u32::try_from(early).unwrap_or(u32::MAX));
        let metrics = self.metrics.clone();
        // One task per request: it ends with its report, so the log's queue bounds the number of tasks.
        self.early.spawn(async move {
            let outcomes = receipts.await.into_iter().zip(refused);
            metrics.reported(outcomes.filter_map(|(outcome, refused)| (!refused).then_some(outcome)));
        });
    }

    /// Waits for the reports on all events that were answered early, at most `timeout`.
    pub(crate) async fn drain(&self, timeout: Duration) {
        self.early.close();
        if tokio::time::timeout(timeout, self.early.wait()).await.is_err() {
            let requests = self.early.len();
            tracing::warn!(requests, "the log has not reported on all requests that were answered early");
        }
    }
}

/// Events of a request that may end without an answer: they count as unknown then.
struct Unreported<'a> {
    metrics: &'a Metrics,
    events: u64,
}

impl Drop for Unreported<'_> {
    fn drop(&mut self) {
        if self.events > 0 {
            self.metrics.count_many(Code::OutcomeUnknown, self.events);
        }
    }
}

/// Events of one request, encoded one after the other into one buffer.
#[derive(Default)]
pub(crate) struct Encoded {
    values: Vec<u8>,
    records: Vec<(u32, Range<usize>, Range<usize>)>,
    keys: Vec<u8>,
}

impl Encoded {
    pub(crate) fn push(&mut self, event: &EventRef<'_>, partitions: u32) {
        let (value, key) = (self.values.len(), self.keys.len());
        event.encode(&mut self.values);
        self.keys.extend_from_slice(event.user.as_bytes());
        let partition = partition_of(UserHash::of(event.user), partitions);
        self.records.push((partition, key..self.keys.len(), value..self.values.len()));
    }

    fn record(&self, (partition, key, value): &(u32, Range<usize>, Range<usize>)) -> NewRecord<'_> {
        let (key, value) = (&self.keys[key.clone()], &self.values[value.clone()]);
        NewRecord { topic: Topic::EVENTS, partition: *partition, key, value }
    }
}

fn appended(partition: u32, outcome: Outcome) -> Appended {
    match outcome {
        Outcome::Acknowledged(offset) => Ok(Some(Position { partition, offset })),
        Outcome::Refused(why) => Err(refusal_of(why)),
        Outcome::Unknown => {
            let refusal = Refusal::new(Code::OutcomeUnknown, "the event may or may not have been stored");
            Err(refusal.retry_after(spread_retry(Duration::from_secs(1))))
        }
    }
}

pub(crate) fn refusal_of(cause: RefusalCause) -> Refusal {
    let (code, detail, seconds) = match cause {
        RefusalCause::TooLarge => return Refusal::new(Code::TooLarge, "the record is larger than the log accepts"),
        RefusalCause::Full => (Code::Overloaded, "the queue to the log is full; nothing was stored", 1),
        RefusalCause::ShuttingDown => (Code::ShuttingDown, "the process is shutting down; nothing was stored", 1),
        RefusalCause::Unavailable => (Code::Unavailable, "the log is unreachable; nothing was stored", 2),
        RefusalCause::DiskFull => (Code::DiskFull, "the disk is full; nothing was stored", 30),
    };
    Refusal::new(code, detail).retry_after(spread_retry(Duration::from_secs(seconds)))
}
