//! Pauses in the counts of each partition: what a reader notices when a partition moves to another processor.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::ensure;
use millrace_contracts::Topic;
use millrace_log::{Batch, Limits, Log, PollOutcome};

use crate::numbers::{ms, percentile};
use crate::print;

/// The longest wait for the first counts of every partition.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Reads the hourly counts of every partition. Prints `READING` once each has counts; after the measurement prints `PAUSE`
/// with the median and the maximum of the partitions' longest pauses, in ms.
pub(crate) async fn run(log: Log, lasting: Duration) -> anyhow::Result<()> {
    let topics = log.describe().await?;
    let ends = topics.iter().filter(|topic| topic.topic == Topic::HOURLY).flat_map(|topic| &topic.partitions);
    let from: Vec<(u32, u64)> = (0..).zip(ends.map(|partition| partition.end)).collect();
    tokio::task::spawn_blocking(move || follow(&log, &from, lasting)).await?
}

fn follow(log: &Log, from: &[(u32, u64)], lasting: Duration) -> anyhow::Result<()> {
    let mut reader = log.reader(Topic::HOURLY, from)?;
    let mut batch = Batch::default();
    let mut shown = BTreeMap::new();
    let mut end = Instant::now() + TIMEOUT;
    let mut pauses: BTreeMap<u32, Duration> = BTreeMap::new();
    while Instant::now() < end {
        if !matches!(reader.poll(&mut batch, Limits::default())?, PollOutcome::Records) {
            continue;
        }
        let now = Instant::now();
        let before = shown.insert(batch.partition(), now);
        if let (Some(pause), Some(before)) = (pauses.get_mut(&batch.partition()), before) {
            *pause = (*pause).max(now - before);
        } else if pauses.is_empty() && shown.len() == from.len() {
            pauses = shown.keys().map(|&partition| (partition, Duration::ZERO)).collect();
            end = now + lasting;
            print("READING")?;
        }
    }
    ensure!(!pauses.is_empty(), "only {} of {} partitions have counts", shown.len(), from.len());
    // A pause at the end counts up to the end.
    let longest = pauses.iter().map(|(partition, pause)| (*pause).max(end.saturating_duration_since(shown[partition])));
    let mut longest: Vec<Duration> = longest.collect();
    let (median, longest) = (percentile(&mut longest, 0.5), percentile(&mut longest, 1.0));
    print(&format!("PAUSE {} {}", ms(median), ms(longest)))
}
