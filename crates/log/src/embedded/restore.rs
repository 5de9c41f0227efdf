//! Restores a stage's state from the newest record of each key of its changes.

use std::sync::Arc;
use std::time::Duration;

use millrace_contracts::Position;

use super::layout::{input_key, read_number};
use super::partition::Partition;
use super::reader::Reader;
use super::{Shared, codec, damaged};
use crate::metric::Lag;
use crate::progress::RestoreProgress;
use crate::restore::{RestoreError, RestoredPartition, numbered, replay, resumed};
use crate::restoring::{RestoreResult, RestoreTask};
use crate::{LogError, RunOptions, RunnerKey, Stage, StageError, fault};

/// No timeout: no other member could take over.
const TIMEOUT: Duration = Duration::MAX;
/// The replay fails if no record arrives for this long: the input is on this machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Changes loaded between two reports of progress.
const REPORT_INTERVAL: u64 = 256;

/// Restores partitions: the state of each as of the newest step, and the position at which its input resumes.
pub(super) fn restore<S: Stage>(shared: &Arc<Shared>, stage: &S, task: &RestoreTask<'_, S>) -> RestoreResult<S> {
    let RestoreTask { partitions, options, canceled, .. } = *task;
    let mut progress = RestoreProgress::begin(options, canceled, partitions, TIMEOUT);
    for &partition in partitions {
        let latest = shared.layout.get(stage.changes(), partition)?.latest.as_ref();
        progress.expect(latest.map_or(0, |latest| latest.approximate_len() as u64));
    }
    let mut restored = Vec::new();
    for &partition in partitions {
        let loaded = load(shared, stage, options, partition, &mut progress);
        restored.push(loaded.map_err(RestoreError::of(partition))?);
    }
    let open = |topic, from: &[_]| Reader::open(shared, topic, from).map(crate::Reader::Embedded);
    let bounds_of = |partition| {
        let input = shared.layout.get(stage.input(), partition)?;
        Ok((input.start(), input.end()))
    };
    replay(stage, open, bounds_of, &mut restored, PATIENCE, &mut progress)?;
    progress.complete();
    Ok(restored)
}

/// Adds what the failed partitions have not processed.
pub(super) fn with_lags<S: Stage>(
    shared: &Shared,
    stage: &S,
    options: &RunOptions,
    mut error: RestoreError,
) -> RestoreError {
    if let RestoreError::Partitions(failed) = &mut error {
        for (&partition, (_, lag)) in failed {
            let Ok(input) = shared.layout.get(stage.input(), partition) else { continue };
            let read = read_number(&shared.layout.meta, input_key(&options.role, stage.input(), partition).as_bytes());
            let Ok(position) = read else { continue };
            let position = position.unwrap_or_else(|| input.start());
            *lag = Some(Lag { stable: input.end().saturating_sub(position), open: 0 });
        }
    }
    error
}

fn load<S: Stage>(
    shared: &Shared,
    stage: &S,
    options: &RunOptions,
    partition: u32,
    progress: &mut RestoreProgress<'_>,
) -> Result<RestoredPartition<S>, LogError> {
    let changes = shared.layout.get(stage.changes(), partition)?;
    let shown = changes.shown();
    let latest = changes.latest.as_ref();
    let latest = latest.ok_or_else(|| LogError::refused(format!("{shown}: changes need a compacted topic")))?;
    let mut state = stage.new_state(partition);
    let (mut position, mut has_changes) = (None, false);
    let (mut records, mut bytes) = (0, 0);
    for guard in latest.iter() {
        let (_, value) = guard.into_inner().map_err(|error| damaged(latest.path(), &shown, error))?;
        (records, bytes) = (records + 1, bytes + value.len() as u64);
        if records == REPORT_INTERVAL {
            progress.advance_by(records, bytes, records)?;
            (records, bytes) = (0, 0);
        }
        let record = value.get(..8).and_then(codec::number).and_then(|offset| codec::decode(offset, value.get(8..)?));
        let record = record.ok_or_else(|| changes.broken("a change", 0))?;
        let Some(value) = record.value else { continue };
        match RunnerKey::parse(record.key) {
            Some(RunnerKey::Position(of)) if of == partition => {
                let decoded = Position::decode(value)
                    .map_err(|error| LogError::damaged(format!("{shown}: pos/{partition}: {error}")).because(error))?;
                position = Some(decoded);
            }
            Some(RunnerKey::Position(_) | RunnerKey::Marker(_)) => {}
            None => {
                let loaded = stage.load(&mut state, record.key, value);
                loaded.map_err(|error| match error {
                    StageError::ForeignChange { .. }
                    | StageError::ForeignRecord { .. }
                    | StageError::ReservedKey { .. } => LogError::refused(format!("{shown}: {error}")).because(error),
                    StageError::Unavailable(failure) => LogError::Unavailable(failure),
                })?;
                has_changes = true;
            }
        }
    }
    progress.advance_by(records, bytes, records)?;
    let input = shared.layout.get(stage.input(), partition)?;
    let read = read_number(&shared.layout.meta, input_key(&options.role, stage.input(), partition).as_bytes())?;
    let contained = position.as_ref().map(|position| position.next_offset);
    let next_offset = match fault::unchecked_position(read, contained) {
        Some(unchecked) => unchecked,
        None => check_position(input, changes, contained, read, has_changes)?,
    };
    Ok(RestoredPartition { partition, state, position: resumed(position, next_offset) })
}

/// The position that the state contains must be the input position that was written with it.
fn check_position(
    input: &Partition,
    changes: &Partition,
    position: Option<u64>,
    read: Option<u64>,
    has_changes: bool,
) -> Result<u64, LogError> {
    let (input_shown, changes_shown, start) = (input.shown(), changes.shown(), input.start());
    match (position, read) {
        (Some(position), Some(read)) if position == read => Ok(position),
        (None, None) if !has_changes && start == 0 => Ok(0),
        (None, None) => Err(LogError::refused(format!(
            "{input_shown} has no position, starts at {start}, and {changes_shown} has changes: {has_changes}"
        ))),
        (contained, read) => Err(LogError::refused(format!(
            "{changes_shown} contains {} of {input_shown}, but {} was committed with it",
            numbered("position", contained),
            numbered("offset", read)
        ))),
    }
}
