//! Events into records of the log, and the log's report into outcome codes.

use std::ops::Range;
use std::time::Duration;

use millrace_contracts::{Code, EventRef, Topic, UserHash, partition_of};
use millrace_log::{Log, NewRecord, Outcome, Refusal};
use millrace_service::Problem;

/// Where a record stands in the log: its partition and offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) partition: u32,
    pub(crate) offset: u64,
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

    /// Appends all, and says how each ended, in order.
    pub(crate) async fn append(&self, log: &Log) -> Vec<Result<Position, Problem>> {
        if self.records.is_empty() {
            return Vec::new();
        }
        let record = |(partition, key, value): &(u32, Range<usize>, Range<usize>)| NewRecord {
            topic: Topic::EVENTS,
            partition: *partition,
            key: &self.keys[key.clone()],
            value: &self.values[value.clone()],
        };
        let records: Vec<_> = self.records.iter().map(record).collect();
        let outcomes = log.append(&records).await;
        records.iter().zip(outcomes).map(|(record, outcome)| result_of(record.partition, outcome)).collect()
    }
}

/// Appends one event.
pub(crate) async fn append_one(log: &Log, event: &EventRef<'_>) -> Result<Position, Problem> {
    let mut value = Vec::with_capacity(event.user.len() + 32);
    event.encode(&mut value);
    let partition = partition_of(UserHash::of(event.user), log.partitions());
    let receipts =
        log.append(&[NewRecord { topic: Topic::EVENTS, partition, key: event.user.as_bytes(), value: &value }]);
    let outcome = receipts.await.first().copied().unwrap_or(Outcome::Unknown);
    result_of(partition, outcome)
}

fn result_of(partition: u32, outcome: Outcome) -> Result<Position, Problem> {
    let (code, detail, after) = match outcome {
        Outcome::Acknowledged(offset) => return Ok(Position { partition, offset }),
        Outcome::Refused(Refusal::Full) => (Code::Overloaded, "the queue to the log is full; nothing was stored", 1),
        Outcome::Refused(Refusal::TooLarge) => (Code::TooLarge, "the record is larger than the log takes", 0),
        Outcome::Refused(Refusal::ShuttingDown) => (Code::ShuttingDown, "the process is ending; nothing was stored", 1),
        Outcome::Refused(Refusal::Unavailable) => {
            (Code::Unavailable, "the log cannot be reached; nothing was stored", 2)
        }
        Outcome::Refused(Refusal::DiskFull) => (Code::DiskFull, "the disk is full; nothing was stored", 30),
        Outcome::Unknown => (Code::OutcomeUnknown, "the event may or may not have been stored", 1),
    };
    let problem = Problem::new(code, detail);
    Err(if after > 0 { problem.retry_after(Duration::from_secs(after)) } else { problem })
}
