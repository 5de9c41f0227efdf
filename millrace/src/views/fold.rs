//! Reads one partition of `analytics.hourly` from start to end. Blocking, like the readers of the log.

use std::time::{Duration, Instant};

use millrace_contracts::{HourlyCount, Topic};
use millrace_log::{Batch, Limits, Log, LogError, PollOutcome};

/// A read without a record and without the end for this long fails.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
const STEP: Limits = Limits { records: 10_000, bytes: 4 << 20, wait: Duration::from_millis(200) };

/// Passes every count of the partition to `each`, with its offset. Skips other records, like the materializer.
pub(super) fn each_count(
    log: &Log,
    partition: u32,
    start: u64,
    mut each: impl FnMut(u64, HourlyCount),
) -> Result<(), LogError> {
    let mut reader = log.reader(Topic::HOURLY, &[(partition, start)])?;
    let mut batch = Batch::default();
    let mut last_progress = Instant::now();
    loop {
        match reader.poll(&mut batch, STEP)? {
            PollOutcome::Records => {
                last_progress = Instant::now();
                for record in batch.iter() {
                    let count = record.value.and_then(|value| HourlyCount::decode(value).ok());
                    if let Some(count) = count.filter(|count| count.partition == partition) {
                        each(record.offset, count);
                    }
                }
            }
            PollOutcome::CaughtUp { .. } => return Ok(()),
            PollOutcome::Nothing if last_progress.elapsed() < STALL_TIMEOUT => {}
            PollOutcome::Nothing => {
                return Err(LogError::unavailable(format!("the log returned nothing for {STALL_TIMEOUT:?}")));
            }
        }
    }
}
