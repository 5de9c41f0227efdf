//! The worker threads of a run: started together, restarted after failures that a fresh start can overcome, ended
//! together.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use millrace_base::Backoff;
use millrace_contracts::Next;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{LogError, RunOptions, Status, metric};

const MIN_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Runs workers, each on its own thread, until `stop`, or until one fails with an error that needs a person: this ends
/// the others.
pub(crate) async fn run(
    options: RunOptions,
    workers: usize,
    stop: CancellationToken,
    work: impl Fn(&RunOptions, usize, &CancellationToken) -> Result<(), LogError> + Send + Clone + 'static,
) -> Result<(), LogError> {
    let stop = stop.child_token();
    // If the future of the run is dropped, its threads end too.
    let _guard = stop.clone().drop_guard();
    let mut ends = Vec::new();
    let statuses = Arc::new(Mutex::new(vec![Status::Starting; workers]));
    for index in 0..workers {
        let (mut options, stop, work, runtime) = (options.clone(), stop.clone(), work.clone(), Handle::current());
        options.status = combined(&statuses, index, options.status);
        let (done, end) = oneshot::channel();
        let thread = std::thread::Builder::new().name(format!("{}-{index}", options.role)).spawn(move || {
            let _runtime = runtime.enter();
            // A panic drops `done` and, by the guard, ends the others.
            let _guard = stop.clone().drop_guard();
            let _ = done.send(keep_running(&options, index, &stop, work));
        });
        thread.map_err(|error| LogError::unavailable(format!("thread: {error}")).because(error))?;
        ends.push(end);
    }
    let mut result = Ok(());
    for end in ends {
        let ended = end.await.unwrap_or_else(|_| Err(LogError::refused("a worker panicked")));
        result = result.and(ended);
    }
    result
}

/// A sender for the status of one worker; `out` receives the combined status of all workers.
fn combined(statuses: &Arc<Mutex<Vec<Status>>>, index: usize, out: watch::Sender<Status>) -> watch::Sender<Status> {
    let (own, mut changes) = watch::channel(Status::Starting);
    let statuses = statuses.clone();
    tokio::spawn(async move {
        while changes.changed().await.is_ok() {
            let mut statuses = statuses.lock().expect("no holder of this lock panics");
            statuses[index] = changes.borrow_and_update().clone();
            out.send_replace(combine(&statuses));
        }
    });
    own
}

/// A worker that retries decides, then one that restores, then one that starts. Partitions of the others add up.
fn combine(statuses: &[Status]) -> Status {
    let rank = |status: &Status| match status {
        Status::Retrying { .. } => 3,
        Status::Restoring { .. } => 2,
        Status::Starting => 1,
        Status::Running { .. } | Status::Degraded { .. } => 0,
    };
    let Some(first) = statuses.iter().max_by_key(|status| rank(status)) else { return Status::Starting };
    if rank(first) > 0 {
        return first.clone();
    }
    let (mut all, mut all_failed) = (Vec::new(), BTreeMap::new());
    for status in statuses {
        if let Status::Running { partitions } | Status::Degraded { partitions, .. } = status {
            all.extend(partitions);
        }
        if let Status::Degraded { failed, .. } = status {
            all_failed.extend(failed.clone());
        }
    }
    all.sort_unstable();
    if all_failed.is_empty() {
        Status::Running { partitions: all }
    } else {
        Status::Degraded { partitions: all, failed: all_failed }
    }
}

fn keep_running(
    options: &RunOptions,
    index: usize,
    stop: &CancellationToken,
    work: impl Fn(&RunOptions, usize, &CancellationToken) -> Result<(), LogError>,
) -> Result<(), LogError> {
    let mut backoff = backoff();
    let restarts = metric::restarts(&options.role);
    loop {
        let began = Instant::now();
        let Err(error) = work(options, index, stop) else { return Ok(()) };
        match error.next() {
            Next::Stop => return Err(error),
            Next::Retry | Next::Skip if stop.is_cancelled() => return Ok(()),
            Next::Retry | Next::Skip => {}
        }
        if began.elapsed() > MAX_PAUSE {
            backoff.reset();
        }
        restarts.increment(1);
        tracing::warn!(role = options.role, worker = index, %error, "restarting the worker after a pause");
        options.status.send_replace(Status::Retrying { why: error.to_string() });
        if pause(&mut backoff, stop) {
            return Ok(());
        }
    }
}

/// The pauses of a worker between two attempts.
pub(crate) fn backoff() -> Backoff {
    Backoff::new(MIN_PAUSE, MAX_PAUSE)
}

/// Waits for the next pause; true if `stop` ended it. Blocking.
pub(crate) fn pause(backoff: &mut Backoff, stop: &CancellationToken) -> bool {
    let pause = backoff.next_pause();
    Handle::current().block_on(async { tokio::time::timeout(pause, stop.cancelled()).await.is_ok() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_combined_status_is_that_of_the_worker_that_needs_attention() {
        let running = |partitions: &[u32]| Status::Running { partitions: partitions.to_vec() };
        let retrying = Status::Retrying { why: "unreachable".into() };
        assert_eq!(combine(&[running(&[3, 5]), running(&[]), running(&[1])]), running(&[1, 3, 5]));
        assert_eq!(combine(&[running(&[1]), Status::Starting]), Status::Starting);
        let failed = BTreeMap::from([(4, "malformed".to_owned())]);
        let degraded =
            |partitions: &[u32]| Status::Degraded { partitions: partitions.to_vec(), failed: failed.clone() };
        assert_eq!(combine(&[running(&[3]), degraded(&[2])]), degraded(&[2, 3]));
        assert_eq!(degraded(&[]).not_ready(), Some("partition 4 is not processed: malformed".into()));
        assert_eq!(combine(&[retrying.clone(), running(&[1]), Status::Starting]), retrying);
    }
}
