//! The sink of refill requests: copies older hours from the archive into Redis.
//!
//! A request is a hint. The sink drops it if it is old, if a store is unavailable, or if the archive stays behind Redis for
//! too long: the next read of the hour sends another. The store ensures that a refill never replaces a newer count.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt as _;
use millrace_base::{Backoff, Clock};
use millrace_contracts::{
    Hour, ProjectionPosition, ProjectionWrite, RefillRequest, StoreError, Topic, WriteOutcome, metric,
};
use millrace_log::{Batch, Limits, Log, LogError, RunOptions, Sink, Status};
use millrace_store::{Archive, LiveHours, RefillOutcome};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Config;

const ROLE: &str = "materializer-refill";
/// The age at which a request is dropped: its reader is gone.
const MAX_AGE_MS: i64 = 60_000;
/// The limits of one write.
const STEP: Limits = Limits { records: 256, bytes: 1 << 20, wait: Duration::from_millis(20) };
/// The number of hours that are refilled concurrently.
const CONCURRENCY: usize = 4;
/// Attempts while the archive is behind Redis. With their pauses they wait about 1 s, some steps of the archive's projection.
const ATTEMPTS: u32 = 12;
const MIN_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_millis(100);
/// The timeout of one write.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Refills older hours of `live` from `archive`, on request.
#[derive(Debug, Clone)]
pub(crate) struct Refill {
    pub(crate) live: LiveHours,
    pub(crate) archive: Archive,
    pub(crate) partitions: u32,
    pub(crate) clock: Clock,
}

/// Refills until stopped. Only a damaged log ends it: without refills, readers use the archive.
pub(crate) async fn run(
    refill: Refill,
    config: Config,
    log: Log,
    instance: String,
    stop: CancellationToken,
) -> Result<(), LogError> {
    for outcome in ["filled", "archive-behind", "rebuilding", "failed"] {
        metrics::counter!(metric::REFILLS.name, "outcome" => outcome).increment(0);
    }
    let max_delay = config.retry_max_delay.0;
    let mut backoff = Backoff::new(config.retry_min_delay.0, max_delay);
    loop {
        let began = Instant::now();
        let (status, _) = watch::channel(Status::Starting);
        let options = RunOptions { role: ROLE.into(), instance: instance.clone(), workers: 1, step: STEP, status };
        let sink = refill.clone();
        let result = log.run_sink(move || sink.clone(), options, stop.clone()).await;
        if began.elapsed() > max_delay {
            backoff.reset();
        }
        let pause = backoff.next_pause();
        match result {
            Ok(()) => return Ok(()),
            Err(error @ LogError::Damaged(_)) => return Err(error),
            Err(error @ (LogError::Refused(_) | LogError::Unavailable(_))) => {
                tracing::warn!(%error, "refills of older hours failed, restarting in {pause:?}");
            }
        }
        if tokio::time::timeout(pause, stop.cancelled()).await.is_ok() {
            return Ok(());
        }
    }
}

impl Sink for Refill {
    fn topic(&self) -> Topic {
        Topic::REFILL
    }

    async fn position(&mut self, _partition: u32) -> Result<Option<ProjectionPosition>, StoreError> {
        // Not stored: the topic retains one hour of hints, and the sink drops old ones.
        Ok(None)
    }

    async fn write(&mut self, steps: &[ProjectionWrite<'_, Batch>]) -> Result<Vec<WriteOutcome>, StoreError> {
        let oldest = self.clock.now_ms() - MAX_AGE_MS;
        let records = steps.iter().flat_map(|step| step.items.iter());
        let recent = records.filter(|record| record.timestamp_ms >= oldest);
        let requests = recent.filter_map(|record| RefillRequest::decode(record.value?).ok());
        let hours: BTreeSet<Hour> =
            requests.map(|request| request.hour).filter(|hour| !self.live.covers(*hour)).collect();
        let all = futures::stream::iter(hours).for_each_concurrent(CONCURRENCY, |hour| self.refill(hour));
        if tokio::time::timeout(TIMEOUT, all).await.is_err() {
            metrics::counter!(metric::REFILLS.name, "outcome" => "failed").increment(1);
            tracing::warn!("refills exceeded {TIMEOUT:?}: later reads request the remaining hours again");
        }
        Ok(vec![WriteOutcome::Applied; steps.len()])
    }
}

impl Refill {
    /// Refills one hour and counts the outcome.
    async fn refill(&self, hour: Hour) {
        let outcome = match self.fill(hour).await {
            Ok(RefillOutcome::Filled) => "filled",
            Ok(RefillOutcome::ArchiveBehind) => "archive-behind",
            Ok(RefillOutcome::Rebuilding) => "rebuilding",
            Err(error) => {
                tracing::debug!(%hour, %error, "refill failed");
                "failed"
            }
        };
        metrics::counter!(metric::REFILLS.name, "outcome" => outcome).increment(1);
    }

    async fn fill(&self, hour: Hour) -> Result<RefillOutcome, StoreError> {
        let mut backoff = Backoff::new(MIN_PAUSE, MAX_PAUSE);
        let mut outcome = RefillOutcome::ArchiveBehind;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(backoff.next_pause()).await;
            }
            let parts = self.archive.snapshot(0..self.partitions, hour..hour.plus(1)).await?;
            outcome = self.live.fill(hour, &parts).await?;
            if outcome != RefillOutcome::ArchiveBehind {
                break;
            }
        }
        Ok(outcome)
    }
}
