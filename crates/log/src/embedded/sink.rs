//! Runs a sink over synced records. The sink's own position decides where each partition resumes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_contracts::{Next, ProjectionPosition, ProjectionWrite, StoreError, WriteOutcome};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::consumers::Need;
use super::partition::Partition;
use super::reader::{self, Reader};
use crate::metric::{Lag, LagGauges};
use crate::{Batch, GroupPosition, Limits, LogError, PollOutcome, RunOptions, Sink, Status, fault, worker};

/// The longest wait of one poll, after which an idle worker notices a stop.
const IDLE: Duration = Duration::from_millis(200);
/// Between two commits of the group's position. It is for tools only: the sink's position decides.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

pub(super) async fn run<S: Sink>(
    shared: Arc<Shared>,
    sink: impl Fn() -> S + Send + Sync + 'static,
    options: RunOptions,
    stop: CancellationToken,
) -> Result<(), LogError> {
    let sink = Arc::new(sink);
    worker::run(options, 1, stop, move |options, _, stop| {
        let started = Worker::start(&shared, sink(), options, stop);
        let ended = started.and_then(|worker| worker.map_or(Ok(()), |worker| worker.run(stop)));
        ended.map_err(|error| shared.or_failure(error))
    })
    .await
}

struct Worker<'a, S> {
    shared: &'a Arc<Shared>,
    sink: S,
    options: &'a RunOptions,
    /// By partition.
    cursors: Vec<SinkCursor>,
    reader: Reader,
    lags: LagGauges,
    /// The group's position in each partition as committed last, and when.
    committed: BTreeMap<u32, u64>,
    committed_at: Instant,
}

/// The position of the sink in one partition.
#[derive(Clone, Copy, Default)]
struct SinkCursor {
    /// The sink's position, as it returned last.
    position: Option<ProjectionPosition>,
    /// The offset at which reading resumes after the writes so far.
    from: u64,
    /// Whether the sink has received `caught_up`.
    caught_up: bool,
}

impl<'a, S: Sink> Worker<'a, S> {
    /// `None` if `stop` ended the start.
    fn start(
        shared: &'a Arc<Shared>,
        mut sink: S,
        options: &'a RunOptions,
        stop: &CancellationToken,
    ) -> Result<Option<Self>, LogError> {
        let partitions = shared.topics.get(sink.topic()).partitions;
        shared.consumers.register(&options.role, sink.topic(), partitions);
        let mut positions = Vec::new();
        for partition in 0..partitions {
            let position = retry(options, stop, || Handle::current().block_on(sink.position(partition)))?;
            let Some(position) = position else { return Ok(None) };
            positions.push(position);
        }
        fault::point("embedded::sink::positions");
        let reader = Reader::open(shared, sink.topic(), &[])?;
        let cursors = vec![SinkCursor::default(); partitions as usize];
        let lags = LagGauges::of(&options.role);
        let (committed, committed_at) = (BTreeMap::new(), Instant::now());
        let mut worker = Self { shared, sink, options, cursors, reader, lags, committed, committed_at };
        for (partition, position) in (0..partitions).zip(positions) {
            worker.resume_at(partition, position)?;
        }
        worker.report_running(partitions);
        Ok(Some(worker))
    }

    fn report_running(&self, partitions: u32) {
        self.options.status.send_replace(Status::Running { partitions: (0..partitions).collect() });
    }

    /// Resumes reading at the sink's position; at the start if it has none.
    fn resume_at(&mut self, number: u32, position: Option<ProjectionPosition>) -> Result<(), LogError> {
        if let Some(position) = position {
            let checked = reader::check_positions(self.shared, self.sink.topic(), &[(number, position)]);
            checked.map_err(|error| error.advise(&self.sink.remedy()))?;
        }
        let partition = self.shared.layout.get(self.sink.topic(), number)?;
        let begin = if partition.latest.is_some() { 0 } else { partition.start() };
        let from = position.map_or(begin, |position| position.next_offset);
        self.shared.consumers.needs(&self.options.role, self.sink.topic(), number, Need::at(from));
        self.cursors[number as usize] = SinkCursor { position, from, caught_up: false };
        self.reader.assign(number, from)
    }

    fn run(mut self, stop: &CancellationToken) -> Result<(), LogError> {
        let mut batch = Batch::default();
        let limits = Limits { wait: IDLE, ..self.options.step };
        while !stop.is_cancelled() {
            self.shared.check()?;
            self.report_lags();
            if self.committed_at.elapsed() >= COMMIT_INTERVAL {
                self.commit_group();
            }
            let (partition, caught_up) = match self.reader.poll(&mut batch, limits)? {
                PollOutcome::Records => (batch.partition(), self.reader.at_end(batch.partition())),
                PollOutcome::CaughtUp { partition, .. } if !self.cursors[partition as usize].caught_up => {
                    (partition, true)
                }
                PollOutcome::CaughtUp { .. } | PollOutcome::Nothing => continue,
            };
            self.write(partition, &batch, caught_up, stop)?;
        }
        self.commit_group();
        Ok(())
    }

    /// Only a copy with a name needs it: any other store's position cannot be mistaken.
    fn commit_group(&mut self) {
        self.committed_at = Instant::now();
        let (copy_id, topic) = (self.sink.copy_id(), self.sink.topic());
        for (partition, cursor) in (0..).zip(&self.cursors).filter(|_| copy_id != 0) {
            let committed = self.committed.get(&partition);
            let next_offset = cursor.position.map(|position| position.next_offset);
            let Some(next_offset) = next_offset.filter(|at| committed != Some(at)) else { continue };
            let position = GroupPosition { next_offset, copy_id };
            match self.shared.commit_group(&self.options.role, topic, partition, position) {
                Ok(()) => _ = self.committed.insert(partition, next_offset),
                Err(error) => tracing::warn!(role = self.options.role, %error, "cannot commit the group's position"),
            }
        }
    }

    fn report_lags(&mut self) {
        let (shared, topic, cursors) = (self.shared, self.sink.topic(), &self.cursors);
        let lag = |(partition, cursor): (&Partition, &SinkCursor)| {
            (partition.number, Lag { stable: partition.end().saturating_sub(cursor.from), open: 0 })
        };
        self.lags.report(|| shared.layout.of(topic).zip(cursors).map(lag).collect());
    }

    fn write(
        &mut self,
        partition: u32,
        batch: &Batch,
        caught_up: bool,
        stop: &CancellationToken,
    ) -> Result<(), LogError> {
        let cursor = self.cursors[partition as usize];
        let empty = Batch::new(partition);
        let batch = if batch.is_empty() { &empty } else { batch };
        // The end of a compacted read may be past the newest remaining record.
        let reached = self.reader.position(partition).filter(|_| caught_up || batch.is_empty());
        let next = reached.or(batch.next_offset()).unwrap_or(cursor.from);
        // None between the newest remaining record and the end of a compacted read.
        let last_record = match batch.last() {
            Some(record) => (record.offset + 1 == next).then(|| record.identity()),
            None => cursor.position.filter(|position| position.next_offset == next).and_then(|it| it.last_record),
        };
        let caught_up = cursor.caught_up || caught_up;
        let options = self.options;
        let outcomes = retry(options, stop, || {
            self.report_lags();
            let expected = cursor.position.map(|position| position.next_offset);
            let write =
                ProjectionWrite { partition, expected, next, last_record, caught_up, counted: None, items: batch };
            let mut writes = [write];
            fault::expect_any_position(&mut self.sink, &mut writes)?;
            Handle::current().block_on(self.sink.write(&writes))
        })?;
        fault::point("embedded::sink::written");
        let Some(outcomes) = outcomes else { return Ok(()) };
        match outcomes.first() {
            Some(WriteOutcome::Applied) => {
                let position = Some(ProjectionPosition { next_offset: next, last_record });
                self.cursors[partition as usize] = SinkCursor { position, from: next, caught_up };
                self.shared.consumers.needs(&self.options.role, self.sink.topic(), partition, Need::at(next));
            }
            Some(WriteOutcome::PositionMismatch(position)) => {
                let role = &self.options.role;
                tracing::info!(partition, ?position, role, "the sink has another position: resuming there");
                let position = retry(options, stop, || Handle::current().block_on(self.sink.position(partition)))?;
                let Some(position) = position else { return Ok(()) };
                self.resume_at(partition, position)?;
            }
            None => return Err(LogError::refused("the sink returned no outcome of a write")),
        }
        Ok(())
    }
}

/// Tries until the sink succeeds, with pauses; `None` if `stop` ended it.
fn retry<T>(
    options: &RunOptions,
    stop: &CancellationToken,
    mut attempt: impl FnMut() -> Result<T, StoreError>,
) -> Result<Option<T>, LogError> {
    let mut backoff = worker::backoff();
    let before = options.status.borrow().clone();
    loop {
        let error = match attempt() {
            Ok(result) => {
                options.status.send_if_modified(|status| {
                    let retried = matches!(status, Status::Retrying { .. });
                    if retried {
                        status.clone_from(&before);
                    }
                    retried
                });
                return Ok(Some(result));
            }
            Err(error) => error,
        };
        match error.next {
            Next::Stop => return Err(LogError::refused(error.to_string()).because(error)),
            // A sink never skips.
            Next::Retry | Next::Skip => {}
        }
        tracing::warn!(role = options.role, %error, "the sink failed: retrying after a pause");
        options.status.send_replace(Status::Retrying { why: error.to_string() });
        if worker::pause(&mut backoff, stop) {
            return Ok(None);
        }
    }
}
