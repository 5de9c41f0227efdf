//! Checks the processor's counts: a rate of wrong counts is worthless.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::ensure;
use millrace_contracts::{CountedPosition, HourlyCount, Topic};
use millrace_log::{Batch, Limits, Log, PollOutcome};

const TIMEOUT: Duration = Duration::from_secs(20);

/// Reads the newest count of every hour and partition and compares their sums. Blocking.
pub(crate) fn run(log: &Log, events: u64, users: Option<u64>) -> anyhow::Result<()> {
    let from: Vec<_> = (0..log.partitions(Topic::HOURLY)).map(|partition| (partition, 0)).collect();
    let mut reader = log.reader(Topic::HOURLY, &from)?;
    let mut newest = BTreeMap::new();
    let mut unread: BTreeSet<_> = (0..log.partitions(Topic::HOURLY)).collect();
    let mut batch = Batch::new(0);
    let deadline = Instant::now() + TIMEOUT;
    while !unread.is_empty() {
        ensure!(Instant::now() < deadline, "the hourly counts were not read in time");
        match reader.poll(&mut batch, Limits::default())? {
            PollOutcome::Records => {
                for value in batch.iter().filter_map(|record| record.value) {
                    // Not the position at the end of a step.
                    let count = match HourlyCount::decode(value) {
                        Err(_) if CountedPosition::decode(value).is_ok() => continue,
                        decoded => decoded?,
                    };
                    newest.insert((count.hour, count.partition), count);
                }
            }
            PollOutcome::CaughtUp { partition, .. } => drop(unread.remove(&partition)),
            PollOutcome::Nothing => {}
        }
    }
    let counted: u64 = newest.values().map(|count| count.clicks + count.impressions).sum();
    ensure!(counted == events, "{events} events written, {counted} counted");
    let seen: u64 = newest.values().map(|count| count.unique_users).sum();
    ensure!(users.is_none_or(|users| users == seen), "{users:?} users written, {seen} counted");
    Ok(())
}
