//! How far a restore is: told to people, to readiness and in metrics.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::metric::Restores;
use crate::{Batch, LogError, Progress, RunOptions, Status};

const TELL_EVERY: Duration = Duration::from_millis(200);
const LOG_EVERY: Duration = Duration::from_secs(2);

/// A restore under way.
pub(crate) struct Restoring<'a> {
    options: &'a RunOptions,
    stop: &'a CancellationToken,
    partitions: Vec<u32>,
    progress: Progress,
    records: u64,
    bytes: u64,
    began: Instant,
    told: Instant,
    logged: Instant,
    /// It is given up after this long.
    longest: Duration,
    metrics: Restores,
}

impl<'a> Restoring<'a> {
    pub(crate) fn begin(
        options: &'a RunOptions,
        stop: &'a CancellationToken,
        partitions: &[u32],
        longest: Duration,
    ) -> Self {
        let now = Instant::now();
        let restoring = Self {
            options,
            stop,
            partitions: partitions.to_vec(),
            progress: Progress::default(),
            records: 0,
            bytes: 0,
            began: now,
            told: now,
            logged: now,
            longest,
            metrics: Restores::of(&options.role),
        };
        restoring.tell();
        restoring
    }

    /// So many offsets more are to be read.
    pub(crate) fn expect(&mut self, offsets: u64) {
        self.progress.total += offsets;
        self.metrics.total.increment(offsets as f64);
        self.tell();
    }

    /// A batch was taken in, which brought us `offsets` further.
    pub(crate) fn took(&mut self, batch: &Batch, offsets: u64) -> Result<(), LogError> {
        self.took_records(batch.len() as u64, batch.bytes() as u64, offsets)
    }

    pub(crate) fn took_records(&mut self, records: u64, bytes: u64, offsets: u64) -> Result<(), LogError> {
        self.records += records;
        self.bytes += bytes;
        self.progress.done += offsets;
        self.metrics.done.increment(offsets as f64);
        self.going_on()?;
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            self.tell();
        }
        if self.logged.elapsed() >= LOG_EVERY {
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

    /// An error when it is to end, or took too long.
    pub(crate) fn going_on(&self) -> Result<(), LogError> {
        if self.stop.is_cancelled() {
            return Err(LogError::Unavailable("told to stop while restoring".into()));
        }
        if self.began.elapsed() > self.longest {
            return Err(LogError::Unavailable(format!(
                "the restore of {:?} was not done within {:?}, and the group goes on without this member: \
                 kafka.properties.\"max.poll.interval.ms\" must be longer",
                self.partitions, self.longest
            )));
        }
        Ok(())
    }

    fn tell(&self) {
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

impl Drop for Restoring<'_> {
    fn drop(&mut self) {
        self.metrics.done.decrement(self.progress.done as f64);
        self.metrics.total.decrement(self.progress.total as f64);
    }
}
