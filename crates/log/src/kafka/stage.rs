//! Runs a stage: poll, apply, and one transaction for outputs, changes and input offsets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fail::fail_point;
use millrace_contracts::{Position, StateKey};
use tokio_util::sync::CancellationToken;

use super::KafkaLog;
use super::member::{Change, Event, Member};
use super::transaction::{Failed, Transactional};
use crate::fault::sabotaged;
use crate::metric::{Abort, Lags, Steps};
use crate::restore::Restored;
use crate::step::StepRecord;
use crate::worker::{self, Pauses};
use crate::{Batch, LogError, RunOptions, Stage, Status, Step};

/// How long an idle worker waits in one poll; a stop is noticed after it.
const IDLE: Duration = Duration::from_millis(200);
/// From the end of a step to that of collecting the next, while no record waits: a transaction costs the brokers as much as
/// 2,000 records, and one that begins before the markers of the last are written is sent away for 20 ms by the coordinator.
const APART: Duration = Duration::from_millis(15);

impl KafkaLog {
    pub(crate) async fn run_stage<S: Stage>(
        &self,
        stage: Arc<S>,
        options: RunOptions,
        stop: CancellationToken,
    ) -> Result<(), LogError> {
        let log = self.clone();
        let workers = options.workers;
        worker::run(options, workers, stop, move |options, index, stop| {
            Worker::start(&log, &*stage, options, index)?.run(stop)
        })
        .await
    }
}

struct Worker<'a, S: Stage> {
    log: &'a KafkaLog,
    stage: &'a S,
    options: &'a RunOptions,
    member: Member,
    producer: Transactional,
    held: BTreeMap<u32, Held<S>>,
    step: Step,
    /// When the last step ended.
    step_ended: Instant,
    /// Pauses since the last step that committed, when one was aborted.
    aborted: Option<Pauses>,
    steps: Steps,
    lags: Lags,
}

struct Held<S: Stage> {
    state: S::State,
    /// The offset to be read next. Anything below is counted or in the batch, however it comes to be read again.
    next: u64,
    /// Everything below is counted, durably.
    counted: u64,
    /// Read but not counted.
    batch: Batch,
}

impl<'a, S: Stage> Worker<'a, S> {
    fn start(log: &'a KafkaLog, stage: &'a S, options: &'a RunOptions, index: usize) -> Result<Self, LogError> {
        let config = &log.0.config;
        let id = log.0.names.transactional_id(&options.role, &options.instance, index);
        let producer = Transactional::open(config, &id)?;
        let member = config.member(&log.0.names.group(&options.role), &options.instance, index);
        let member = Member::join(&member, log.full_name(stage.input()))?;
        Ok(Self {
            log,
            stage,
            options,
            member,
            producer,
            held: BTreeMap::new(),
            step: Step::default(),
            step_ended: Instant::now(),
            aborted: None,
            steps: Steps::of(&options.role),
            lags: Lags::of(&options.role),
        })
    }

    fn run(mut self, stop: &CancellationToken) -> Result<(), LogError> {
        while !stop.is_cancelled() {
            self.collect()?;
            self.follow_changes(stop)?;
            if self.held.values().any(|held| !held.batch.is_empty()) {
                fail_point!("kafka::stage::polled");
                self.commit(stop)?;
            }
            let (held, member) = (&self.held, &self.member);
            let lag = |(&partition, held): (&u32, &Held<S>)| {
                Some((partition, member.lag(partition, held.counted, &held.batch)?))
            };
            self.lags.tell(|| held.iter().filter_map(lag).collect());
        }
        Ok(())
    }

    /// Fills the batches until a limit is met, the input pauses or the assignment changes.
    fn collect(&mut self) -> Result<(), LogError> {
        let limits = self.options.step;
        let apart = APART.min(limits.wait);
        let mut records: usize = self.held.values().map(|held| held.batch.len()).sum();
        let mut bytes: usize = self.held.values().map(|held| held.batch.bytes()).sum();
        let mut wait = if records == 0 { IDLE } else { Duration::ZERO };
        let mut began = Instant::now();
        // Rebalances are served inside poll: after an aborted step that fills the limits there is one poll all the same.
        let mut first = true;
        while !self.member.changed()
            && (std::mem::take(&mut first) || (records < limits.records && bytes < limits.bytes))
        {
            let held = &mut self.held;
            let before = records;
            let polled = self.member.poll(wait, |event| {
                // What was fetched before a partition was revoked is no longer ours; its new owner reads it.
                if let Event::Record(partition, record) = event
                    && let Some(held) = held.get_mut(&partition)
                    && record.offset >= held.next
                {
                    held.next = record.offset + 1;
                    records += 1;
                    bytes += record.key.len() + record.value.map_or(0, <[u8]>::len);
                    held.batch.push(record);
                }
            })?;
            if before == 0 {
                began = Instant::now();
            }
            // The clock is read when no record waits and every 256 records: it costs as much as counting one.
            if polled && !records.is_multiple_of(256) {
                wait = Duration::ZERO;
                continue;
            }
            let left = if polled {
                limits.wait.saturating_sub(began.elapsed())
            } else {
                whole_ms(apart.saturating_sub(self.step_ended.elapsed()))
            };
            if records == 0 && !polled || left.is_zero() {
                break;
            }
            wait = if polled { Duration::ZERO } else { left };
        }
        Ok(())
    }

    fn follow_changes(&mut self, stop: &CancellationToken) -> Result<(), LogError> {
        if !self.member.changed() {
            return Ok(());
        }
        for change in self.member.changes() {
            match change {
                Change::Assigned(partitions) => self.take_up(&partitions, stop)?,
                Change::Revoked(partitions) => self.held.retain(|partition, _| !partitions.contains(partition)),
            }
        }
        self.say_running();
        Ok(())
    }

    fn take_up(&mut self, partitions: &[u32], stop: &CancellationToken) -> Result<(), LogError> {
        let mut restored = Vec::new();
        if !partitions.is_empty() {
            self.log.check_assigned(self.stage.input(), partitions)?;
            fail_point!("kafka::stage::assigned");
            let (member, producer) = (&self.member, &mut self.producer);
            restored = self.log.restore(self.stage, self.options, stop, member, producer, partitions)?;
        }
        let positions: Vec<(u32, u64)> = restored.iter().map(|one| (one.partition, one.next_offset)).collect();
        self.member.take_up(&positions)?;
        for Restored { partition, state, next_offset } in restored {
            let batch = Batch::new(partition);
            self.held.insert(partition, Held { state, next: next_offset, counted: next_offset, batch });
        }
        Ok(())
    }

    fn say_running(&self) {
        self.options.status.send_replace(Status::Running { partitions: self.held.keys().copied().collect() });
    }

    /// Counts the batches and commits them. After an abort they are still there, uncounted, for the next round.
    fn commit(&mut self, stop: &CancellationToken) -> Result<(), LogError> {
        let began = Instant::now();
        self.step.clear();
        let mut undo = Vec::new();
        let mut next = Vec::new();
        for (&partition, held) in self.held.iter_mut().filter(|(_, held)| !held.batch.is_empty()) {
            undo.push((partition, self.stage.apply(&mut held.state, &held.batch, &mut self.step)?));
            let next_offset = held.batch.next_offset().expect("the batch is not empty");
            next.push((partition, next_offset));
            let position = Position { next_offset };
            self.step.put(self.stage.changes(), partition, StateKey::Position(partition), |out| position.encode(out));
        }
        fail_point!("kafka::stage::applied");
        let applied = Instant::now();
        let transacted = self.transact(&next);
        self.step_ended = Instant::now();
        match transacted {
            Ok(()) => {
                self.steps.committed(began, applied);
                if self.aborted.take().is_some() {
                    self.say_running();
                }
                for (partition, undo) in undo {
                    let held = self.held.get_mut(&partition).expect("held a moment ago");
                    self.stage.committed(&mut held.state, undo);
                    held.counted = held.next;
                    held.batch.clear();
                }
                Ok(())
            }
            Err(Failed::Aborted(what, why)) => {
                tracing::warn!(role = self.options.role, why, "transaction aborted: its records are counted again");
                self.steps.aborted(what);
                for (partition, undo) in undo {
                    self.stage.undo(&mut self.held.get_mut(&partition).expect("held a moment ago").state, undo);
                }
                self.options.status.send_replace(Status::Retrying { why });
                self.aborted.get_or_insert_default().wait(stop);
                Ok(())
            }
            Err(Failed::Lost(error)) => {
                self.steps.aborted(Abort::Lost);
                Err(error)
            }
        }
    }

    fn transact(&mut self, next: &[(u32, u64)]) -> Result<(), Failed> {
        let (log, member) = (self.log, &self.member);
        let offsets = member.offsets(next.iter().copied());
        let offsets_first = sabotaged("sabotage::offset-before-state");
        if offsets_first {
            let transaction = self.producer.begin()?;
            match transaction.offsets(member, &offsets) {
                Ok(()) => transaction.commit()?,
                Err(error) => return Err(transaction.failed(Abort::Offsets, &error)),
            }
        }
        let transaction = self.producer.begin()?;
        // Sabotage: the first record comes after the offsets.
        let held_back = usize::from(sabotaged("sabotage::produce-after-offsets"));
        let produce = |record: StepRecord<'_>| {
            transaction.produce(log.full_name(record.topic), record.partition, record.key, record.value)
        };
        let prepared = self
            .step
            .records()
            .skip(held_back)
            .try_for_each(produce)
            .and_then(|()| {
                fail_point!("kafka::stage::produced");
                transaction.drain()
            })
            .map_err(|error| (Abort::Records, error))
            .and_then(|()| {
                fail_point!("kafka::stage::drained");
                let sent = if offsets_first { Ok(()) } else { transaction.offsets(member, &offsets) };
                sent.map_err(|error| (Abort::Offsets, error))
            });
        match prepared {
            Ok(()) => {
                fail_point!("kafka::stage::offsets_sent");
                let late = self.step.records().take(held_back).try_for_each(produce);
                late.map_err(|error| Failed::Aborted(Abort::Records, error.to_string()))?;
                let committed = transaction.commit();
                fail_point!("kafka::stage::committed");
                committed
            }
            Err((what, error)) => Err(transaction.failed(what, &error)),
        }
    }
}

/// rdkafka waits out a fraction of a millisecond by asking again and again, and takes a core for it.
fn whole_ms(wait: Duration) -> Duration {
    Duration::new(wait.as_secs(), wait.subsec_millis() * 1_000_000)
}
