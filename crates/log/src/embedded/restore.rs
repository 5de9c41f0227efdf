//! Restoring a stage's state from the newest record of each key of its changes.

use std::sync::Arc;
use std::time::Duration;

use millrace_contracts::{Position, StateKey};
use tokio_util::sync::CancellationToken;

use super::layout::{Partition, input_key, read_number};
use super::reader::Reader;
use super::{Shared, codec, damaged};
use crate::fault::sabotaged;
use crate::progress::Restoring;
use crate::restore::{Restored, replay};
use crate::{LogError, RunOptions, Stage, StageError};

/// Nobody else takes over here, so a restore may take its time; the input is on this machine, so it is there at once.
const LONGEST: Duration = Duration::MAX;
const PATIENCE: Duration = Duration::from_secs(30);
/// So many changes are loaded between two looks at the clock.
const TELL_EVERY: u64 = 256;

/// The state of every partition as of its newest step, and where its input goes on.
pub(super) fn restore<S: Stage>(
    shared: &Arc<Shared>,
    stage: &S,
    options: &RunOptions,
    stop: &CancellationToken,
) -> Result<Vec<Restored<S>>, LogError> {
    let partitions: Vec<u32> = (0..shared.config.partitions).collect();
    let mut restoring = Restoring::begin(options, stop, &partitions, LONGEST);
    for &partition in &partitions {
        let latest = shared.layout.get(stage.changes(), partition)?.latest.as_ref();
        restoring.expect(latest.map_or(0, |latest| latest.approximate_len() as u64));
    }
    let mut restored = Vec::new();
    for partition in partitions {
        restored.push(load(shared, stage, options, partition, &mut restoring)?);
    }
    let open = |topic, from: &[_]| Reader::open(shared, topic, from).map(crate::Reader::Embedded);
    let start_of = |partition| Ok(shared.layout.get(stage.input(), partition)?.start());
    replay(stage, open, start_of, &mut restored, PATIENCE, &mut restoring)?;
    restoring.complete();
    Ok(restored)
}

fn load<S: Stage>(
    shared: &Shared,
    stage: &S,
    options: &RunOptions,
    partition: u32,
    restoring: &mut Restoring<'_>,
) -> Result<Restored<S>, LogError> {
    let changes = shared.layout.get(stage.changes(), partition)?;
    let shown = changes.shown();
    let latest = changes.latest.as_ref();
    let latest = latest.ok_or_else(|| LogError::Refused(format!("{shown}: changes need a compacted topic")))?;
    let mut own = stage.new_state(partition);
    let (mut position, mut has_changes) = (None, false);
    let (mut records, mut bytes) = (0, 0);
    for guard in latest.iter() {
        let (_, value) = guard.into_inner().map_err(|error| damaged(latest.path(), &shown, &error))?;
        (records, bytes) = (records + 1, bytes + value.len() as u64);
        if records == TELL_EVERY {
            restoring.took_records(records, bytes, records)?;
            (records, bytes) = (0, 0);
        }
        let record = value.get(..8).and_then(codec::number).and_then(|offset| codec::decode(offset, value.get(8..)?));
        let record = record.ok_or_else(|| changes.broken("a change", 0))?;
        let Some(value) = record.value else { continue };
        match StateKey::parse(record.key) {
            Some(StateKey::Position(of)) if of == partition => {
                let decoded = Position::decode(value);
                let decoded =
                    decoded.map_err(|error| LogError::Damaged(format!("{shown}: pos/{partition}: {error}")))?;
                position = Some(decoded.next_offset);
            }
            Some(StateKey::Position(_) | StateKey::Marker(_)) => {}
            _ => {
                let loaded = stage.load(&mut own, record.key, value);
                loaded.map_err(|error| match error {
                    StageError::ForeignChange { .. } => LogError::Refused(format!("{shown}: {error}")),
                    StageError::Unavailable(why) => LogError::Unavailable(why),
                })?;
                has_changes = true;
            }
        }
    }
    restoring.took_records(records, bytes, records)?;
    let input = shared.layout.get(stage.input(), partition)?;
    let read = read_number(&shared.layout.meta, input_key(&options.role, stage.input(), partition).as_bytes())?;
    let next_offset = if sabotaged("sabotage::skip-position-check") {
        read.or(position).unwrap_or(0)
    } else {
        agree(input, changes, position, read, has_changes)?
    };
    Ok(Restored { partition, state: own, next_offset })
}

/// What the state says it contains must be what was noted as read with it.
fn agree(
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
        (None, None) => Err(LogError::Refused(format!(
            "{input_shown} has no position, starts at {start}, and {changes_shown} has changes: {has_changes}"
        ))),
        (contained, read) => Err(LogError::Refused(format!(
            "{changes_shown} contains {input_shown} up to {contained:?}, it was read up to {read:?}"
        ))),
    }
}
