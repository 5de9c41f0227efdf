//! Runs a stage: read, apply, and one atomic batch for outputs, changes, `pos/{p}` and the input position.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_contracts::Position;
use tokio_util::sync::CancellationToken;

use super::consumers::Need;
use super::layout::input_key;
use super::reader::Reader;
use super::restore::{restore, with_lags};
use super::writer::{Entry, Records};
use super::{Shared, codec};
use crate::metric::{Abort, Lag, LagGauges, StepMetrics};
use crate::restore::RestoredPartition;
use crate::restoring::{RestoreQueue, RestoreWork};
use crate::{Batch, Limits, LogError, PollOutcome, RunOptions, Stage, Status, Step, fault, worker};

/// The longest wait of one poll, after which an idle worker notices a stop.
const IDLE: Duration = Duration::from_millis(200);
/// The longest wait of one poll while a restore runs.
const RESTORE_INTERVAL: Duration = Duration::from_millis(5);

const READ_ONLY_RESTORED: &str = "the reader reads only restored partitions";

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
        let ended = Worker::start(&shared, &stage, options, stop).and_then(|worker| worker.run(stop));
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
    stage: &'a Arc<S>,
    options: &'a RunOptions,
    /// Of the partitions that are restored.
    states: BTreeMap<u32, S::State>,
    restoring: RestoreQueue<S>,
    reader: Reader,
    step: Step,
    step_metrics: StepMetrics,
    lags: LagGauges,
}

impl<'a, S: Stage> Worker<'a, S> {
    fn start(
        shared: &'a Arc<Shared>,
        stage: &'a Arc<S>,
        options: &'a RunOptions,
        stop: &CancellationToken,
    ) -> Result<Self, LogError> {
        shared.consumers.register(&options.role, stage.input(), shared.topics.get(stage.input()).partitions);
        let work: RestoreWork<S> = {
            let (shared, stage) = (shared.clone(), stage.clone());
            Arc::new(move |task| {
                let restored = restore(&shared, &*stage, task);
                task.end(restored.map_err(|error| with_lags(&shared, &*stage, task.options, error)));
            })
        };
        let mut restoring = RestoreQueue::new(options, stop, work);
        restoring.begin((0..shared.topics.get(stage.input()).partitions).collect())?;
        let reader = Reader::open(shared, stage.input(), &[])?;
        let (step_metrics, lags) = (StepMetrics::of(&options.role), LagGauges::of(&options.role));
        let (states, step) = (BTreeMap::new(), Step::default());
        Ok(Self { shared, stage, options, states, restoring, reader, step, step_metrics, lags })
    }

    fn report(&self) {
        self.restoring.report(self.states.keys().copied());
    }

    fn run(mut self, stop: &CancellationToken) -> Result<(), LogError> {
        let mut batch = Batch::default();
        while !stop.is_cancelled() {
            self.shared.check()?;
            self.advance_restores()?;
            let wait = if self.restoring.is_running() { RESTORE_INTERVAL } else { IDLE };
            match self.reader.poll(&mut batch, Limits { wait, ..self.options.step })? {
                // The records that arrived during the last sync are the next step: idle input never waits.
                PollOutcome::Records => {
                    fault::point("embedded::stage::polled");
                    match self.commit(&batch, stop) {
                        Err(error @ LogError::Refused(_)) if self.shared.failure().is_none() => {
                            self.isolate(&batch, error);
                        }
                        ended => ended?,
                    }
                }
                PollOutcome::CaughtUp { .. } | PollOutcome::Nothing => {}
            }
            self.report_lags(None);
        }
        Ok(())
    }

    /// Starts to process what is restored.
    fn advance_restores(&mut self) -> Result<(), LogError> {
        let Some(restored) = self.restoring.advance()? else { return Ok(()) };
        for RestoredPartition { partition, mut state, position } in restored {
            let next_offset = position.next_offset;
            match self.reader.assign(partition, next_offset) {
                Err(error @ LogError::Refused(_)) => self.restoring.fail(partition, error, None),
                assigned => {
                    assigned?;
                    let need = need(&**self.stage, &state, next_offset);
                    self.shared.consumers.needs(&self.options.role, self.stage.input(), partition, need);
                    self.stage.restored(&mut state);
                    self.states.insert(partition, state);
                }
            }
        }
        self.report();
        Ok(())
    }

    /// Stops processing a partition whose step failed: the others go on, and it is restored after a pause.
    fn isolate(&mut self, batch: &Batch, error: LogError) {
        let partition = batch.partition();
        let lag = self.reader.lags().get(&partition).map(|lag| Lag { stable: lag + batch.len() as u64, open: 0 });
        self.reader.unassign(partition);
        self.states.remove(&partition);
        self.restoring.fail(partition, error, lag);
        self.report();
    }

    /// The lag includes the records that were read but not counted.
    fn report_lags(&mut self, uncounted: Option<&Batch>) {
        let (reader, failed) = (&self.reader, &self.restoring);
        self.lags.report(|| {
            let mut lags = reader.lags();
            if let Some(batch) = uncounted {
                *lags.entry(batch.partition()).or_default() += batch.len() as u64;
            }
            let lags = lags.into_iter().map(|(partition, stable)| (partition, Lag { stable, open: 0 }));
            failed.lags().chain(lags).collect()
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
            let state = self.states.get_mut(&partition).expect(READ_ONLY_RESTORED);
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
                    let state = self.states.get_mut(&partition).expect(READ_ONLY_RESTORED);
                    self.stage.committed(state, undo);
                    let need = need(&**self.stage, state, next_offset);
                    self.shared.consumers.needs(&self.options.role, self.stage.input(), partition, need);
                    self.step_metrics.committed(began, applied);
                    self.restoring.recovered(std::iter::once(partition));
                    if retrying {
                        self.report();
                    }
                    return Ok(());
                }
                Err(LogError::Unavailable(failure)) if self.shared.failure().is_none() => {
                    self.stage.undo(self.states.get_mut(&partition).expect(READ_ONLY_RESTORED), undo);
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
