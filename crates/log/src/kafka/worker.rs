//! Threads of workers: started, restarted after failures that a fresh start can heal, and ended together.

use std::time::Duration;

use millrace_contracts::Next;
use tokio_util::sync::CancellationToken;

use crate::{LogError, RunOptions, Status};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Runs `options.workers` workers, each on a thread of its own, until `stop`, or until one meets an error that a person
/// has to look at.
pub(super) async fn run(
    options: RunOptions,
    stop: CancellationToken,
    work: impl Fn(&RunOptions, usize, &CancellationToken) -> Result<(), LogError> + Send + Sync + Clone + 'static,
) -> Result<(), LogError> {
    // A worker that ends for good ends the others.
    let stop = stop.child_token();
    let mut ends = tokio::task::JoinSet::new();
    for index in 0..options.workers.max(1) {
        let (options, stop, work) = (options.clone(), stop.clone(), work.clone());
        let (done, end) = tokio::sync::oneshot::channel();
        let name = format!("{}-{index}", options.role);
        let runtime = tokio::runtime::Handle::current();
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            let _runtime = runtime.enter();
            let _ = done.send(keep_running(&options, index, &stop, &work));
        });
        thread.map_err(|error| LogError::Unavailable(format!("thread: {error}")))?;
        ends.spawn(end);
    }
    let mut result = Ok(());
    while let Some(end) = ends.join_next().await {
        let panicked = || Err(LogError::Refused("a worker panicked".into()));
        let ended = end.ok().and_then(Result::ok).unwrap_or_else(panicked);
        result = result.and(ended);
        stop.cancel();
    }
    result
}

fn keep_running(
    options: &RunOptions,
    index: usize,
    stop: &CancellationToken,
    work: &impl Fn(&RunOptions, usize, &CancellationToken) -> Result<(), LogError>,
) -> Result<(), LogError> {
    let mut pause = FIRST_PAUSE;
    loop {
        let began = std::time::Instant::now();
        let Err(error) = work(options, index, stop) else { return Ok(()) };
        match error.next() {
            Next::Stop => return Err(error),
            Next::Retry | Next::Skip => {}
        }
        if began.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        tracing::warn!(role = options.role, worker = index, %error, "starting anew in {pause:?}");
        options.status.send_replace(Status::Retrying { why: error.to_string() });
        if wait(stop, pause) {
            return Ok(());
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Waits on a worker's thread; true when `stop` came first.
pub(super) fn wait(stop: &CancellationToken, pause: Duration) -> bool {
    let cancelled = async { tokio::time::timeout(pause, stop.cancelled()).await.is_ok() };
    tokio::runtime::Handle::current().block_on(cancelled)
}
