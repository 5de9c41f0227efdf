//! The sink of readers' wishes: older hours, out of the archive into Redis.
//!
//! A wish is a hint. It is dropped when it is old, when a store is away, or when the archive stays behind Redis for too long:
//! the next read of the hour makes another. What keeps a fill from undoing a newer count is the store's business.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt as _;
use millrace_contracts::{Hour, ProjectionWrite, RefillRequest, StoreError, Topic, WriteOutcome, metric};
use millrace_log::{Batch, Limits, Log, LogError, RunOptions, Sink, Status};
use millrace_store::{Archive, Clock, Filled, LiveHours};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Config;

const ROLE: &str = "materializer-refill";
/// Wishes that are older than this are not those of anyone who still reads.
const OLDEST_MS: i64 = 60_000;
/// One write's worth of wishes, and how many are seen to at a time.
const STEP: Limits = Limits { records: 256, bytes: 1 << 20, wait: Duration::from_millis(20) };
const AT_A_TIME: usize = 4;
/// How often, and with what pause, the archive is waited for when Redis is ahead of it: some steps of its projection.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);
/// All of one write; then it was not to be.
const WITHIN: Duration = Duration::from_secs(10);

/// Fills older hours of `live` from `archive`, as wishes come.
#[derive(Debug, Clone)]
pub(crate) struct Refill {
    pub(crate) live: LiveHours,
    pub(crate) archive: Archive,
    pub(crate) partitions: u32,
    pub(crate) clock: Clock,
}

/// Refills until stopped. Only a damaged log ends it: without refills older hours are read from the archive.
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
    loop {
        let (status, _) = watch::channel(Status::Starting);
        let options = RunOptions { role: ROLE.into(), instance: instance.clone(), workers: 1, step: STEP, status };
        let sink = refill.clone();
        match log.run_sink(move || sink.clone(), options, stop.clone()).await {
            Ok(()) => return Ok(()),
            Err(error @ LogError::Damaged(_)) => return Err(error),
            Err(error @ (LogError::Refused(_) | LogError::Unavailable(_))) => {
                tracing::warn!(%error, "older hours are not refilled, starting anew in {:?}", config.retry_max_delay.0);
            }
        }
        if tokio::time::timeout(config.retry_max_delay.0, stop.cancelled()).await.is_ok() {
            return Ok(());
        }
    }
}

impl Sink for Refill {
    fn topic(&self) -> Topic {
        Topic::REFILL
    }

    async fn position(&mut self, _partition: u32) -> Result<Option<u64>, StoreError> {
        // None is kept: the topic holds one hour of hints, and the old ones are passed over.
        Ok(None)
    }

    async fn write(&mut self, steps: &[ProjectionWrite<'_, Batch>]) -> Result<Vec<WriteOutcome>, StoreError> {
        let oldest = self.clock.now_ms() - OLDEST_MS;
        let records = steps.iter().flat_map(|step| step.items.iter());
        let young = records.filter(|record| record.timestamp_ms >= oldest);
        let wished = young.filter_map(|record| RefillRequest::decode(record.value?).ok());
        let hours: BTreeSet<Hour> = wished.map(|asked| asked.hour).filter(|hour| !self.live.covers(*hour)).collect();
        let all = futures::stream::iter(hours).for_each_concurrent(AT_A_TIME, |hour| self.see_to(hour));
        if tokio::time::timeout(WITHIN, all).await.is_err() {
            metrics::counter!(metric::REFILLS.name, "outcome" => "failed").increment(1);
            tracing::warn!("refills took longer than {WITHIN:?}: the rest is left to later reads");
        }
        Ok(vec![WriteOutcome::Applied; steps.len()])
    }
}

impl Refill {
    async fn see_to(&self, hour: Hour) {
        let outcome = match self.fill(hour).await {
            Ok(Filled::Filled) => "filled",
            Ok(Filled::Early) => "archive-behind",
            Ok(Filled::Incomplete) => "rebuilding",
            Err(error) => {
                tracing::debug!(%hour, %error, "an older hour was not refilled");
                "failed"
            }
        };
        metrics::counter!(metric::REFILLS.name, "outcome" => outcome).increment(1);
    }

    async fn fill(&self, hour: Hour) -> Result<Filled, StoreError> {
        let mut filled = Filled::Early;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            let parts = self.archive.snapshot(0..self.partitions, hour..hour.plus(1)).await?;
            filled = self.live.fill(hour, &parts).await?;
            if filled != Filled::Early {
                break;
            }
        }
        Ok(filled)
    }
}
