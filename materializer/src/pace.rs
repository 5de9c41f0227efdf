//! The pace of a sink: fewer writes, which have more records each.

use std::collections::HashMap;
use std::time::Duration;

use millrace_contracts::ProjectionWrite;
use millrace_log::{Batch, Limits};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Delays the writes of a sink.
#[derive(Debug)]
pub(crate) struct Pace {
    interval: Duration,
    /// Those of a step.
    limits: Limits,
    stop: CancellationToken,
    /// When each partition was written last.
    written: HashMap<u32, Instant>,
}

impl Pace {
    /// At least `interval` between two writes of a partition, unless the step is full or `stop` is canceled.
    pub(crate) fn new(interval: Duration, limits: Limits, stop: CancellationToken) -> Self {
        Self { interval, limits, stop, written: HashMap::new() }
    }

    /// Waits until these may be written.
    pub(crate) async fn wait(&self, writes: &[ProjectionWrite<'_, Batch>]) {
        if let Some(due) = self.due(writes) {
            self.stop.run_until_cancelled(tokio::time::sleep_until(due)).await;
        }
    }

    /// When these may be written; `None` for now.
    fn due(&self, writes: &[ProjectionWrite<'_, Batch>]) -> Option<Instant> {
        let records: usize = writes.iter().map(|write| write.items.len()).sum();
        let bytes: usize = writes.iter().map(|write| write.items.bytes()).sum();
        // A batch ends before the record that would exceed its bytes.
        if records >= self.limits.records || bytes >= self.limits.bytes / 2 {
            return None;
        }
        let last = writes.iter().filter_map(|write| self.written.get(&write.partition)).max();
        last.map(|&last| last + self.interval)
    }

    /// Records that these were written.
    pub(crate) fn written(&mut self, writes: &[ProjectionWrite<'_, Batch>]) {
        let now = Instant::now();
        self.written.extend(writes.iter().map(|write| (write.partition, now)));
    }
}

#[cfg(test)]
mod tests {
    use millrace_log::Record;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(1);

    fn write(items: &Batch) -> ProjectionWrite<'_, Batch> {
        let (partition, next) = (items.partition(), items.next_offset().unwrap());
        ProjectionWrite { partition, expected: None, next, last_record: None, caught_up: false, counted: None, items }
    }

    fn batch(partition: u32, records: u64) -> Batch {
        let mut batch = Batch::new(partition);
        for offset in 0..records {
            batch.push(Record { offset, timestamp_ms: 0, key: b"k", value: Some(b"v") });
        }
        batch
    }

    #[test]
    fn writes_are_an_interval_apart_unless_they_are_full() {
        let limits = Limits { records: 10, ..Limits::default() };
        let mut pace = Pace::new(INTERVAL, limits, CancellationToken::new());
        let (small, other, full) = (batch(0, 1), batch(1, 1), batch(0, 10));
        assert_eq!(pace.due(&[write(&small)]), None, "the first write of a partition");
        pace.written(&[write(&small)]);
        let due = pace.written[&0] + INTERVAL;
        assert_eq!(pace.due(&[write(&small)]), Some(due));
        assert_eq!(pace.due(&[write(&other), write(&small)]), Some(due));
        assert_eq!(pace.due(&[write(&other)]), None, "another partition");
        assert_eq!(pace.due(&[write(&full)]), None, "a full step");
    }

    #[tokio::test]
    async fn a_shutdown_ends_the_wait() {
        let stop = CancellationToken::new();
        let mut pace = Pace::new(Duration::from_hours(24), Limits::default(), stop.clone());
        let small = batch(0, 1);
        pace.written(&[write(&small)]);
        stop.cancel();
        pace.wait(&[write(&small)]).await;
    }
}
