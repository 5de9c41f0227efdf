//! Runs a stage: poll, apply, and one transaction for outputs, changes and input offsets.

#[cfg(feature = "failpoints")]
mod sabotage;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use millrace_base::Backoff;
use millrace_contracts::{Next, Position};
use rdkafka::error::KafkaError;
use tokio_util::sync::CancellationToken;

use super::KafkaLog;
use super::member::{Member, PollEvent, Rebalance};
use super::numbers::number_of;
use super::owner::{Owner, Request, TakenOver};
use super::transaction::{Purpose, Transaction, TransactionError, TransactionalProducer};
use crate::metric::{Abort, LagGauges, StepMetrics};
use crate::producers::Producers;
use crate::restore::RestoredPartition;
use crate::restoring::{RestoreQueue, RestoreWork};
use crate::step::StepRecord;
use crate::{Batch, LogError, RunOptions, Stage, StageError, Status, Step, fault, worker};

/// The longest wait of one poll, after which an idle worker notices a stop.
const IDLE: Duration = Duration::from_millis(200);
/// Between two looks at what a restore requests, while no record arrives.
const RESTORE_INTERVAL: Duration = Duration::from_millis(5);
/// How long a worker polls before a step: `fetch.queue.backoff.ms` (5) after it empties a full queue, and a fetch.
const POLLING: Duration = Duration::from_millis(7);
/// Records of a step from which on a worker does not rest: the input has a backlog.
const BACKLOG: usize = 5_000;

impl KafkaLog {
    pub(crate) async fn run_stage<S: Stage>(
        &self,
        stage: Arc<S>,
        options: RunOptions,
        stop: CancellationToken,
    ) -> Result<(), LogError> {
        self.0.topics.check_stage(stage.input(), stage.changes())?;
        let log = self.clone();
        let (workers, taken_over) = (options.workers, TakenOver::default());
        worker::run(options, workers, stop, move |options, index, stop| {
            Worker::start(&log, &stage, options, index, stop, &taken_over)?.run(stop)
        })
        .await
    }
}

struct Worker<'a, S: Stage> {
    log: &'a KafkaLog,
    stage: &'a S,
    options: &'a RunOptions,
    member: Member,
    producer: TransactionalProducer,
    /// Of the restores. Dropped before them: they wait for their requests.
    requests: Receiver<Request>,
    restoring: RestoreQueue<S>,
    taken_over: TakenOver,
    partitions: BTreeMap<u32, StagePartition<S>>,
    step: Step,
    /// The end of the last step.
    step_ended: Instant,
    /// The records that it was made of.
    collected: usize,
    /// The pauses between tries, if the last step was aborted.
    retry: Option<Backoff>,
    step_metrics: StepMetrics,
    lags: LagGauges,
}

/// A partition that is assigned and restored.
struct StagePartition<S: Stage> {
    state: S::State,
    /// The offset to read next. Records below it are counted or in the batch; if they are read again, they are skipped.
    next: u64,
    /// The end of the records that are counted, durably.
    counted: u64,
    /// Records read but not counted.
    batch: Batch,
    /// The numbers of the records below `next`.
    producers: Producers,
}

impl<'a, S: Stage> Worker<'a, S> {
    fn start(
        log: &'a KafkaLog,
        stage: &'a Arc<S>,
        options: &'a RunOptions,
        index: usize,
        stop: &CancellationToken,
        taken_over: &TakenOver,
    ) -> Result<Self, LogError> {
        let config = &log.0.config;
        let id = log.0.names.transactional_id(&options.role, &options.instance, index);
        let producer = TransactionalProducer::open(config, &id)?;
        let member = config.member(&log.0.names.group(&options.role), &options.instance, index);
        let member = Member::join(&member, log.full_name(stage.input()))?;
        let (owner, requests) = Owner::new(&id, taken_over.clone());
        let work: RestoreWork<S> = {
            let (log, stage) = (log.clone(), stage.clone());
            Arc::new(move |task| log.run_restore(&*stage, &owner, task))
        };
        Ok(Self {
            log,
            stage,
            options,
            member,
            producer,
            requests,
            restoring: RestoreQueue::new(options, stop, work),
            taken_over: taken_over.clone(),
            partitions: BTreeMap::new(),
            step: Step::default(),
            step_ended: Instant::now(),
            collected: 0,
            retry: None,
            step_metrics: StepMetrics::of(&options.role),
            lags: LagGauges::of(&options.role),
        })
    }

    fn run(mut self, stop: &CancellationToken) -> Result<(), LogError> {
        // Before the member leaves its group: then the partitions may have another owner.
        let _canceled = self.restoring.cancel_on_drop();
        while !stop.is_cancelled() {
            if let Err(error) = self.collect() {
                self.isolate_deleted_positions(error)?;
            }
            self.apply_rebalances()?;
            self.advance_restores()?;
            if self.partitions.values().any(|partition| !partition.batch.is_empty()) {
                fault::point("kafka::stage::polled");
                self.commit(stop)?;
            }
            let (partitions, member, failed) = (&self.partitions, &self.member, &self.restoring);
            let lag = |(&number, partition): (&u32, &StagePartition<S>)| {
                Some((number, member.lag(number, partition.counted, &partition.batch)?))
            };
            // Of a partition that is restored again too, until its own is known.
            self.lags.report(|| failed.lags().chain(partitions.iter().filter_map(lag)).collect());
        }
        Ok(())
    }

    /// Fills the batches until a limit is met, the input pauses or the assignment changes.
    fn collect(&mut self) -> Result<(), LogError> {
        let limits = self.options.step;
        let interval = self.log.0.config.step_interval.0.min(limits.wait);
        // While the worker polls, no queue is full: each produce request completes a fetch, of a few records.
        if self.collected < BACKLOG {
            std::thread::sleep(interval.saturating_sub(POLLING).saturating_sub(self.step_ended.elapsed()));
        }
        let mut records: usize = self.partitions.values().map(|partition| partition.batch.len()).sum();
        let mut bytes: usize = self.partitions.values().map(|partition| partition.batch.bytes()).sum();
        let mut repeats = 0;
        let idle = if self.restoring.is_running() { RESTORE_INTERVAL } else { IDLE };
        let mut wait = if records == 0 { idle } else { Duration::ZERO };
        let mut began = Instant::now();
        while !self.member.changed() && records < limits.records && bytes < limits.bytes {
            let partitions = &mut self.partitions;
            let before = records;
            let polled = self.member.poll(wait, |event| {
                // Skips records fetched before their partition was revoked: its new owner reads them.
                if let PollEvent::Record(number, record, message) = event
                    && let Some(partition) = partitions.get_mut(&number)
                    && record.offset >= partition.next
                {
                    partition.next = record.offset + 1;
                    records += 1;
                    bytes += record.key.len() + record.value.map_or(0, <[u8]>::len);
                    if number_of(message).is_some_and(|of| partition.producers.is_repeat(of, record.timestamp_ms)) {
                        repeats += 1;
                        partition.batch.push_repeat(record);
                    } else {
                        partition.batch.push(record);
                    }
                }
            })?;
            if before == 0 {
                began = Instant::now();
            }
            // Reads the clock only when no record waits, and every 256 records: it costs as much as counting one.
            if polled && !records.is_multiple_of(256) {
                wait = Duration::ZERO;
                continue;
            }
            let left = if polled {
                limits.wait.saturating_sub(began.elapsed())
            } else {
                whole_ms(interval.saturating_sub(self.step_ended.elapsed()))
            };
            if records == 0 && !polled || left.is_zero() {
                break;
            }
            wait = if polled { Duration::ZERO } else { left };
        }
        self.collected = records;
        self.step_metrics.repeats(repeats);
        Ok(())
    }

    fn apply_rebalances(&mut self) -> Result<(), LogError> {
        if !self.member.changed() {
            return Ok(());
        }
        for rebalance in self.member.take_rebalances() {
            match rebalance {
                Rebalance::Assigned(partitions) => {
                    self.log.check_assigned(self.stage.input(), &partitions)?;
                    fault::point("kafka::stage::assigned");
                    // Completes the rebalance: the group and the other partitions do not wait for the restore.
                    self.member.read(&[])?;
                    self.restoring.begin(partitions)?;
                }
                Rebalance::Revoked(partitions) => {
                    self.partitions.retain(|number, _| !partitions.contains(number));
                    // Another owner may leave a new transaction open.
                    self.taken_over.remove(&partitions);
                    self.restoring.revoke(&partitions)?;
                }
            }
        }
        self.report();
        Ok(())
    }

    /// Does what restores request, and starts to process what is restored.
    fn advance_restores(&mut self) -> Result<(), LogError> {
        while let Ok(request) = self.requests.try_recv() {
            request(&self.member, &mut self.producer)?;
        }
        let Some(restored) = self.restoring.advance()? else { return Ok(()) };
        let positions: Vec<(u32, u64)> = restored.iter().map(|one| (one.partition, one.position.next_offset)).collect();
        if !positions.is_empty() {
            self.member.read(&positions)?;
        }
        for RestoredPartition { partition, mut state, position } in restored {
            self.stage.restored(&mut state);
            let (batch, next) = (Batch::new(partition), position.next_offset);
            let producers = Producers::new(position.producers);
            self.partitions.insert(partition, StagePartition { state, next, counted: next, batch, producers });
        }
        self.report();
        Ok(())
    }

    fn report(&self) {
        self.restoring.report(self.partitions.keys().copied());
    }

    /// Stops processing a partition that failed: the others go on, and it is restored after a pause.
    fn isolate(&mut self, number: u32, error: LogError) -> Result<(), LogError> {
        if let Some(partition) = self.partitions.remove(&number) {
            let lag = self.member.lag(number, partition.counted, &partition.batch);
            self.member.stop_reading(number)?;
            self.restoring.fail(number, error, lag);
            self.report();
        }
        Ok(())
    }

    /// Reading was refused: isolates the partitions whose next record was deleted. If there are none, the worker starts
    /// again: its restore refuses what the log does not have.
    fn isolate_deleted_positions(&mut self, error: LogError) -> Result<(), LogError> {
        if error.next() == Next::Retry {
            return Err(error);
        }
        let mut deleted = Vec::new();
        for (&number, partition) in &self.partitions {
            match self.member.check(number, partition.next) {
                Ok(()) => {}
                Err(refused @ LogError::Refused(_)) => deleted.push((number, refused)),
                Err(error) => return Err(error),
            }
        }
        if deleted.is_empty() {
            return Err(LogError::unavailable(error.to_string()).because(error));
        }
        deleted.into_iter().try_for_each(|(number, error)| self.isolate(number, error))
    }

    /// Applies the batches and commits the step. After an abort the batches remain, not counted, for the next try.
    fn commit(&mut self, stop: &CancellationToken) -> Result<(), LogError> {
        let began = Instant::now();
        self.step.clear();
        let mut undo = Vec::new();
        let mut next = Vec::new();
        if let Err((number, error)) = self.apply(&mut undo, &mut next) {
            self.undo(undo);
            return match LogError::from(error) {
                error @ LogError::Refused(_) => self.isolate(number, error),
                error => Err(error),
            };
        }
        let declared = |topic| topic == self.stage.changes() || self.stage.outputs().contains(&topic);
        debug_assert!(self.step.records().all(|record| declared(record.topic)), "the stage declares all its outputs");
        fault::point("kafka::stage::applied");
        let applied = Instant::now();
        #[cfg(feature = "failpoints")]
        let transacted = self.sabotaged_transact(&next).unwrap_or_else(|| self.transact(&next));
        #[cfg(not(feature = "failpoints"))]
        let transacted = self.transact(&next);
        self.step_ended = Instant::now();
        match transacted {
            Ok(()) => {
                self.step_metrics.committed(began, applied);
                if self.retry.take().is_some() {
                    self.report();
                }
                self.restoring.recovered(next.iter().map(|&(number, _)| number));
                for (number, undo) in undo {
                    let partition = self.partitions.get_mut(&number).expect("assigned at the begin of the step");
                    self.stage.committed(&mut partition.state, undo);
                    partition.counted = partition.next;
                    partition.batch.clear();
                }
                Ok(())
            }
            Err(TransactionError::Aborted(operation, error)) => {
                tracing::warn!(role = self.options.role, %error, "transaction aborted: retrying the step");
                self.step_metrics.aborted(operation);
                self.undo(undo);
                self.options.status.send_replace(Status::Retrying { why: error.detail });
                self.back_off(stop)
            }
            Err(TransactionError::ProducerLost(error)) => {
                self.step_metrics.aborted(Abort::Lost);
                Err(error)
            }
        }
    }

    /// Applies the batches, and adds what reverts each and the new positions. Fails with the number of a partition.
    fn apply(&mut self, undo: &mut Vec<(u32, S::Undo)>, next: &mut Vec<(u32, u64)>) -> Result<(), (u32, StageError)> {
        for (&number, partition) in self.partitions.iter_mut().filter(|(_, partition)| !partition.batch.is_empty()) {
            let of = |error| (number, error);
            undo.push((number, self.stage.apply(&mut partition.state, &partition.batch, &mut self.step).map_err(of)?));
            let next_offset = partition.batch.next_offset().expect("the batch is not empty");
            next.push((number, next_offset));
            let last_record = partition.batch.last().map(|record| record.fingerprint());
            let producers = partition.producers.records().to_vec();
            let position = Position { next_offset, last_record, producers };
            self.step.complete(self.stage.changes(), number, &position).map_err(of)?;
        }
        Ok(())
    }

    /// Reverts what the step applied.
    fn undo(&mut self, undo: Vec<(u32, S::Undo)>) {
        for (number, undo) in undo {
            let partition = self.partitions.get_mut(&number).expect("assigned at the begin of the step");
            self.stage.undo(&mut partition.state, undo);
        }
    }

    /// Pauses after an aborted step. The batches remain, and the member polls: a group that removed it aborts each of its
    /// steps until it rejoins.
    fn back_off(&mut self, stop: &CancellationToken) -> Result<(), LogError> {
        let paused: Vec<u32> = self.partitions.keys().copied().collect();
        let pause = self.retry.get_or_insert_with(worker::backoff).next_pause();
        self.member.pause_reading(&paused, pause, stop)
    }

    /// Commits the step: outputs and changes, then the input offsets, in one transaction.
    fn transact(&mut self, next: &[(u32, u64)]) -> Result<(), TransactionError> {
        let transaction = self.producer.begin(Purpose::Step)?;
        let prepared = produce(self.log, &transaction, self.step.records())
            .and_then(|()| transaction.drain())
            .map_err(|error| (Abort::Records, error))
            .and_then(|()| {
                let offsets = self.member.offsets(next.iter().copied());
                transaction.offsets(self.member.group_metadata(), &offsets).map_err(|error| (Abort::Offsets, error))
            });
        match prepared {
            Ok(()) => transaction.commit(),
            Err((operation, error)) => Err(transaction.failed(operation, error)),
        }
    }
}

fn produce<'s>(
    log: &KafkaLog,
    transaction: &Transaction<'_>,
    mut records: impl Iterator<Item = StepRecord<'s>>,
) -> Result<(), KafkaError> {
    records.try_for_each(|record| {
        transaction.produce(log.full_name(record.topic), record.partition, record.key, record.value)
    })
}

/// Rounds down to ms: rdkafka spins for a fraction of a millisecond, and takes a core for it.
fn whole_ms(wait: Duration) -> Duration {
    Duration::new(wait.as_secs(), wait.subsec_millis() * 1_000_000)
}
