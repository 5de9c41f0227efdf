//! Runs a stage: read, apply, and one batch for outputs, changes, `pos/{p}` and the input position.

use std::sync::Arc;
use std::time::Duration;

use fail::fail_point;
use millrace_contracts::{Position, StateKey};
use tokio_util::sync::CancellationToken;

use super::layout::{input_key, read_number};
use super::reader::Reader;
use super::writer::{Entry, Records, now_ms};
use super::{Shared, codec, damaged};
use crate::worker::{self, Pauses};
use crate::{Batch, LogError, Polled, RunOptions, Stage, StageError, Status, Step};

/// How long an idle worker waits in one poll; a stop is noticed after it.
const IDLE: Duration = Duration::from_millis(200);

pub(super) async fn run<S: Stage>(
    shared: Arc<Shared>,
    stage: Arc<S>,
    options: RunOptions,
    stop: CancellationToken,
) -> Result<(), LogError> {
    worker::run(options, 1, stop, move |options, _, stop| {
        let ended = Worker::start(&shared, &*stage, options).and_then(|worker| worker.run(stop));
        ended.map_err(|error| shared.or_failure(error))
    })
    .await
}

struct Worker<'a, S: Stage> {
    shared: &'a Arc<Shared>,
    stage: &'a S,
    options: &'a RunOptions,
    /// By partition.
    states: Vec<S::State>,
    reader: Reader,
    step: Step,
}

impl<'a, S: Stage> Worker<'a, S> {
    fn start(shared: &'a Arc<Shared>, stage: &'a S, options: &'a RunOptions) -> Result<Self, LogError> {
        let partitions: Vec<u32> = (0..shared.config.partitions).collect();
        options.status.send_replace(Status::Restoring { partitions: partitions.clone() });
        let (mut states, mut from) = (Vec::new(), Vec::new());
        for partition in partitions {
            let (restored, position) = restore(shared, stage, options, partition)?;
            states.push(restored);
            from.push((partition, position));
        }
        let reader = Reader::open(shared, stage.input(), &from)?;
        let worker = Self { shared, stage, options, states, reader, step: Step::default() };
        worker.running();
        Ok(worker)
    }

    fn running(&self) {
        let partitions = (0..self.shared.config.partitions).collect();
        self.options.status.send_replace(Status::Running { partitions });
    }

    fn run(mut self, stop: &CancellationToken) -> Result<(), LogError> {
        let mut batch = Batch::default();
        let limits = crate::Limits { wait: IDLE, ..self.options.step };
        while !stop.is_cancelled() {
            self.shared.check()?;
            match self.reader.poll(&mut batch, limits)? {
                // What came while the last step was synced is the next step: idle input never waits.
                Polled::Records => self.commit(&batch, stop)?,
                Polled::CaughtUp { .. } | Polled::Nothing => {}
            }
        }
        Ok(())
    }

    /// Until the batch is counted: a step that did not happen is taken back and tried again.
    fn commit(&mut self, batch: &Batch, stop: &CancellationToken) -> Result<(), LogError> {
        let mut pauses = Pauses::default();
        let mut held_back = false;
        loop {
            self.step.clear();
            let partition = batch.partition();
            let state = &mut self.states[partition as usize];
            let undo = self.stage.apply(state, batch, &mut self.step)?;
            let next_offset = batch.next_offset().expect("the batch is not empty");
            let position = Position { next_offset };
            self.step.put(self.stage.changes(), partition, StateKey::Position(partition), |out| position.encode(out));
            fail_point!("embedded::stage::applied");
            let written = self.write(partition, next_offset);
            fail_point!("embedded::stage::written");
            match written {
                Ok(()) => {
                    self.stage.committed(&mut self.states[partition as usize], undo);
                    metrics::counter!(crate::metric::STEPS).increment(1);
                    if held_back {
                        self.running();
                    }
                    return Ok(());
                }
                Err(LogError::Unavailable(why)) if self.shared.failure().is_none() => {
                    self.stage.undo(&mut self.states[partition as usize], undo);
                    metrics::counter!(crate::metric::ABORTS).increment(1);
                    tracing::warn!(role = self.options.role, why, "the step is tried again");
                    self.options.status.send_replace(Status::Retrying { why });
                    held_back = true;
                    if pauses.wait(stop) {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn write(&self, partition: u32, next_offset: u64) -> Result<(), LogError> {
        let now = now_ms();
        let mut records = Records { bytes: Vec::new(), entries: Vec::with_capacity(self.step.len()) };
        for record in self.step.records() {
            let size = record.key.len() + record.value.len();
            let index = self.shared.layout.index(record.topic, record.partition);
            let Some(index) = index.filter(|_| size <= self.shared.config.max_record_bytes as usize) else {
                let (topic, number) = (record.topic.name, record.partition);
                return Err(LogError::Refused(format!(
                    "the stage's record of {size} bytes for {topic}/{number} is not taken"
                )));
            };
            codec::encode(now, record.key, record.value, &mut records.bytes);
            records.entries.push(Entry { partition: index, end: records.bytes.len() });
        }
        let input = input_key(&self.options.role, self.stage.input(), partition);
        self.shared.step(records, vec![(input, next_offset)], true)
    }
}

/// The state as of the newest step, and where its input goes on.
fn restore<S: Stage>(
    shared: &Shared,
    stage: &S,
    options: &RunOptions,
    partition: u32,
) -> Result<(S::State, u64), LogError> {
    let changes = shared.layout.get(stage.changes(), partition)?;
    let shown = changes.shown();
    let latest = changes.latest.as_ref();
    let latest = latest.ok_or_else(|| LogError::Refused(format!("{shown}: changes need a compacted topic")))?;
    let mut restored = stage.new_state(partition);
    let (mut position, mut has_changes) = (None, false);
    for guard in latest.iter() {
        let (_, value) =
            guard.into_inner().map_err(|error| damaged(&format!("{} ({shown})", latest.path().display()), &error))?;
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
            Some(StateKey::Users { .. } | StateKey::Counters { .. }) | None => {
                let loaded = stage.load(&mut restored, record.key, value);
                loaded.map_err(|error| match error {
                    StageError::NotOurs { .. } => LogError::Refused(format!("{shown}: {error}")),
                    StageError::Unavailable(why) => LogError::Unavailable(why),
                })?;
                has_changes = true;
            }
        }
    }
    let input = shared.layout.get(stage.input(), partition)?;
    let read = read_number(&shared.layout.meta, input_key(&options.role, stage.input(), partition).as_bytes())?;
    let from = match (position, read) {
        (Some(position), Some(read)) if position == read => position,
        (None, None) if !has_changes && input.start() == 0 => 0,
        (None, None) => {
            let start = input.start();
            let why =
                format!("{} has no position, starts at {start}, and {shown} has changes: {has_changes}", input.shown());
            return Err(LogError::Refused(why));
        }
        (contained, read) => {
            let why = format!("{shown} contains {} up to {contained:?}, it was read up to {read:?}", input.shown());
            return Err(LogError::Refused(why));
        }
    };
    Ok((restored, from))
}
