//! Runs a sink: Kafka assigns the partitions, the sink's own position decides where each resumes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use millrace_base::Backoff;
use millrace_contracts::{Next, ProjectionPosition, ProjectionWrite, StoreError, Topic, WriteOutcome};
use rdkafka::consumer::{CommitMode, Consumer};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::KafkaLog;
use super::group::set_owner;
use super::member::{Member, PollEvent, Rebalance};
use crate::metric::LagGauges;
use crate::{Batch, LogError, RunOptions, Sink, SinkCopy, Status, fault, worker};

/// The longest wait of one poll, after which an idle worker notices a stop.
const IDLE: Duration = Duration::from_millis(200);
/// Between two commits of the group's offsets. They are for operators and lag tools only: the sink's position decides.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// Between two commits of all offsets, also of those that did not change: librdkafka reports the result of an
/// asynchronous commit to a callback that rdkafka does not set, so a failed one is repeated without knowing of it.
const COMMIT_ALL_INTERVAL: Duration = Duration::from_secs(10);

impl KafkaLog {
    pub(crate) async fn run_sink<S: Sink>(
        &self,
        sink: impl Fn() -> S + Send + Sync + 'static,
        options: RunOptions,
        stop: CancellationToken,
    ) -> Result<(), LogError> {
        let (log, sink) = (self.clone(), std::sync::Arc::new(sink));
        let workers = options.workers;
        worker::run(options, workers, stop, move |options, index, stop| {
            Worker::start(&log, sink(), options, index)?.run(stop)
        })
        .await
    }
}

struct Worker<'a, S> {
    log: &'a KafkaLog,
    topic: Topic,
    sink: S,
    options: &'a RunOptions,
    member: Member,
    partitions: BTreeMap<u32, SinkPartition>,
    /// The group's offsets as committed last, and when.
    committed: BTreeMap<u32, u64>,
    committed_at: Instant,
    /// When all offsets were committed last.
    committed_all_at: Instant,
    /// Newly assigned partitions without a position yet.
    arriving: Option<Vec<u32>>,
    /// Whether the last write failed.
    retrying: bool,
    backoff: Backoff,
    lags: LagGauges,
}

/// An assigned partition.
struct SinkPartition {
    /// The sink's position, as it returned last.
    position: Option<ProjectionPosition>,
    /// The offset at which reading began, or resumes if the batch is empty.
    from: u64,
    /// Records read but not written.
    batch: Batch,
    /// Whether the last stable offset was reached after the last record of the batch.
    at_end: bool,
    /// Whether the sink has received `caught_up`.
    caught_up: bool,
}

impl SinkPartition {
    /// The offset to read next.
    fn next(&self) -> u64 {
        self.batch.next_offset().unwrap_or(self.from)
    }

    /// The identity of the record before [`next`](Self::next).
    fn last_record(&self) -> Option<u64> {
        match self.batch.last() {
            Some(record) => Some(record.identity()),
            None => self.position?.last_record,
        }
    }

    fn pending_write(&self) -> Option<ProjectionWrite<'_, Batch>> {
        let pending = !self.batch.is_empty() || (self.at_end && !self.caught_up);
        pending.then_some(ProjectionWrite {
            partition: self.batch.partition(),
            expected: self.position.map(|position| position.next_offset),
            next: self.next(),
            last_record: self.last_record(),
            caught_up: self.caught_up || self.at_end,
            counted: None,
            items: &self.batch,
        })
    }
}

impl<'a, S: Sink> Worker<'a, S> {
    fn start(log: &'a KafkaLog, sink: S, options: &'a RunOptions, index: usize) -> Result<Self, LogError> {
        let group = log.0.names.group(&options.role);
        let member = log.0.config.member(&group, &options.instance, index);
        let topic = sink.topic();
        let member = Member::join(&member, log.full_name(topic))?;
        Ok(Self {
            log,
            topic,
            sink,
            options,
            member,
            partitions: BTreeMap::new(),
            committed: BTreeMap::new(),
            committed_at: Instant::now(),
            committed_all_at: Instant::now(),
            arriving: None,
            retrying: false,
            backoff: worker::backoff(),
            lags: LagGauges::of(&options.role),
        })
    }

    fn run(mut self, stop: &CancellationToken) -> Result<(), LogError> {
        while !stop.is_cancelled() {
            self.collect()?;
            let written = match self.apply_rebalances() {
                Ok(()) => self.write(),
                Err(error) => Err(error),
            };
            match written {
                Ok(()) if self.retrying => {
                    self.retrying = false;
                    self.backoff.reset();
                    self.report_running();
                }
                Ok(()) => {}
                Err(SinkFailure::Sink(error)) => self.back_off(error, stop)?,
                Err(SinkFailure::Log(error)) => return Err(error),
            }
            if self.committed_at.elapsed() >= COMMIT_INTERVAL {
                self.commit_offsets();
            }
            let (partitions, member) = (&self.partitions, &self.member);
            let lag = |(&number, partition): (&u32, &SinkPartition)| {
                Some((number, member.lag(number, partition.from, &partition.batch)?))
            };
            self.lags.report(|| partitions.iter().filter_map(lag).collect());
        }
        self.commit_offsets();
        Ok(())
    }

    fn commit_offsets(&mut self) {
        self.committed_at = Instant::now();
        if self.committed_all_at.elapsed() >= COMMIT_ALL_INTERVAL {
            self.committed_all_at = self.committed_at;
            self.committed.clear();
        }
        let consumed = self.member.positions();
        let mut offsets: BTreeMap<u32, u64> =
            self.partitions.iter().map(|(&number, partition)| (number, partition.from)).collect();
        for (number, offset) in &mut offsets {
            // Past the marker of a transaction, which is never written: tools would show it as lag for ever, and retention
            // may pass it. Only from the end: after a seek the consumer's position may still be the one before.
            if self.partitions[number].batch.is_empty() && self.partitions[number].at_end {
                *offset = consumed.get(number).map_or(*offset, |&consumed| consumed.max(*offset));
            }
        }
        let changed = offsets.iter().filter(|&(number, offset)| self.committed.get(number) != Some(offset));
        let mut changed = self.member.offsets(changed.map(|(&number, &offset)| (number, offset)));
        if changed.count() > 0 {
            let position = |number: u32| Some(self.partitions.get(&number)?.position?.next_offset);
            set_owner(&mut changed, self.sink.copy_id(), position);
            if self.member.consumer().commit(&changed, CommitMode::Async).is_err() {
                return;
            }
        }
        self.committed = offsets;
    }

    fn collect(&mut self) -> Result<(), LogError> {
        let limits = self.options.step;
        let began = Instant::now();
        let mut records: usize = self.partitions.values().map(|partition| partition.batch.len()).sum();
        let mut bytes: usize = self.partitions.values().map(|partition| partition.batch.bytes()).sum();
        let pending = self.partitions.values().any(|partition| partition.pending_write().is_some());
        let mut wait = if pending { Duration::ZERO } else { IDLE };
        while records < limits.records && bytes < limits.bytes && !self.member.changed() {
            let partitions = &mut self.partitions;
            let polled = self.member.poll(wait, |event| match event {
                PollEvent::Record(number, record, _) => {
                    // Skips records that are read again, for whatever reason: they are in the batch or in the sink.
                    let partition = partitions.get_mut(&number);
                    let Some(partition) = partition.filter(|partition| record.offset >= partition.next()) else {
                        return;
                    };
                    if record.is_marker() {
                        return;
                    }
                    records += 1;
                    bytes += record.key.len() + record.value.map_or(0, <[u8]>::len);
                    partition.at_end = false;
                    partition.batch.push(record);
                }
                PollEvent::End(number) => {
                    if let Some(partition) = partitions.get_mut(&number) {
                        partition.at_end = true;
                    }
                }
            })?;
            if !polled || began.elapsed() >= limits.wait {
                break;
            }
            wait = Duration::ZERO;
        }
        Ok(())
    }

    fn apply_rebalances(&mut self) -> Result<(), SinkFailure> {
        if !self.member.changed() && self.arriving.is_none() {
            return Ok(());
        }
        for rebalance in self.member.take_rebalances() {
            match rebalance {
                Rebalance::Assigned(partitions) => self.arriving = Some(partitions),
                Rebalance::Revoked(partitions) => {
                    self.partitions.retain(|number, _| !partitions.contains(number));
                    self.committed.retain(|number, _| !partitions.contains(number));
                }
            }
        }
        // Remains until the sink has returned the position of each partition; the group waits.
        if let Some(numbers) = &self.arriving {
            self.log.check_assigned(self.topic, numbers)?;
            let mut stored = Vec::new();
            for &number in numbers {
                stored
                    .push((number, Handle::current().block_on(self.sink.position(number)).map_err(SinkFailure::Sink)?));
            }
            let resumed = self.resume(&stored)?;
            let arrived = stored.into_iter().map(|(number, position)| {
                Ok((number, self.partition_at(number, position, resumed.get(&number).copied())?))
            });
            let arrived: Vec<(u32, SinkPartition)> = arrived.collect::<Result<_, LogError>>()?;
            let positions: Vec<(u32, u64)> =
                arrived.iter().map(|(number, partition)| (*number, partition.from)).collect();
            fault::point("kafka::sink::positions");
            self.member.assign(&positions)?;
            self.partitions.extend(arrived);
            self.arriving = None;
        }
        self.report_running();
        Ok(())
    }

    fn report_running(&self) {
        self.options.status.send_replace(Status::Running { partitions: self.partitions.keys().copied().collect() });
    }

    /// Where reading resumes for the sink's positions; refuses those of another log.
    fn resume(&self, stored: &[(u32, Option<ProjectionPosition>)]) -> Result<BTreeMap<u32, u64>, LogError> {
        let positions: Vec<_> = stored.iter().filter_map(|&(number, position)| Some((number, position?))).collect();
        let copy = SinkCopy { role: &self.options.role, id: self.sink.copy_id() };
        let resumed = self.log.resume(self.topic, &positions, Some(copy).filter(|copy| copy.id != 0));
        resumed.map(|resumed| resumed.into_iter().collect()).map_err(|error| error.advise(&self.sink.remedy()))
    }

    /// A partition that resumes at `resumed`; at its first offset if the sink has no position.
    fn partition_at(
        &self,
        number: u32,
        position: Option<ProjectionPosition>,
        resumed: Option<u64>,
    ) -> Result<SinkPartition, LogError> {
        let from = resumed.map_or_else(|| self.member.bounds(number).map(|(low, _)| low), Ok)?;
        Ok(SinkPartition { position, from, batch: Batch::new(number), at_end: false, caught_up: false })
    }

    fn write(&mut self) -> Result<(), SinkFailure> {
        let mut writes: Vec<ProjectionWrite<'_, Batch>> =
            self.partitions.values().filter_map(SinkPartition::pending_write).collect();
        if writes.is_empty() {
            return Ok(());
        }
        fault::expect_any_position(&mut self.sink, &mut writes).map_err(SinkFailure::Sink)?;
        let position = |write: &ProjectionWrite<'_, _>| ProjectionPosition {
            next_offset: write.next,
            last_record: write.last_record,
        };
        let written: Vec<(u32, ProjectionPosition, bool)> =
            writes.iter().map(|write| (write.partition, position(write), write.caught_up)).collect();
        let outcomes = Handle::current().block_on(self.sink.write(&writes)).map_err(SinkFailure::Sink)?;
        fault::point("kafka::sink::written");
        for ((number, position, caught_up), outcome) in written.into_iter().zip(outcomes) {
            match outcome {
                WriteOutcome::Applied => {
                    let partition = self.partitions.get_mut(&number).expect("assigned at the begin of the write");
                    (partition.position, partition.from) = (Some(position), position.next_offset);
                    partition.caught_up = caught_up;
                    partition.batch.clear();
                }
                WriteOutcome::PositionMismatch(position) => {
                    tracing::info!(
                        partition = number,
                        ?position,
                        role = self.options.role,
                        "the sink has another position: resuming there"
                    );
                    let position = Handle::current().block_on(self.sink.position(number)).map_err(SinkFailure::Sink)?;
                    let resumed = self.resume(&[(number, position)])?;
                    let partition = self.partition_at(number, position, resumed.get(&number).copied())?;
                    self.member.seek(number, partition.from)?;
                    self.partitions.insert(number, partition);
                }
            }
        }
        Ok(())
    }

    /// Pauses after a failed write. The batches remain, and the member polls, so that the group retains it.
    fn back_off(&mut self, error: StoreError, stop: &CancellationToken) -> Result<(), LogError> {
        match error.next {
            Next::Stop => return Err(LogError::refused(error.to_string()).because(error)),
            // A sink never skips.
            Next::Retry | Next::Skip => {}
        }
        tracing::warn!(role = self.options.role, %error, "the sink failed: retrying after a pause");
        self.retrying = true;
        self.options.status.send_replace(Status::Retrying { why: error.to_string() });
        let paused: Vec<u32> = self.partitions.keys().copied().collect();
        self.member.pause_reading(&paused, self.backoff.next_pause(), stop)
    }
}

/// The reason why a round of a worker failed.
enum SinkFailure {
    Sink(StoreError),
    Log(LogError),
}

impl From<LogError> for SinkFailure {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}
