//! Runs a stage: read, apply, and one batch for outputs, changes, `pos/{p}` and the input position.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fail::fail_point;
use millrace_contracts::{Position, StateKey};
use tokio_util::sync::CancellationToken;

use super::layout::input_key;
use super::reader::Reader;
use super::restore::restore;
use super::writer::{Entry, Records, now_ms};
use super::{Shared, codec};
use crate::fault::sabotaged;
use crate::metric::{Abort, Lags, Steps};
use crate::worker::{self, Pauses};
use crate::{Batch, LogError, Polled, RunOptions, Stage, Status, Step};

/// How long an idle worker waits in one poll; a stop is noticed after it.
const IDLE: Duration = Duration::from_millis(200);

pub(super) async fn run<S: Stage>(
    shared: Arc<Shared>,
    stage: Arc<S>,
    options: RunOptions,
    stop: CancellationToken,
) -> Result<(), LogError> {
    worker::run(options, 1, stop, move |options, _, stop| {
        let ended = Worker::start(&shared, &*stage, options, stop).and_then(|worker| worker.run(stop));
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
    steps: Steps,
    lags: Lags,
}

impl<'a, S: Stage> Worker<'a, S> {
    fn start(
        shared: &'a Arc<Shared>,
        stage: &'a S,
        options: &'a RunOptions,
        stop: &CancellationToken,
    ) -> Result<Self, LogError> {
        let restored = restore(shared, stage, options, stop)?;
        let from: Vec<(u32, u64)> = restored.iter().map(|one| (one.partition, one.next_offset)).collect();
        let states = restored.into_iter().map(|one| one.state).collect();
        let reader = Reader::open(shared, stage.input(), &from)?;
        let (steps, lags) = (Steps::of(&options.role), Lags::of(&options.role));
        let worker = Self { shared, stage, options, states, reader, step: Step::default(), steps, lags };
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
                Polled::Records => {
                    fail_point!("embedded::stage::polled");
                    self.commit(&batch, stop)?;
                }
                Polled::CaughtUp { .. } | Polled::Nothing => {}
            }
            self.tell_lags(None);
        }
        Ok(())
    }

    /// What was handed out but is not counted is behind, too.
    fn tell_lags(&mut self, uncounted: Option<&Batch>) {
        let reader = &self.reader;
        self.lags.tell(|| {
            let mut lags = reader.lags();
            if let Some(batch) = uncounted {
                *lags.entry(batch.partition()).or_default() += batch.len() as u64;
            }
            lags
        });
    }

    /// Until the batch is counted: a step that did not happen is taken back and tried again.
    fn commit(&mut self, batch: &Batch, stop: &CancellationToken) -> Result<(), LogError> {
        let mut pauses = Pauses::default();
        let mut held_back = false;
        loop {
            let began = Instant::now();
            self.step.clear();
            let partition = batch.partition();
            let state = &mut self.states[partition as usize];
            let undo = self.stage.apply(state, batch, &mut self.step)?;
            let next_offset = batch.next_offset().expect("the batch is not empty");
            let position = Position { next_offset };
            self.step.put(self.stage.changes(), partition, StateKey::Position(partition), |out| position.encode(out));
            fail_point!("embedded::stage::applied");
            let applied = Instant::now();
            let written = self.write(partition, next_offset);
            fail_point!("embedded::stage::written");
            match written {
                Ok(()) => {
                    self.stage.committed(&mut self.states[partition as usize], undo);
                    self.steps.committed(began, applied);
                    if held_back {
                        self.running();
                    }
                    return Ok(());
                }
                Err(LogError::Unavailable(why)) if self.shared.failure().is_none() => {
                    self.stage.undo(&mut self.states[partition as usize], undo);
                    self.steps.aborted(Abort::Write);
                    self.tell_lags(Some(batch));
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
            let size = record.key.len() + record.value.map_or(0, <[u8]>::len);
            let index = self.shared.layout.index(record.topic, record.partition);
            let Some(index) = index.filter(|_| size <= self.shared.config.max_record_bytes.as_usize()) else {
                let (topic, number) = (record.topic.name, record.partition);
                return Err(LogError::Refused(format!(
                    "the stage's record of {size} bytes for {topic}/{number} is not taken"
                )));
            };
            codec::encode(now, record.key, record.value, &mut records.bytes);
            records.entries.push(Entry { partition: index, end: records.bytes.len() });
        }
        let input = input_key(&self.options.role, self.stage.input(), partition);
        if sabotaged("sabotage::offset-before-state") {
            self.shared.step(Records::default(), vec![(input, next_offset)], true)?;
            return self.shared.step(records, Vec::new(), true);
        }
        self.shared.step(records, vec![(input, next_offset)], true)
    }
}
