//! Restoring, as far as both engines share it: reading ranges of a topic, and the replay of input.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use millrace_contracts::{Position, Topic};

use crate::metric::Lag;
use crate::progress::RestoreProgress;
use crate::{Batch, Limits, LogError, PollOutcome, Reader, Stage, fault};

/// Why a restore failed.
#[derive(Debug)]
pub(crate) enum RestoreError {
    /// Some of its partitions failed: why, and what each has not processed, if it is known.
    Partitions(BTreeMap<u32, (LogError, Option<Lag>)>),
    /// The failure is not of particular partitions.
    All(LogError),
}

impl From<LogError> for RestoreError {
    fn from(error: LogError) -> Self {
        Self::All(error)
    }
}

impl RestoreError {
    /// Failures of partitions.
    pub(crate) fn partitions(errors: impl IntoIterator<Item = (u32, LogError)>) -> Self {
        let without_lag = |(partition, error)| (partition, (error, None));
        Self::Partitions(errors.into_iter().map(without_lag).collect())
    }

    /// A failure of one partition.
    pub(crate) fn of(partition: u32) -> impl FnOnce(LogError) -> Self {
        move |error| Self::partitions([(partition, error)])
    }
}

/// A number in a message to operators: `offset 5`, or `no offset`.
pub(crate) fn numbered(noun: &str, number: Option<u64>) -> String {
    number.map_or_else(|| format!("no {noun}"), |number| format!("{noun} {number}"))
}

/// The bounds of one batch of a restore.
const BATCH: Limits = Limits { records: 8_192, bytes: 4 << 20, wait: Duration::from_millis(100) };

/// The offsets to read of one partition. The record before `until` exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) partition: u32,
    pub(crate) from: u64,
    pub(crate) until: u64,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {} from offset {} to {}", self.partition, self.from, self.until)
    }
}

/// Passes every record of the ranges to `take`, in order, in bounded batches. `open` makes the reader. Fails if no
/// record arrives for `patience`.
pub(crate) fn read_ranges(
    open: impl FnOnce(&[(u32, u64)]) -> Result<Reader, LogError>,
    ranges: &[Range],
    patience: Duration,
    progress: &mut RestoreProgress<'_>,
    mut take: impl FnMut(&Batch) -> Result<(), LogError>,
) -> Result<(), RestoreError> {
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
                let unread: Vec<String> = open_ranges.values().map(ToString::to_string).collect();
                let detail = format!("restore: no readable record for {patience:?} in {}", unread.join(", "));
                let error = LogError::unavailable(detail);
                return Err(RestoreError::partitions(open_ranges.into_keys().map(|one| (one, error.clone()))));
            }
        }
        last = Instant::now();
        let Some(range) = open_ranges.get_mut(&batch.partition()) else { continue };
        let next = batch.next_offset().map_or(range.from, |next| next.min(range.until));
        batch.truncate_at(range.until);
        take(&batch).map_err(RestoreError::of(batch.partition()))?;
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
    /// The input position at which processing resumes.
    pub(crate) position: Position,
}

/// The position that a state contains, as the guard of the restore settled it.
pub(crate) fn resumed(contained: Option<Position>, next_offset: u64) -> Position {
    let contained = contained.filter(|position| position.next_offset == next_offset);
    contained.unwrap_or(Position { next_offset, ..Position::default() })
}

/// What to read of one partition's input before its processing resumes.
struct Replay<'a, S: Stage> {
    state: &'a mut S::State,
    /// Where the stage's replay begins; `None` if it needs none.
    from: Option<u64>,
    /// The record before the position, as the state has it; `None` once it was read.
    last_record: Option<u64>,
    next_offset: u64,
}

/// Replays the input that the restored states need, and refuses an input whose record before the position is another one
/// than the state contains: the log lost its end and was filled again, so what was appended since is below the position.
/// `bounds_of` returns the first offset and the end of a partition of the input.
pub(crate) fn replay<S: Stage>(
    stage: &S,
    open: impl FnOnce(Topic, &[(u32, u64)]) -> Result<Reader, LogError>,
    bounds_of: impl Fn(u32) -> Result<(u64, u64), LogError>,
    restored: &mut [RestoredPartition<S>],
    patience: Duration,
    progress: &mut RestoreProgress<'_>,
) -> Result<(), RestoreError> {
    let (mut ranges, mut replays) = (Vec::new(), BTreeMap::new());
    for one in restored {
        let (next_offset, last_record) = (one.position.next_offset, fault::named_record(one.position.last_record));
        let from = stage.replay_from(&one.state).filter(|&from| from < next_offset);
        if from.is_none() && last_record.is_none() {
            continue;
        }
        let (start, end) = bounds_of(one.partition).map_err(RestoreError::of(one.partition))?;
        // Retention dropped what is below the start. A position past the end is refused when reading begins.
        if start < next_offset && next_offset <= end {
            let first = from.unwrap_or(next_offset - 1).max(start);
            ranges.push(Range { partition: one.partition, from: first, until: next_offset });
            replays.insert(one.partition, Replay::<S> { state: &mut one.state, from, last_record, next_offset });
        }
    }
    let open = |from: &[_]| open(stage.input(), from);
    read_ranges(open, &ranges, patience, progress, |batch| {
        let replay = replays.get_mut(&batch.partition()).expect("the reader reads only assigned partitions");
        let last = batch.last().filter(|record| record.offset + 1 == replay.next_offset);
        if last.is_some_and(|record| Some(record.fingerprint()) == replay.last_record) {
            replay.last_record = None;
        }
        if replay.from.is_some() {
            stage.replay(replay.state, batch);
        }
        Ok(())
    })?;
    let another = |(&partition, replay): (&u32, &Replay<'_, S>)| {
        let (input, next_offset) = (stage.input().name, replay.next_offset);
        let error = LogError::refused(format!(
            "{input}/{partition}: the record before offset {next_offset} is not the one that the state contains: the log \
             lost its end and was filled again, or the topic was recreated. Records below that offset would never count"
        ));
        (partition, error)
    };
    let others: Vec<_> = replays.iter().filter(|(_, replay)| replay.last_record.is_some()).map(another).collect();
    if others.is_empty() { Ok(()) } else { Err(RestoreError::partitions(others)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_to_operators_are_words() {
        assert_eq!((numbered("offset", Some(5)), numbered("offset", None)), ("offset 5".into(), "no offset".into()));
        let range = Range { partition: 1, from: 5, until: 9 };
        assert_eq!(range.to_string(), "partition 1 from offset 5 to 9");
    }
}
