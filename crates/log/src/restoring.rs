//! Restores beside the processing of other partitions, and partitions that failed: each is retried by itself.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use metrics::{Gauge, gauge};
use millrace_base::Backoff;
use millrace_contracts::metric;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::metric::Lag;
use crate::restore::{RestoreError, RestoredPartition};
use crate::{LogError, RunOptions, Stage, Status, worker};

/// The pauses between two tries to restore a partition that needs a person.
const REFUSED_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// Retries at the same time: each has a thread and consumers. If more partitions are due, they share them.
const MAX_RETRIES: usize = 4;

/// What one restore returns.
pub(crate) type RestoreResult<S> = Result<Vec<RestoredPartition<S>>, RestoreError>;

/// A restore of some partitions, on its own thread.
pub(crate) struct RestoreTask<'a, S: Stage> {
    pub(crate) partitions: &'a [u32],
    /// Whether it retries what failed: then no partition waits for it that might be processed.
    pub(crate) retry: bool,
    pub(crate) options: &'a RunOptions,
    pub(crate) canceled: &'a CancellationToken,
    retained: &'a Mutex<Vec<u32>>,
    result: &'a SyncSender<RestoreResult<S>>,
}

impl<S: Stage> RestoreTask<'_, S> {
    /// Hands the result to the worker.
    pub(crate) fn end(&self, result: RestoreResult<S>) {
        // The worker may have ended.
        let _ = self.result.send(result);
    }

    /// The partitions that this is still for, once its result was taken: neither revoked nor restored again.
    pub(crate) fn retained(&self) -> Vec<u32> {
        self.retained.lock().expect("no holder of this lock panics").clone()
    }
}

/// Does a restore, and ends it once.
pub(crate) type RestoreWork<S> = Arc<dyn Fn(&RestoreTask<'_, S>) + Send + Sync>;

/// The restores of one worker, and its failed partitions.
pub(crate) struct RestoreQueue<S: Stage> {
    options: RunOptions,
    stop: CancellationToken,
    work: RestoreWork<S>,
    running: Vec<RunningRestore<S>>,
    failed: BTreeMap<u32, FailedPartition>,
}

struct RunningRestore<S: Stage> {
    partitions: Vec<u32>,
    /// Whether it retries what failed: then the status remains that of the failure.
    retry: bool,
    canceled: CancellationToken,
    /// Of its partitions, for what its thread does after its result.
    retained: Arc<Mutex<Vec<u32>>>,
    /// `None` once its result was taken, or is not wanted any more. The thread may still run.
    result: Option<Receiver<RestoreResult<S>>>,
    thread: Option<JoinHandle<()>>,
}

/// A partition that is assigned and not processed.
struct FailedPartition {
    /// `None` once it is restored again, until its first step: the pauses continue to grow if that fails.
    error: Option<LogError>,
    backoff: Backoff,
    /// `None` during a try.
    retry_at: Option<Instant>,
    /// The last one that is known.
    lag: Option<Lag>,
    gauge: Gauge,
}

impl Drop for FailedPartition {
    fn drop(&mut self) {
        self.gauge.set(0.0);
    }
}

impl<S: Stage> RestoreQueue<S> {
    pub(crate) fn new(options: &RunOptions, stop: &CancellationToken, work: RestoreWork<S>) -> Self {
        let (options, stop) = (options.clone(), stop.child_token());
        Self { options, stop, work, running: Vec::new(), failed: BTreeMap::new() }
    }

    /// Cancels the restores once it is dropped.
    pub(crate) fn cancel_on_drop(&self) -> DropGuard {
        self.stop.clone().drop_guard()
    }

    /// Begins to restore partitions.
    pub(crate) fn begin(&mut self, partitions: Vec<u32>) -> Result<(), LogError> {
        // The series exist before the first failure.
        for &partition in &partitions {
            failed_gauge(&self.options.role, partition).set(0.0);
        }
        self.spawn(partitions, false)
    }

    fn spawn(&mut self, partitions: Vec<u32>, retry: bool) -> Result<(), LogError> {
        if partitions.is_empty() {
            return Ok(());
        }
        let (work, canceled, runtime) = (self.work.clone(), self.stop.child_token(), Handle::current());
        let (mut options, token, restored) = (self.options.clone(), canceled.clone(), partitions.clone());
        if retry {
            options.status = watch::channel(Status::Starting).0;
        }
        let retained = Arc::new(Mutex::new(partitions.clone()));
        let (sender, result) = mpsc::sync_channel(1);
        let restore = {
            let retained = retained.clone();
            move || {
                let _runtime = runtime.enter();
                work(&RestoreTask {
                    partitions: &restored,
                    retry,
                    options: &options,
                    canceled: &token,
                    retained: &retained,
                    result: &sender,
                });
            }
        };
        let thread = std::thread::Builder::new().name(format!("{}-restore", self.options.role)).spawn(restore);
        let thread = thread.map_err(|error| LogError::unavailable(format!("thread: {error}")).because(error))?;
        let (result, thread) = (Some(result), Some(thread));
        self.running.push(RunningRestore { partitions, retry, canceled, retained, result, thread });
        Ok(())
    }

    /// Retries what is due, and returns what was restored; `None` if no restore has ended. A failure of some partitions is
    /// theirs alone: the restore of the others begins again. Fails if the data on disk is damaged.
    pub(crate) fn advance(&mut self) -> Result<Option<Vec<RestoredPartition<S>>>, LogError> {
        let mut ended = Vec::new();
        for restore in &mut self.running {
            if let Some(result) = restore.take_result() {
                ended.push((restore.partitions.clone(), restore.retry, restore.retained.clone(), result));
            }
        }
        let before = self.running.len();
        self.running.retain(|restore| restore.result.is_some() || !restore.has_ended());
        // The thread of a canceled restore may have reported a status after the worker did.
        let has_ended = !ended.is_empty() || self.running.len() < before;
        let mut restored = has_ended.then(Vec::new);
        for (partitions, retry, retained, result) in ended {
            match result {
                Ok(restored_now) => {
                    // Its thread does what is left for all of them.
                    for other in self.running.iter().filter(|other| !Arc::ptr_eq(&other.retained, &retained)) {
                        other.release(&partitions);
                    }
                    for one in &restored_now {
                        if let Some(failed) = self.failed.get_mut(&one.partition) {
                            failed.error = None;
                            failed.gauge.set(0.0);
                        }
                    }
                    restored.get_or_insert_default().extend(restored_now);
                }
                Err(error) => {
                    let failed = match error {
                        RestoreError::Partitions(failed) => failed,
                        RestoreError::All(error) => {
                            partitions.iter().map(|&one| (one, (error.clone(), None))).collect()
                        }
                    };
                    let rest = partitions.into_iter().filter(|partition| !failed.contains_key(partition)).collect();
                    for (partition, (error, lag)) in failed {
                        if matches!(error, LogError::Damaged(_)) {
                            return Err(error);
                        }
                        self.fail(partition, error, lag);
                    }
                    self.spawn(rest, retry)?;
                }
            }
        }
        self.retry()?;
        Ok(restored)
    }

    /// Begins to restore the failed partitions that are due.
    fn retry(&mut self) -> Result<(), LogError> {
        let now = Instant::now();
        let is_due = |failed: &FailedPartition| failed.retry_at.is_some_and(|at| at <= now);
        let due: Vec<u32> = self.failed.iter().filter(|(_, failed)| is_due(failed)).map(|(&one, _)| one).collect();
        let retries = self.running.iter().filter(|restore| restore.retry && restore.result.is_some());
        let free = MAX_RETRIES.saturating_sub(retries.count());
        if due.is_empty() || free == 0 {
            return Ok(());
        }
        for share in due.chunks(due.len().div_ceil(free)) {
            for &partition in share {
                self.failed.entry(partition).and_modify(|failed| failed.retry_at = None);
            }
            self.spawn(share.to_vec(), true)?;
        }
        Ok(())
    }

    /// A partition failed: it is restored again after a pause.
    pub(crate) fn fail(&mut self, partition: u32, error: LogError, lag: Option<Lag>) {
        let role = &self.options.role;
        tracing::error!(role, partition, %error, "the partition is not processed until this is overcome; the others are");
        let pauses: fn() -> Backoff = match error {
            LogError::Refused(_) | LogError::Damaged(_) => || Backoff::new(REFUSED_RETRY.0, REFUSED_RETRY.1),
            LogError::Unavailable(_) => worker::backoff,
        };
        let failed = self.failed.entry(partition).or_insert_with(|| FailedPartition {
            error: None,
            backoff: pauses(),
            retry_at: None,
            lag,
            gauge: failed_gauge(role, partition),
        });
        if failed.error.as_ref().is_some_and(|before| before.next() != error.next()) {
            failed.backoff = pauses();
        }
        failed.retry_at = Some(Instant::now() + failed.backoff.next_pause());
        (failed.error, failed.lag) = (Some(error), lag.or(failed.lag));
        failed.gauge.set(1.0);
    }

    /// These partitions were revoked. The other ones of their restores are restored again.
    pub(crate) fn revoke(&mut self, partitions: &[u32]) -> Result<(), LogError> {
        self.failed.retain(|partition, _| !partitions.contains(partition));
        let mut rest = Vec::new();
        for restore in &mut self.running {
            let has_any = restore.partitions.iter().any(|partition| partitions.contains(partition));
            if has_any && restore.result.is_some() {
                restore.canceled.cancel();
                restore.result = None;
                let others = restore.partitions.iter().copied().filter(|partition| !partitions.contains(partition));
                rest.push((others.collect(), restore.retry));
            }
            restore.release(partitions);
        }
        rest.into_iter().try_for_each(|(partitions, retry)| self.spawn(partitions, retry))
    }

    /// A step with these partitions is durable: what made them fail is overcome.
    pub(crate) fn recovered(&mut self, partitions: impl Iterator<Item = u32>) {
        if !self.failed.is_empty() {
            partitions.for_each(|partition| drop(self.failed.remove(&partition)));
        }
    }

    /// Whether a restore runs: the worker must not wait for long.
    pub(crate) fn is_running(&self) -> bool {
        !self.running.is_empty()
    }

    /// The last known lags of the partitions that failed, until a step of theirs is durable.
    pub(crate) fn lags(&self) -> impl Iterator<Item = (u32, Lag)> {
        self.failed.iter().filter_map(|(&partition, failed)| Some((partition, failed.lag?)))
    }

    /// Reports the status of a worker that processes these partitions. A restore reports its progress by itself.
    pub(crate) fn report(&self, processed: impl Iterator<Item = u32>) {
        if self.running.iter().any(|restore| !restore.retry && restore.result.is_some()) {
            return;
        }
        let failed = self.failed.iter().filter_map(|(&partition, failed)| Some((partition, failed.error.as_ref()?)));
        let failed: BTreeMap<u32, String> = failed.map(|(partition, error)| (partition, error.to_string())).collect();
        let partitions = processed.collect();
        self.options.status.send_replace(if failed.is_empty() {
            Status::Running { partitions }
        } else {
            Status::Degraded { partitions, failed }
        });
    }
}

fn failed_gauge(role: &str, partition: u32) -> Gauge {
    gauge!(metric::FAILED_PARTITION.name, "role" => role.to_owned(), "partition" => partition.to_string())
}

impl<S: Stage> RunningRestore<S> {
    fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// These partitions are revoked, or restored again: what the thread does after its result is for the other ones.
    fn release(&self, partitions: &[u32]) {
        if self.result.is_some() {
            return;
        }
        let mut retained = self.retained.lock().expect("no holder of this lock panics");
        retained.retain(|partition| !partitions.contains(partition));
        if retained.is_empty() {
            self.canceled.cancel();
        }
    }

    /// The result, once, if there is one.
    fn take_result(&mut self) -> Option<RestoreResult<S>> {
        let result = match self.result.as_ref()?.try_recv() {
            Ok(result) => result,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => Err(LogError::refused("the restore panicked").into()),
        };
        self.result = None;
        Some(result)
    }
}

/// Waits for the threads: they use the log.
impl<S: Stage> Drop for RestoreQueue<S> {
    fn drop(&mut self) {
        self.stop.cancel();
        for thread in self.running.iter_mut().filter_map(|restore| restore.thread.take()) {
            let _ = thread.join();
        }
    }
}
