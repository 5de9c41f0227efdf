//! Runs a stage: read, apply, and one atomic batch for outputs, changes, `pos/{p}` and the input position.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_contracts::Position;
use tokio_util::sync::CancellationToken;

use super::consumers::Need;
use super::layout::input_key;
use super::reader::Reader;
use super::restore::restore;
use super::writer::{Entry, Records};
use super::{Shared, codec};
use crate::metric::{Abort, Lag, LagGauges, StepMetrics};
use crate::{Batch, LogError, PollOutcome, RunOptions, Stage, Status, Step, fault, worker};

/// The longest wait of one poll, after which an idle worker notices a stop.
const IDLE: Duration = Duration::from_millis(200);

pub(super) async fn run<S: Stage>(
    shared: Arc<Shared>,
    stage: Arc<S>,
    options: RunOptions,
    stop: CancellationToken,
) -> Result<(), LogError> {
    shared.topics.check_stage(stage.input(), stage.changes())?;
    // Before its thread starts, too: retention may come first.
    shared.consumers.register(&options.role, stage.input(), shared.topics.get(stage.input()).partitions);
    worker::run(options, 1, stop, move |options, _, stop| {
        let ended = Worker::start(&shared, &*stage, options, stop).and_then(|worker| worker.run(stop));
        ended.map_err(|error| shared.or_failure(error))
    })
    .await
}

/// What the stage needs of a partition whose next record has this offset.
fn need<S: Stage>(stage: &S, state: &S::State, position: u64) -> Need {
    Need { position, replay: stage.replay_from(state).map_or(position, |replay| replay.min(position)) }
}

struct Worker<'a, S: Stage> {
    shared: &'a Arc<Shared>,
    stage: &'a S,
    options: &'a RunOptions,
    /// By partition.
    states: Vec<S::State>,
    reader: Reader,
    step: Step,
    step_metrics: StepMetrics,
    lags: LagGauges,
}

impl<'a, S: Stage> Worker<'a, S> {
    fn start(
        shared: &'a Arc<Shared>,
        stage: &'a S,
        options: &'a RunOptions,
        stop: &CancellationToken,
    ) -> Result<Self, LogError> {
        shared.consumers.register(&options.role, stage.input(), shared.topics.get(stage.input()).partitions);
        let restored = restore(shared, stage, options, stop)?;
        let from: Vec<(u32, u64)> = restored.iter().map(|one| (one.partition, one.position.next_offset)).collect();
        let mut states: Vec<S::State> = restored.into_iter().map(|one| one.state).collect();
        for (state, &(partition, next_offset)) in states.iter_mut().zip(&from) {
            shared.consumers.needs(&options.role, stage.input(), partition, need(stage, state, next_offset));
            stage.restored(state);
        }
        let reader = Reader::open(shared, stage.input(), &from)?;
        let (step_metrics, lags) = (StepMetrics::of(&options.role), LagGauges::of(&options.role));
        let worker = Self { shared, stage, options, states, reader, step: Step::default(), step_metrics, lags };
        worker.report_running();
        Ok(worker)
    }

    fn report_running(&self) {
        let partitions = (0..self.shared.topics.get(self.stage.input()).partitions).collect();
        self.options.status.send_replace(Status::Running { partitions });
    }

    fn run(mut self, stop: &CancellationToken) -> Result<(), LogError> {
        let mut batch = Batch::default();
        let limits = crate::Limits { wait: IDLE, ..self.options.step };
        while !stop.is_cancelled() {
            self.shared.check()?;
            match self.reader.poll(&mut batch, limits)? {
                // The records that arrived during the last sync are the next step: idle input never waits.
                PollOutcome::Records => {
                    fault::point("embedded::stage::polled");
                    self.commit(&batch, stop)?;
                }
                PollOutcome::CaughtUp { .. } | PollOutcome::Nothing => {}
            }
            self.report_lags(None);
        }
        Ok(())
    }

    /// The lag includes the records that were read but not counted.
    fn report_lags(&mut self, uncounted: Option<&Batch>) {
        let reader = &self.reader;
        self.lags.report(|| {
            let mut lags = reader.lags();
            if let Some(batch) = uncounted {
                *lags.entry(batch.partition()).or_default() += batch.len() as u64;
            }
            lags.into_iter().map(|(partition, stable)| (partition, Lag { stable, open: 0 })).collect()
        });
    }

    /// Applies the batch and commits the step. Reverts and retries a step that did not commit.
    fn commit(&mut self, batch: &Batch, stop: &CancellationToken) -> Result<(), LogError> {
        let mut backoff = worker::backoff();
        let mut retrying = false;
        loop {
            let began = Instant::now();
            self.step.clear();
            let partition = batch.partition();
            let state = &mut self.states[partition as usize];
            let undo = self.stage.apply(state, batch, &mut self.step)?;
            let next_offset = batch.next_offset().expect("the batch is not empty");
            let last_record = batch.last().map(|record| record.fingerprint());
            // The queue to the writer repeats nothing, so records have no numbers here.
            let position = Position { next_offset, last_record, producers: Vec::new() };
            self.step.complete(self.stage.changes(), partition, &position)?;
            fault::point("embedded::stage::applied");
            let applied = Instant::now();
            let written = self.write(partition, next_offset);
            fault::point("embedded::stage::written");
            match written {
                Ok(()) => {
                    let state = &mut self.states[partition as usize];
                    self.stage.committed(state, undo);
                    let need = need(self.stage, state, next_offset);
                    self.shared.consumers.needs(&self.options.role, self.stage.input(), partition, need);
                    self.step_metrics.committed(began, applied);
                    if retrying {
                        self.report_running();
                    }
                    return Ok(());
                }
                Err(LogError::Unavailable(failure)) if self.shared.failure().is_none() => {
                    self.stage.undo(&mut self.states[partition as usize], undo);
                    self.step_metrics.aborted(Abort::Write);
                    self.report_lags(Some(batch));
                    tracing::warn!(role = self.options.role, error = %failure, "the step did not commit: retrying after a pause");
                    self.options.status.send_replace(Status::Retrying { why: failure.detail });
                    retrying = true;
                    if worker::pause(&mut backoff, stop) {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn write(&self, partition: u32, next_offset: u64) -> Result<(), LogError> {
        let now = self.shared.clock.now_ms();
        let mut records = Records { bytes: Vec::new(), entries: Vec::with_capacity(self.step.len()) };
        for record in self.step.records() {
            let size = record.key.len() + record.value.map_or(0, <[u8]>::len);
            let index = self.shared.layout.index(record.topic, record.partition);
            let Some(index) = index.filter(|_| size <= self.shared.config.max_record_bytes.as_usize()) else {
                let (topic, number) = (record.topic.name, record.partition);
                return Err(LogError::refused(format!(
                    "the stage's record of {size} bytes for {topic}/{number} is too large, or the partition does not exist"
                )));
            };
            codec::encode(now, record.key, record.value, &mut records.bytes);
            records.entries.push(Entry { partition: index, end: records.bytes.len() });
        }
        let input = input_key(&self.options.role, self.stage.input(), partition);
        let numbers = fault::commit_separately(vec![(input, next_offset)], |numbers| {
            self.shared.step(Records::default(), numbers, true)
        })?;
        self.shared.step(records, numbers, true)
    }
}
