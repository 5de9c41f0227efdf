//! Threads of runners: started, restarted after failures that a fresh start can heal, and ended together.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use millrace_contracts::Next;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{LogError, RunOptions, Status, metric};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Runs `workers` workers, each on a thread of its own, until `stop`, or until one meets an error that a person has to look
/// at: that one ends the others.
pub(crate) async fn run(
    options: RunOptions,
    workers: usize,
    stop: CancellationToken,
    work: impl Fn(&RunOptions, usize, &CancellationToken) -> Result<(), LogError> + Send + Clone + 'static,
) -> Result<(), LogError> {
    let stop = stop.child_token();
    // A run whose future is dropped ends its threads too.
    let _guard = stop.clone().drop_guard();
    let mut ends = Vec::new();
    let statuses = Arc::new(Mutex::new(vec![Status::Starting; workers]));
    for index in 0..workers {
        let (mut options, stop, work, runtime) = (options.clone(), stop.clone(), work.clone(), Handle::current());
        options.status = joined(&statuses, index, options.status);
        let (done, end) = oneshot::channel();
        let thread = std::thread::Builder::new().name(format!("{}-{index}", options.role)).spawn(move || {
            let _runtime = runtime.enter();
            // A panic drops `done`, and ends the others through the guard all the same.
            let _guard = stop.clone().drop_guard();
            let _ = done.send(keep_running(&options, index, &stop, work));
        });
        thread.map_err(|error| LogError::Unavailable(format!("thread: {error}")))?;
        ends.push(end);
    }
    let mut result = Ok(());
    for end in ends {
        let ended = end.await.unwrap_or_else(|_| Err(LogError::Refused("a worker panicked".into())));
        result = result.and(ended);
    }
    result
}

/// The status of one worker of several: a change is told as what all of them come to.
fn joined(statuses: &Arc<Mutex<Vec<Status>>>, index: usize, out: watch::Sender<Status>) -> watch::Sender<Status> {
    let (own, mut seen) = watch::channel(Status::Starting);
    let statuses = statuses.clone();
    tokio::spawn(async move {
        while seen.changed().await.is_ok() {
            let mut statuses = statuses.lock().expect("nothing panics while it holds this");
            statuses[index] = seen.borrow_and_update().clone();
            out.send_replace(join(&statuses));
        }
    });
    own
}

/// One that retries is news whatever the others do, then one that restores, then one that has not begun.
fn join(statuses: &[Status]) -> Status {
    let rank = |status: &Status| match status {
        Status::Retrying { .. } => 3,
        Status::Restoring { .. } => 2,
        Status::Starting => 1,
        Status::Running { .. } => 0,
    };
    let Some(first) = statuses.iter().max_by_key(|status| rank(status)) else { return Status::Starting };
    let Status::Running { .. } = first else { return first.clone() };
    let held = |status: &Status| match status {
        Status::Running { partitions } => partitions.clone(),
        _ => Vec::new(),
    };
    let mut partitions: Vec<u32> = statuses.iter().flat_map(held).collect();
    partitions.sort_unstable();
    Status::Running { partitions }
}

fn keep_running(
    options: &RunOptions,
    index: usize,
    stop: &CancellationToken,
    work: impl Fn(&RunOptions, usize, &CancellationToken) -> Result<(), LogError>,
) -> Result<(), LogError> {
    let mut pauses = Pauses::default();
    let restarts = metric::restarts(&options.role);
    loop {
        let began = Instant::now();
        let Err(error) = work(options, index, stop) else { return Ok(()) };
        match error.next() {
            Next::Stop => return Err(error),
            Next::Retry | Next::Skip if stop.is_cancelled() => return Ok(()),
            Next::Retry | Next::Skip => {}
        }
        if began.elapsed() > LONGEST_PAUSE {
            pauses = Pauses::default();
        }
        restarts.increment(1);
        tracing::warn!(role = options.role, worker = index, %error, "starting anew after a pause");
        options.status.send_replace(Status::Retrying { why: error.to_string() });
        if pauses.wait(stop) {
            return Ok(());
        }
    }
}

/// Growing pauses between attempts.
pub(crate) struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Pauses {
    /// Waits; true when `stop` came first. Up to half of the pause is left to chance, so that runners part ways.
    pub(crate) fn wait(&mut self, stop: &CancellationToken) -> bool {
        let chance = RandomState::new().hash_one(0) % 512;
        let pause = self.0 / 1024 * (1024 - u32::try_from(chance).unwrap_or_default());
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
        let cancelled = async { tokio::time::timeout(pause, stop.cancelled()).await.is_ok() };
        Handle::current().block_on(cancelled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_attention_is_not_hidden_by_workers_that_run() {
        let running = |partitions: &[u32]| Status::Running { partitions: partitions.to_vec() };
        let retrying = Status::Retrying { why: "away".into() };
        assert_eq!(join(&[running(&[3, 5]), running(&[]), running(&[1])]), running(&[1, 3, 5]));
        assert_eq!(join(&[running(&[1]), Status::Starting]), Status::Starting);
        assert_eq!(join(&[retrying.clone(), running(&[1]), Status::Starting]), retrying);
    }
}
