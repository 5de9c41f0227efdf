//! One import from beginning to end: read, send, book.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::task::{JoinSet, block_in_place};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::batch::{Batch, Cutter};
use super::checkpoint::{Checkpoint, Place};
use super::identity::{Identity, ids};
use super::ledger::Ledger;
use super::records::Failure;
use super::sender::{Sender, Service, Settled};
use super::source::Opened;
use super::{Input, Report, Stop};
use crate::load::Target;

/// Batches for each connection that are read and not yet booked. What is sent again is at most these: far fewer records than
/// the processor remembers ids of, so that an import never outruns the memory for its own oldest batch.
const AHEAD: usize = 2;

/// Everything that decides an import.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What is read.
    pub(crate) input: Input,
    /// Where the checkpoint is kept if not beside the file.
    pub(crate) state: Option<PathBuf>,
    /// Whether a file that was imported to its end is imported once more.
    pub(crate) again: bool,
    /// Makes other event ids: of a second import, or of the standard input.
    pub(crate) salt: u64,
    /// Command services.
    pub(crate) commands: Vec<Target>,
    /// Number of connections.
    pub(crate) connections: usize,
    /// Most events of a batch.
    pub(crate) batch: usize,
    /// For one connect, one request, one answer.
    pub(crate) timeout: Duration,
    /// How long a batch is offered.
    pub(crate) patience: Duration,
}

/// Imports, and says what came of it; also how far it came if it could not go on.
pub(crate) async fn run(plan: Plan) -> (Option<Report>, Result<(), Stop>) {
    let began = Instant::now();
    let opened = match block_in_place(|| plan.input.open()) {
        Ok(opened) => opened,
        Err(stop) => return (None, Err(stop)),
    };
    let place = opened.as_ref().map(|opened| Place::of(&opened.path, plan.state.as_deref()));
    let checkpoint = match begin(&plan, opened.as_ref(), place.as_ref()) {
        Ok(checkpoint) => checkpoint,
        Err(stop) => return (None, Err(stop)),
    };
    let from = checkpoint.mark;
    let mut ledger = Ledger::new(checkpoint, place.clone());
    let ended = import(&plan, opened, &mut ledger).await;
    let report = Report {
        counts: ledger.counts().clone(),
        from,
        to: ledger.checkpoint().mark,
        completed: ledger.checkpoint().completed,
        took: began.elapsed(),
        place,
    };
    (Some(report), ended)
}

/// The checkpoint to go on from, or a new one.
fn begin(plan: &Plan, opened: Option<&Opened>, place: Option<&Place>) -> Result<Checkpoint, Stop> {
    let format = plan.input.format();
    let (Some(opened), Some(place)) = (opened, place) else {
        return Ok(Checkpoint::new(Identity { hash: 0, size: 0 }, format, plan.salt));
    };
    let (file, checkpoint) = (opened.path.clone(), place.checkpoint.clone());
    match place.load()? {
        None => Ok(Checkpoint::new(opened.identity, format, 0)),
        Some(last) if !last.is_of(opened.identity) => Err(Stop::Changed { file, checkpoint }),
        Some(last) if last.completed && plan.again => Ok(Checkpoint::new(opened.identity, format, plan.salt)),
        Some(last) if last.completed => Err(Stop::Completed { file, checkpoint }),
        Some(last) if last.format != format => Err(Stop::OtherFormat { checkpoint, format: last.format }),
        Some(last) => Ok(last),
    }
}

async fn import(plan: &Plan, opened: Option<Opened>, ledger: &mut Ledger) -> Result<(), Stop> {
    let identity = opened.as_ref().map(|opened| opened.identity);
    let ids = ids(identity.map_or(0, |identity| identity.hash), ledger.checkpoint().salt);
    let records = plan.input.records(opened, ledger.checkpoint().mark)?;
    // A new import of a file forgets the rejects of the one before, and leaves its checkpoint before anything is sent: an
    // import that is killed at once has its salt.
    ledger.open()?;
    let reading = Reading {
        cutter: Cutter::new(records, ids, plan.batch),
        size: identity.map(|identity| identity.size),
        input: plan.input.clone(),
        room: Arc::new(Semaphore::new(plan.connections * AHEAD)),
    };
    let room = reading.room.clone();
    let stop = CancellationToken::new();
    let (batches, taken) = mpsc::channel(plan.connections);
    let (settled, mut results) = mpsc::channel(plan.connections);
    let reader = tokio::task::spawn_blocking(move || reading.run(&batches));
    let mut senders = send(plan, taken, &settled, &stop);
    drop(settled);

    let bar = bar(identity);
    let mut ended = Ok(());
    while let Some(one) = results.recv().await {
        ledger.take(one);
        // Whatever was settled during the last write goes into this one.
        while let Ok(more) = results.try_recv() {
            ledger.take(more);
        }
        if ended.is_ok() {
            ended = block_in_place(|| ledger.advance());
            if ended.is_err() {
                stop.cancel();
            }
        }
        bar.set_position(ledger.checkpoint().mark.offset);
    }
    room.close();
    bar.finish_and_clear();
    while let Some(sender) = senders.join_next().await {
        ended = ended.and(sender.map_err(|e| Stop::Broken(e.to_string())).flatten());
    }
    // What could not be sent comes before what could not be read: it is the earlier line.
    ended.and(reader.await.map_err(|e| Stop::Broken(e.to_string())).flatten())?;
    ledger.complete()
}

/// Starts the senders. Each ends when there is nothing more to send or another one failed.
fn send(
    plan: &Plan,
    batches: mpsc::Receiver<Batch>,
    settled: &mpsc::Sender<Settled>,
    stop: &CancellationToken,
) -> JoinSet<Result<(), Stop>> {
    let (timeout, patience) = (plan.timeout, plan.patience);
    let service = Arc::new(Service { targets: plan.commands.clone(), timeout, patience });
    let batches = Arc::new(Mutex::new(batches));
    let mut senders = JoinSet::new();
    for number in 0..plan.connections {
        let (batches, settled, stop) = (batches.clone(), settled.clone(), stop.clone());
        let mut sender = Sender::new(service.clone(), number);
        senders.spawn(async move {
            let next = async || batches.lock().await.recv().await;
            while let Some(Some(batch)) = stop.run_until_cancelled(next()).await {
                let done = sender.settle(batch, &stop).await.inspect_err(|_| stop.cancel())?;
                let Some(done) = done else { break };
                // Nobody takes it only if the import has failed.
                let _ = settled.send(done).await;
            }
            Ok(())
        });
    }
    senders
}

/// The reading end, on a thread of its own.
struct Reading {
    cutter: Cutter,
    /// Of a file.
    size: Option<u64>,
    input: Input,
    room: Arc<Semaphore>,
}

impl Reading {
    fn run(mut self, batches: &mpsc::Sender<Batch>) -> Result<(), Stop> {
        let handle = Handle::current();
        // No room any more, or nobody who takes batches: the senders say why.
        while let Ok(permit) = handle.block_on(self.room.clone().acquire_owned()) {
            match self.cutter.next(permit) {
                Ok(Some(batch)) => {
                    if batches.blocking_send(batch).is_err() {
                        break;
                    }
                }
                Ok(None) if self.size.is_some_and(|size| size != self.cutter.mark().offset) => {
                    return Err(Stop::ChangedNow(self.input.name().to_owned()));
                }
                Ok(None) => break,
                Err(Failure::Io(why)) => return Err(Stop::file(self.input.name())(why)),
                Err(Failure::Stop(stop)) => return Err(stop),
            }
        }
        Ok(())
    }
}

fn bar(file: Option<Identity>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(file.map(|file| file.size), ProgressDrawTarget::stderr());
    let style = match file {
        Some(_) => "{elapsed_precise} [{bar:40}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
        None => "{elapsed_precise} {bytes}, {bytes_per_sec}",
    };
    bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}
