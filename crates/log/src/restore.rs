//! Restoring, as far as both engines share it: reading ranges of a topic, and the replay of input.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use millrace_contracts::Topic;

use crate::progress::RestoreProgress;
use crate::{Batch, Limits, LogError, PollOutcome, Reader, Stage};

/// The bounds of one batch of a restore.
const BATCH: Limits = Limits { records: 8_192, bytes: 4 << 20, wait: Duration::from_millis(100) };

/// The offsets to read of one partition. The record before `until` exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) partition: u32,
    pub(crate) from: u64,
    pub(crate) until: u64,
}

/// Passes every record of the ranges to `take`, in order, in bounded batches. `open` makes the reader. Fails if no
/// record arrives for `patience`.
pub(crate) fn read_ranges(
    open: impl FnOnce(&[(u32, u64)]) -> Result<Reader, LogError>,
    ranges: &[Range],
    patience: Duration,
    progress: &mut RestoreProgress<'_>,
    mut take: impl FnMut(&Batch) -> Result<(), LogError>,
) -> Result<(), LogError> {
    let ranges = ranges.iter().filter(|range| range.from < range.until);
    let mut open_ranges: BTreeMap<u32, Range> = ranges.map(|range| (range.partition, *range)).collect();
    if open_ranges.is_empty() {
        return Ok(());
    }
    let from: Vec<(u32, u64)> = open_ranges.values().map(|range| (range.partition, range.from)).collect();
    progress.expect(open_ranges.values().map(|range| range.until - range.from).sum());
    let mut reader = open(&from)?;
    let (mut batch, mut last) = (Batch::default(), Instant::now());
    while !open_ranges.is_empty() {
        progress.check()?;
        match reader.poll(&mut batch, BATCH)? {
            PollOutcome::Records => {}
            // An end is not enough: the log extends to `until`, so every record before it is waited for.
            PollOutcome::CaughtUp { .. } | PollOutcome::Nothing if last.elapsed() < patience => continue,
            PollOutcome::CaughtUp { .. } | PollOutcome::Nothing => {
                return Err(LogError::unavailable(format!(
                    "restore: no readable record for {patience:?} in {open_ranges:?}"
                )));
            }
        }
        last = Instant::now();
        let Some(range) = open_ranges.get_mut(&batch.partition()) else { continue };
        let next = batch.next_offset().map_or(range.from, |next| next.min(range.until));
        batch.truncate_at(range.until);
        take(&batch)?;
        progress.advance(&batch, next - range.from)?;
        range.from = next;
        if range.from == range.until {
            open_ranges.remove(&batch.partition());
            reader.unassign(batch.partition());
        }
    }
    Ok(())
}

/// A partition whose changes are loaded.
pub(crate) struct RestoredPartition<S: Stage> {
    pub(crate) partition: u32,
    pub(crate) state: S::State,
    /// The input offset at which processing resumes.
    pub(crate) next_offset: u64,
}

/// Replays the input that the restored states need. `start_of` returns the first offset of a partition of the input.
pub(crate) fn replay<S: Stage>(
    stage: &S,
    open: impl FnOnce(Topic, &[(u32, u64)]) -> Result<Reader, LogError>,
    start_of: impl Fn(u32) -> Result<u64, LogError>,
    restored: &mut [RestoredPartition<S>],
    patience: Duration,
    progress: &mut RestoreProgress<'_>,
) -> Result<(), LogError> {
    let mut ranges = Vec::new();
    for one in &*restored {
        if let Some(from) = stage.replay_from(&one.state) {
            let from = from.max(start_of(one.partition)?);
            ranges.push(Range { partition: one.partition, from, until: one.next_offset });
        }
    }
    let mut states: BTreeMap<u32, &mut S::State> =
        restored.iter_mut().map(|one| (one.partition, &mut one.state)).collect();
    read_ranges(
        |from| open(stage.input(), from),
        &ranges,
        patience,
        progress,
        |batch| {
            let state = states.get_mut(&batch.partition()).expect("the reader reads only assigned partitions");
            stage.replay(state, batch);
            Ok(())
        },
    )
}
