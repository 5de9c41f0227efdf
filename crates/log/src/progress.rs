//! Reports the progress of a restore: status, metrics, log.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::metric::RestoreMetrics;
use crate::{Batch, LogError, Progress, RunOptions, Status};

/// Minimum time between two reports of the status.
const STATUS_INTERVAL: Duration = Duration::from_millis(200);
/// Minimum time between two log messages.
const LOG_INTERVAL: Duration = Duration::from_secs(2);

/// The progress of one restore.
pub(crate) struct RestoreProgress<'a> {
    options: &'a RunOptions,
    stop: &'a CancellationToken,
    partitions: Vec<u32>,
    progress: Progress,
    records: u64,
    bytes: u64,
    began: Instant,
    reported: Instant,
    logged: Instant,
    timeout: Duration,
    metrics: RestoreMetrics,
}

impl<'a> RestoreProgress<'a> {
    /// The restore fails after `timeout`.
    pub(crate) fn begin(
        options: &'a RunOptions,
        stop: &'a CancellationToken,
        partitions: &[u32],
        timeout: Duration,
    ) -> Self {
        let now = Instant::now();
        let restore = Self {
            options,
            stop,
            partitions: partitions.to_vec(),
            progress: Progress::default(),
            records: 0,
            bytes: 0,
            began: now,
            reported: now,
            logged: now,
            timeout,
            metrics: RestoreMetrics::of(&options.role),
        };
        restore.report();
        restore
    }

    /// Adds offsets to the total.
    pub(crate) fn expect(&mut self, offsets: u64) {
        self.progress.total += offsets;
        self.metrics.total.increment(offsets as f64);
        self.report();
    }

    /// Records a batch that advanced the restore by `offsets`. Fails like [`RestoreProgress::check`].
    pub(crate) fn advance(&mut self, batch: &Batch, offsets: u64) -> Result<(), LogError> {
        self.advance_by(batch.len() as u64, batch.bytes() as u64, offsets)
    }

    /// Records progress in numbers.
    pub(crate) fn advance_by(&mut self, records: u64, bytes: u64, offsets: u64) -> Result<(), LogError> {
        self.records += records;
        self.bytes += bytes;
        self.progress.done += offsets;
        self.metrics.done.increment(offsets as f64);
        self.check()?;
        if self.reported.elapsed() >= STATUS_INTERVAL {
            self.reported = Instant::now();
            self.report();
        }
        if self.logged.elapsed() >= LOG_INTERVAL {
            self.logged = Instant::now();
            let Progress { done, total } = self.progress;
            tracing::info!(
                role = self.options.role,
                partitions = ?self.partitions,
                done,
                total,
                records = self.records,
                bytes = self.bytes,
                "restoring"
            );
        }
        Ok(())
    }

    /// Fails if the run is stopped, or if the restore exceeds its timeout.
    pub(crate) fn check(&self) -> Result<(), LogError> {
        if self.stop.is_cancelled() {
            return Err(LogError::unavailable("the run was stopped during the restore"));
        }
        if self.began.elapsed() > self.timeout {
            return Err(LogError::unavailable(format!(
                "the restore of {:?} exceeded {:?}: kafka.properties.\"max.poll.interval.ms\" must be longer",
                self.partitions, self.timeout
            )));
        }
        Ok(())
    }

    fn report(&self) {
        let (partitions, progress) = (self.partitions.clone(), self.progress);
        self.options.status.send_replace(Status::Restoring { partitions, progress });
    }

    pub(crate) fn complete(self) {
        let took = self.began.elapsed();
        self.metrics.seconds.record(took);
        tracing::info!(
            role = self.options.role,
            partitions = ?self.partitions,
            records = self.records,
            bytes = self.bytes,
            took_ms = took.as_millis(),
            "state restored"
        );
    }
}

impl Drop for RestoreProgress<'_> {
    fn drop(&mut self) {
        self.metrics.done.decrement(self.progress.done as f64);
        self.metrics.total.decrement(self.progress.total as f64);
    }
}
