//! The thread of a runner: restarted after failures that a fresh start can heal.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_contracts::Next;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::{LogError, RunOptions, Status};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Runs `work` on a thread until `stop`, or until it meets an error that a person has to look at.
pub(super) async fn run(
    shared: Arc<Shared>,
    options: RunOptions,
    stop: CancellationToken,
    work: impl Fn(&RunOptions, &CancellationToken) -> Result<(), LogError> + Send + 'static,
) -> Result<(), LogError> {
    // A run whose future is dropped ends its thread too.
    let stop = stop.child_token();
    let _guard = stop.clone().drop_guard();
    let (done, end) = tokio::sync::oneshot::channel();
    let runtime = Handle::current();
    let thread = std::thread::Builder::new().name(options.role.clone()).spawn(move || {
        let _runtime = runtime.enter();
        let _ = done.send(keep_running(&shared, &options, &stop, work));
    });
    thread.map_err(|error| LogError::Unavailable(format!("thread: {error}")))?;
    end.await.unwrap_or_else(|_| Err(LogError::Refused("a worker panicked".into())))
}

fn keep_running(
    shared: &Shared,
    options: &RunOptions,
    stop: &CancellationToken,
    work: impl Fn(&RunOptions, &CancellationToken) -> Result<(), LogError>,
) -> Result<(), LogError> {
    let mut pauses = Pauses::default();
    loop {
        let began = Instant::now();
        let Err(error) = work(options, stop) else { return Ok(()) };
        match error.next() {
            Next::Stop => return Err(error),
            Next::Retry | Next::Skip => {}
        }
        // A failed writer heals by a restart of the process only.
        if let Some(why) = shared.failure() {
            return Err(LogError::Refused(why));
        }
        if began.elapsed() > LONGEST_PAUSE {
            pauses = Pauses::default();
        }
        tracing::warn!(role = options.role, %error, "starting anew after a pause");
        options.status.send_replace(Status::Retrying { why: error.to_string() });
        if pauses.wait(stop) {
            return Ok(());
        }
    }
}

/// Growing pauses between attempts.
pub(super) struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Pauses {
    /// Waits; true when `stop` came first. Up to half of the pause is left to chance, so that runners part ways.
    pub(super) fn wait(&mut self, stop: &CancellationToken) -> bool {
        let chance = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0) % 512;
        let pause = self.0 / 1024 * (1024 - u32::try_from(chance).unwrap_or_default());
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
        let cancelled = async { tokio::time::timeout(pause, stop.cancelled()).await.is_ok() };
        Handle::current().block_on(cancelled)
    }
}
