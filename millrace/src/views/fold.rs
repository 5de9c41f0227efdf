//! Reads one partition of `analytics.hourly` from its start to its end. Blocking: the readers of the log are.

use std::time::{Duration, Instant};

use millrace_contracts::{HourlyCount, Topic};
use millrace_log::{Batch, Limits, Log, LogError, PollOutcome};

/// A reader that has not come to the end without any record for this long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(30);
const STEP: Limits = Limits { records: 10_000, bytes: 4 << 20, wait: Duration::from_millis(200) };

/// Gives every count of the partition to `each`, with its offset. Records that are no counts of it are passed over, as the
/// materializer does.
pub(super) fn each_count(
    log: &Log,
    partition: u32,
    start: u64,
    mut each: impl FnMut(u64, HourlyCount),
) -> Result<(), LogError> {
    let mut reader = log.reader(Topic::HOURLY, &[(partition, start)])?;
    let mut batch = Batch::default();
    let mut last_news = Instant::now();
    loop {
        match reader.poll(&mut batch, STEP)? {
            PollOutcome::Records => {
                last_news = Instant::now();
                for record in batch.iter() {
                    let count = record.value.and_then(|value| HourlyCount::decode(value).ok());
                    if let Some(count) = count.filter(|count| count.partition == partition) {
                        each(record.offset, count);
                    }
                }
            }
            PollOutcome::CaughtUp { .. } => return Ok(()),
            PollOutcome::Nothing if last_news.elapsed() < STUCK_AFTER => {}
            PollOutcome::Nothing => {
                return Err(LogError::unavailable(format!("no answer from the log for {STUCK_AFTER:?}")));
            }
        }
    }
}
