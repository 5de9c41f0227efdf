//! An import from beginning to end: read, send, record.

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
use super::checkpoint::{Checkpoint, CheckpointFiles, Destination};
use super::destination::destination;
use super::identity::{Identity, ids};
use super::ledger::Ledger;
use super::records::Failure;
use super::sender::{Sender, Service, Settlement};
use super::source::InputFile;
use super::{Input, Report, Stop};
use crate::client::Target;

/// Batches per connection that are read and not yet recorded. A resumed import resends at most these: far fewer records than
/// the window of event ids has, so that an import never outruns the window for its own oldest batch.
const READ_AHEAD: usize = 2;

/// Everything that determines an import.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The input.
    pub(crate) input: Input,
    /// Folder of the checkpoint, if not beside the file.
    pub(crate) state: Option<PathBuf>,
    /// Whether to import a completely imported file once more.
    pub(crate) again: bool,
    /// Makes event ids differ: of a repeated import, or of the standard input.
    pub(crate) salt: u64,
    /// Command services.
    pub(crate) commands: Vec<Target>,
    /// Number of connections.
    pub(crate) connections: usize,
    /// Most events of a batch.
    pub(crate) batch: usize,
    /// Timeout of a connect and of an exchange.
    pub(crate) timeout: Duration,
    /// How long a batch is retried.
    pub(crate) patience: Duration,
}

/// Imports. Returns the report even after a failure, which states the position.
pub(crate) async fn run(plan: Plan) -> (Option<Report>, Result<(), Stop>) {
    let began = Instant::now();
    let opened = match block_in_place(|| plan.input.open()) {
        Ok(opened) => opened,
        Err(stop) => return (None, Err(stop)),
    };
    // Until the end: the records have a handle of their own.
    let _lock = match opened.as_ref().map(InputFile::lock).transpose() {
        Ok(lock) => lock,
        Err(stop) => return (None, Err(stop)),
    };
    let files = opened.as_ref().map(|opened| CheckpointFiles::of(&opened.path, plan.state.as_deref()));
    let checkpoint = match begin(&plan, opened.as_ref(), files.as_ref()).await {
        Ok(checkpoint) => checkpoint,
        Err(stop) => return (None, Err(stop)),
    };
    let from = checkpoint.mark;
    let mut ledger = Ledger::new(checkpoint, files.clone());
    let ended = import(&plan, opened, &mut ledger).await;
    let report = Report {
        counts: ledger.counts().clone(),
        from,
        to: ledger.checkpoint().mark,
        completed: ledger.checkpoint().completed,
        took: began.elapsed(),
        files,
    };
    (Some(report), ended)
}

/// The checkpoint to resume from, or a new one.
async fn begin(plan: &Plan, opened: Option<&InputFile>, files: Option<&CheckpointFiles>) -> Result<Checkpoint, Stop> {
    let format = plan.input.format();
    let (Some(opened), Some(files)) = (opened, files) else {
        return Ok(Checkpoint::new(Identity { hash: 0, size: 0 }, format, plan.salt));
    };
    let (file, checkpoint) = (opened.path.clone(), files.checkpoint.clone());
    let last = files.load()?;
    if last.as_ref().is_some_and(|last| !last.is_of(opened.identity)) {
        return Err(Stop::Changed { file, checkpoint });
    }
    let to = destination(&plan.commands, plan.timeout, plan.patience).await?;
    let new = |salt, elsewhere| Checkpoint::new(opened.identity, format, salt).into_log(to.clone(), elsewhere);
    let Some(last) = last else { return Ok(new(0, Vec::new())) };
    let is_here = last.is_into(&to);
    if !is_here && !last.completed {
        let service = last.destination.map(|other| other.service).unwrap_or_default();
        return Err(Stop::OtherLog { file, checkpoint, service });
    }
    // An import into another log says nothing about this one, but the file remembers it.
    let elsewhere: Vec<Destination> = last.done().filter(|done| done.log != to.log).cloned().collect();
    if (is_here && last.completed) || last.done().any(|done| done.log == to.log) {
        if plan.again {
            return Ok(new(plan.salt, elsewhere));
        }
        return Err(Stop::Completed { file, service: to.service, checkpoint });
    }
    if !is_here {
        return Ok(new(0, elsewhere));
    }
    if last.format != format {
        return Err(Stop::OtherFormat { checkpoint, format: last.format });
    }
    Ok(last.into_log(to, elsewhere))
}

async fn import(plan: &Plan, opened: Option<InputFile>, ledger: &mut Ledger) -> Result<(), Stop> {
    let identity = opened.as_ref().map(|opened| opened.identity);
    let ids = ids(identity.map_or(0, |identity| identity.hash), ledger.checkpoint().salt);
    let records = plan.input.records(opened, ledger.checkpoint().mark)?;
    // A new import drops the rejects of an earlier one, and saves its checkpoint before it sends: after a kill, the resumed
    // import has the same salt.
    ledger.open()?;
    let reader = BatchReader {
        cutter: Cutter::new(records, ids, plan.batch),
        size: identity.map(|identity| identity.size),
        input: plan.input.clone(),
        permits: Arc::new(Semaphore::new(plan.connections * READ_AHEAD)),
    };
    let permits = reader.permits.clone();
    let stop = CancellationToken::new();
    let (batches, taken) = mpsc::channel(plan.connections);
    let (settled, mut results) = mpsc::channel(plan.connections);
    let read = tokio::task::spawn_blocking(move || reader.run(&batches));
    let mut senders = send(plan, taken, &settled, &stop);
    drop(settled);

    let bar = bar(identity);
    let mut ended = Ok(());
    while let Some(one) = results.recv().await {
        ledger.add(one);
        // Batches completed during the last write are part of this one.
        while let Ok(more) = results.try_recv() {
            ledger.add(more);
        }
        if ended.is_ok() {
            ended = block_in_place(|| ledger.advance());
            if ended.is_err() {
                stop.cancel();
            }
        }
        bar.set_position(ledger.checkpoint().mark.offset);
    }
    permits.close();
    bar.finish_and_clear();
    while let Some(sender) = senders.join_next().await {
        ended = ended.and(sender.map_err(|e| Stop::Broken(e.to_string())).flatten());
    }
    // A failure to send comes before a failure to read: it concerns the earlier line.
    ended.and(read.await.map_err(|e| Stop::Broken(e.to_string())).flatten())?;
    ledger.complete()
}

/// Starts the senders. Each ends after the last batch, or when another one fails.
fn send(
    plan: &Plan,
    batches: mpsc::Receiver<Batch>,
    settled: &mpsc::Sender<Settlement>,
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
                // The receiver is gone only after a failure.
                let _ = settled.send(done).await;
            }
            Ok(())
        });
    }
    senders
}

/// Reads batches, on a thread of its own.
struct BatchReader {
    cutter: Cutter,
    /// Size of a file.
    size: Option<u64>,
    input: Input,
    permits: Arc<Semaphore>,
}

impl BatchReader {
    fn run(mut self, batches: &mpsc::Sender<Batch>) -> Result<(), Stop> {
        let handle = Handle::current();
        // Without permits or a receiver, a sender has failed and returns the reason.
        while let Ok(permit) = handle.block_on(self.permits.clone().acquire_owned()) {
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
