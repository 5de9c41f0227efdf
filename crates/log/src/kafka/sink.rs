//! Runs a sink: Kafka deals out the partitions, the sink says where each goes on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fail::fail_point;
use millrace_contracts::{Next, ProjectionWrite, StoreError, Topic, WriteOutcome};
use rdkafka::consumer::{CommitMode, Consumer};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::KafkaLog;
use super::member::{Change, Event, Member};
use crate::fault::sabotaged;
use crate::metric::Lags;
use crate::worker::{self, Pauses};
use crate::{Batch, LogError, RunOptions, Sink, Status};

/// How long an idle worker waits in one poll; a stop is noticed after it.
const IDLE: Duration = Duration::from_millis(200);
/// Between two commits of the group's offsets. They are for people and lag tools only: the sink's own position decides.
const COMMITS: Duration = Duration::from_secs(1);

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
    held: BTreeMap<u32, Held>,
    /// What the group was told, and when.
    told: BTreeMap<u32, u64>,
    told_group: Instant,
    /// Dealt to us by the group, not taken up yet.
    arriving: Option<Vec<u32>>,
    /// The last write failed.
    retrying: bool,
    pauses: Pauses,
    lags: Lags,
}

struct Held {
    /// Where the sink stands, as it said last.
    stands: Option<u64>,
    /// Where reading began or goes on when nothing was read.
    from: u64,
    /// Read but not written.
    batch: Batch,
    /// The last stable offset was reached after the last record of the batch.
    at_end: bool,
    /// The sink was told that it is caught up.
    told: bool,
}

impl Held {
    /// The offset to be read next.
    fn next(&self) -> u64 {
        self.batch.next_offset().unwrap_or(self.from)
    }

    fn step(&self) -> Option<ProjectionWrite<'_, Batch>> {
        let news = !self.batch.is_empty() || (self.at_end && !self.told);
        let next = self.next();
        news.then_some(ProjectionWrite {
            partition: self.batch.partition(),
            items: &self.batch,
            expected: self.stands,
            next,
            caught_up: self.told || self.at_end,
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
            held: BTreeMap::new(),
            told: BTreeMap::new(),
            told_group: Instant::now(),
            arriving: None,
            retrying: false,
            pauses: Pauses::default(),
            lags: Lags::of(&options.role),
        })
    }

    fn run(mut self, stop: &CancellationToken) -> Result<(), LogError> {
        while !stop.is_cancelled() {
            self.collect()?;
            let written = match self.follow_changes() {
                Ok(()) => self.write(),
                Err(error) => Err(error),
            };
            match written {
                Ok(()) if self.retrying => {
                    (self.retrying, self.pauses) = (false, Pauses::default());
                    self.say_running();
                }
                Ok(()) => {}
                Err(Failure::Sink(error)) => self.hold_back(&error, stop)?,
                Err(Failure::Log(error)) => return Err(error),
            }
            if self.told_group.elapsed() >= COMMITS {
                self.tell_group();
            }
            let (held, member) = (&self.held, &self.member);
            let lag =
                |(&partition, held): (&u32, &Held)| Some((partition, member.lag(partition, held.from, &held.batch)?));
            self.lags.tell(|| held.iter().filter_map(lag).collect());
        }
        self.tell_group();
        Ok(())
    }

    fn tell_group(&mut self) {
        self.told_group = Instant::now();
        let taken = self.member.positions();
        let mut stands: BTreeMap<u32, u64> =
            self.held.iter().map(|(&partition, held)| (partition, held.from)).collect();
        for (partition, stands) in &mut stands {
            // Further by the marker of a transaction, which is nobody's to write: tools would show it as lag for good.
            if self.held[partition].batch.is_empty() {
                *stands = taken.get(partition).map_or(*stands, |&taken| taken.max(*stands));
            }
        }
        let news = stands.iter().filter(|&(partition, at)| self.told.get(partition) != Some(at));
        let news = self.member.offsets(news.map(|(&partition, &at)| (partition, at)));
        if news.count() > 0 {
            let _ = self.member.consumer().commit(&news, CommitMode::Async);
        }
        self.told = stands;
    }

    fn collect(&mut self) -> Result<(), LogError> {
        let limits = self.options.step;
        let began = Instant::now();
        let mut records: usize = self.held.values().map(|held| held.batch.len()).sum();
        let mut bytes: usize = self.held.values().map(|held| held.batch.bytes()).sum();
        let mut wait = if self.held.values().any(|held| held.step().is_some()) { Duration::ZERO } else { IDLE };
        while records < limits.records && bytes < limits.bytes && !self.member.changed() {
            let held = &mut self.held;
            let polled = self.member.poll(wait, |event| match event {
                Event::Record(partition, record) => {
                    // What is read again, however that comes, is in the batch or in the sink already.
                    let Some(held) = held.get_mut(&partition).filter(|held| record.offset >= held.next()) else {
                        return;
                    };
                    records += 1;
                    bytes += record.key.len() + record.value.map_or(0, <[u8]>::len);
                    held.at_end = false;
                    held.batch.push(record);
                }
                Event::End(partition) => {
                    if let Some(held) = held.get_mut(&partition) {
                        held.at_end = true;
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

    fn follow_changes(&mut self) -> Result<(), Failure> {
        if !self.member.changed() && self.arriving.is_none() {
            return Ok(());
        }
        for change in self.member.changes() {
            match change {
                Change::Assigned(partitions) => self.arriving = Some(partitions),
                Change::Revoked(partitions) => {
                    self.held.retain(|partition, _| !partitions.contains(partition));
                    self.told.retain(|partition, _| !partitions.contains(partition));
                }
            }
        }
        // Stays until the sink has said where each partition goes on; the group waits.
        if let Some(partitions) = &self.arriving {
            self.log.check_assigned(self.topic, partitions)?;
            let mut placed = Vec::new();
            for &partition in partitions {
                let stands = Handle::current().block_on(self.sink.position(partition)).map_err(Failure::Sink)?;
                placed.push((partition, self.place(partition, stands)?));
            }
            let positions: Vec<(u32, u64)> = placed.iter().map(|(partition, held)| (*partition, held.from)).collect();
            fail_point!("kafka::sink::positions");
            self.member.take_up(&positions)?;
            self.held.extend(placed);
            self.arriving = None;
        }
        self.say_running();
        Ok(())
    }

    fn say_running(&self) {
        self.options.status.send_replace(Status::Running { partitions: self.held.keys().copied().collect() });
    }

    /// Where the sink stands; from the start when it stands nowhere.
    fn place(&self, partition: u32, stands: Option<u64>) -> Result<Held, LogError> {
        let from = stands.map_or_else(|| self.member.bounds(partition).map(|(low, _)| low), Ok)?;
        Ok(Held { stands, from, batch: Batch::new(partition), at_end: false, told: false })
    }

    fn write(&mut self) -> Result<(), Failure> {
        let mut steps: Vec<(u32, ProjectionWrite<'_, Batch>)> =
            self.held.iter().filter_map(|(&partition, held)| Some((partition, held.step()?))).collect();
        if steps.is_empty() {
            return Ok(());
        }
        if sabotaged("sabotage::skip-position-check") {
            for (partition, step) in &mut steps {
                step.expected = Handle::current().block_on(self.sink.position(*partition)).map_err(Failure::Sink)?;
            }
        }
        let (partitions, steps): (Vec<u32>, Vec<ProjectionWrite<'_, Batch>>) = steps.into_iter().unzip();
        let nexts: Vec<(u64, bool)> = steps.iter().map(|step| (step.next, step.caught_up)).collect();
        let written = Handle::current().block_on(self.sink.write(&steps)).map_err(Failure::Sink)?;
        fail_point!("kafka::sink::written");
        for ((partition, (next, caught_up)), written) in partitions.into_iter().zip(nexts).zip(written) {
            match written {
                WriteOutcome::Applied => {
                    let held = self.held.get_mut(&partition).expect("held a moment ago");
                    (held.stands, held.from, held.told) = (Some(next), next, caught_up);
                    held.batch.clear();
                }
                WriteOutcome::PositionMismatch(stands) => {
                    tracing::info!(partition, ?stands, role = self.options.role, "the sink stands elsewhere");
                    let held = self.place(partition, stands)?;
                    self.member.seek(partition, held.from)?;
                    self.held.insert(partition, held);
                }
            }
        }
        Ok(())
    }

    /// After a failed write: the batches stay, reading rests, and the group hears that we are alive.
    fn hold_back(&mut self, error: &StoreError, stop: &CancellationToken) -> Result<(), LogError> {
        match error.next {
            Next::Stop => return Err(LogError::Refused(error.to_string())),
            Next::Retry | Next::Skip => {}
        }
        tracing::warn!(role = self.options.role, %error, "trying again after a pause");
        self.retrying = true;
        self.options.status.send_replace(Status::Retrying { why: error.to_string() });
        let resting: Vec<u32> = self.held.keys().copied().collect();
        self.member.pause(resting.iter().copied())?;
        self.pauses.wait(stop);
        self.member.poll(Duration::ZERO, |_| {})?;
        // Also after a rebalance: what was kept must go on.
        self.member.resume(resting)?;
        Ok(())
    }
}

enum Failure {
    Sink(StoreError),
    Log(LogError),
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}
