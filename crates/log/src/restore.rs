//! What the restores of both engines have in common: reading ranges of a topic, the input once more among them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use millrace_contracts::Topic;

use crate::progress::Restoring;
use crate::{Batch, Limits, LogError, Polled, Reader, Stage};

/// Bounds of one batch of a restore.
const BATCH: Limits = Limits { records: 8_192, bytes: 4 << 20, wait: Duration::from_millis(100) };

/// The offsets to be read of one partition; the record before `until` is known to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) partition: u32,
    pub(crate) from: u64,
    pub(crate) until: u64,
}

/// Hands every record of the ranges to `take`, in order, in bounded batches. `open` makes the reader. Gives up when
/// nothing comes for as long as `patience`.
pub(crate) fn read_ranges(
    open: impl FnOnce(&[(u32, u64)]) -> Result<Reader, LogError>,
    ranges: &[Range],
    patience: Duration,
    restoring: &mut Restoring<'_>,
    mut take: impl FnMut(&Batch) -> Result<(), LogError>,
) -> Result<(), LogError> {
    let ranges = ranges.iter().filter(|range| range.from < range.until);
    let mut open_ranges: BTreeMap<u32, Range> = ranges.map(|range| (range.partition, *range)).collect();
    if open_ranges.is_empty() {
        return Ok(());
    }
    let from: Vec<(u32, u64)> = open_ranges.values().map(|range| (range.partition, range.from)).collect();
    restoring.expect(open_ranges.values().map(|range| range.until - range.from).sum());
    let mut reader = open(&from)?;
    let (mut batch, mut last) = (Batch::default(), Instant::now());
    while !open_ranges.is_empty() {
        restoring.going_on()?;
        match reader.poll(&mut batch, BATCH)? {
            Polled::Records => {}
            // The end says nothing: the log is known to reach farther, and every record before `until` is awaited.
            Polled::CaughtUp { .. } | Polled::Nothing if last.elapsed() < patience => continue,
            Polled::CaughtUp { .. } | Polled::Nothing => {
                return Err(LogError::Unavailable(format!(
                    "restore: nothing to read for {patience:?} in {open_ranges:?}"
                )));
            }
        }
        last = Instant::now();
        let Some(range) = open_ranges.get_mut(&batch.partition()) else { continue };
        let next = batch.next_offset().map_or(range.from, |next| next.min(range.until));
        batch.cut_at(range.until);
        take(&batch)?;
        restoring.took(&batch, next - range.from)?;
        range.from = next;
        if range.from == range.until {
            open_ranges.remove(&batch.partition());
            reader.leave(batch.partition());
        }
    }
    Ok(())
}

/// A partition whose changes are loaded.
pub(crate) struct Restored<S: Stage> {
    pub(crate) partition: u32,
    pub(crate) state: S::State,
    /// The input offset to go on from.
    pub(crate) next_offset: u64,
}

/// Shows the stage what it wants to see again of its input. `start_of` says where a partition of the input begins.
pub(crate) fn replay<S: Stage>(
    stage: &S,
    open: impl FnOnce(Topic, &[(u32, u64)]) -> Result<Reader, LogError>,
    start_of: impl Fn(u32) -> Result<u64, LogError>,
    restored: &mut [Restored<S>],
    patience: Duration,
    restoring: &mut Restoring<'_>,
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
        restoring,
        |batch| {
            let own = states.get_mut(&batch.partition()).expect("only what was asked for is read");
            stage.replay(own, batch);
            Ok(())
        },
    )
}
