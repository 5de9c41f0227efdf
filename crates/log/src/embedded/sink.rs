//! Runs a sink over what is durable; the sink says where each partition goes on.

use std::sync::Arc;
use std::time::Duration;

use fail::fail_point;
use millrace_contracts::{Next, ProjectionWrite, StoreError, WriteOutcome};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::layout::Partition;
use super::reader::Reader;
use crate::fault::sabotaged;
use crate::metric::Lags;
use crate::worker::{self, Pauses};
use crate::{Batch, Limits, LogError, Polled, RunOptions, Sink, Status};

/// How long an idle worker waits in one poll; a stop is noticed after it.
const IDLE: Duration = Duration::from_millis(200);

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
    held: Vec<Held>,
    reader: Reader,
    lags: Lags,
}

#[derive(Clone, Copy, Default)]
struct Held {
    /// Where the sink stands, as it said last.
    stands: Option<u64>,
    /// Where reading goes on after the steps written.
    from: u64,
    /// The sink was told that it is caught up.
    told: bool,
}

impl<'a, S: Sink> Worker<'a, S> {
    /// `None` when `stop` came first.
    fn start(
        shared: &'a Arc<Shared>,
        mut sink: S,
        options: &'a RunOptions,
        stop: &CancellationToken,
    ) -> Result<Option<Self>, LogError> {
        let partitions = shared.config.partitions;
        let mut positions = Vec::new();
        for partition in 0..partitions {
            let asked = insist(options, stop, || Handle::current().block_on(sink.position(partition)))?;
            let Some(position) = asked else { return Ok(None) };
            positions.push(position);
        }
        fail_point!("embedded::sink::positions");
        let reader = Reader::open(shared, sink.topic(), &[])?;
        let held = vec![Held::default(); partitions as usize];
        let mut worker = Self { shared, sink, options, held, reader, lags: Lags::of(&options.role) };
        for (partition, position) in (0..partitions).zip(positions) {
            worker.place(partition, position)?;
        }
        worker.running();
        Ok(Some(worker))
    }

    fn running(&self) {
        let partitions = (0..self.shared.config.partitions).collect();
        self.options.status.send_replace(Status::Running { partitions });
    }

    /// Goes on reading where the sink stands; from the start when it stands nowhere.
    fn place(&mut self, partition: u32, stands: Option<u64>) -> Result<(), LogError> {
        let held = self.shared.layout.get(self.sink.topic(), partition)?;
        let begin = if held.latest.is_some() { 0 } else { held.start() };
        let from = stands.unwrap_or(begin);
        self.held[partition as usize] = Held { stands, from, told: false };
        self.reader.place(self.sink.topic(), partition, from)
    }

    fn run(mut self, stop: &CancellationToken) -> Result<(), LogError> {
        let mut batch = Batch::default();
        let limits = Limits { wait: IDLE, ..self.options.step };
        while !stop.is_cancelled() {
            self.shared.check()?;
            self.tell_lags();
            let (partition, caught_up) = match self.reader.poll(&mut batch, limits)? {
                Polled::Records => (batch.partition(), self.reader.at_end(batch.partition())),
                Polled::CaughtUp { partition, .. } if !self.held[partition as usize].told => (partition, true),
                Polled::CaughtUp { .. } | Polled::Nothing => continue,
            };
            self.write(partition, &batch, caught_up, stop)?;
        }
        Ok(())
    }

    fn tell_lags(&mut self) {
        let (shared, topic, held) = (self.shared, self.sink.topic(), &self.held);
        let lag =
            |(partition, held): (&Partition, &Held)| (partition.number, partition.end().saturating_sub(held.from));
        self.lags.tell(|| shared.layout.of(topic).zip(held).map(lag).collect());
    }

    fn write(
        &mut self,
        partition: u32,
        batch: &Batch,
        caught_up: bool,
        stop: &CancellationToken,
    ) -> Result<(), LogError> {
        let held = self.held[partition as usize];
        let empty = Batch::new(partition);
        let batch = if batch.is_empty() { &empty } else { batch };
        // The end of a compacted replay may lie past the newest record that is left.
        let reached = self.reader.position(partition).filter(|_| caught_up || batch.is_empty());
        let next = reached.or(batch.next_offset()).unwrap_or(held.from);
        let caught_up = held.told || caught_up;
        let options = self.options;
        let written = insist(options, stop, || {
            self.tell_lags();
            let runtime = Handle::current();
            let unchecked = sabotaged("sabotage::skip-position-check");
            let expected = if unchecked { runtime.block_on(self.sink.position(partition))? } else { held.stands };
            runtime.block_on(self.sink.write(&[ProjectionWrite { partition, expected, next, caught_up, items: batch }]))
        })?;
        fail_point!("embedded::sink::written");
        let Some(written) = written else { return Ok(()) };
        match written.first() {
            Some(WriteOutcome::Applied) => {
                self.held[partition as usize] = Held { stands: Some(next), from: next, told: caught_up };
            }
            Some(WriteOutcome::PositionMismatch(stands)) => {
                tracing::info!(partition, ?stands, role = self.options.role, "the sink stands elsewhere");
                self.place(partition, *stands)?;
            }
            None => return Err(LogError::Refused("the sink did not say what became of a step".into())),
        }
        Ok(())
    }
}

/// Tries until the sink takes it; `None` when `stop` came first.
fn insist<T>(
    options: &RunOptions,
    stop: &CancellationToken,
    mut attempt: impl FnMut() -> Result<T, StoreError>,
) -> Result<Option<T>, LogError> {
    let mut pauses = Pauses::default();
    let before = options.status.borrow().clone();
    loop {
        let error = match attempt() {
            Ok(done) => {
                options.status.send_if_modified(|status| {
                    let healed = matches!(status, Status::Retrying { .. });
                    if healed {
                        status.clone_from(&before);
                    }
                    healed
                });
                return Ok(Some(done));
            }
            Err(error) => error,
        };
        match error.next {
            Next::Stop => return Err(LogError::Refused(error.to_string())),
            // A sink never skips.
            Next::Retry | Next::Skip => {}
        }
        tracing::warn!(role = options.role, %error, "the sink is tried again after a pause");
        options.status.send_replace(Status::Retrying { why: error.to_string() });
        if pauses.wait(stop) {
            return Ok(None);
        }
    }
}
