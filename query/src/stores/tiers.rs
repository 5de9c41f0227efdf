//! Which read model serves which hour.

use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use millrace_base::Clock;
use millrace_contracts::Hour;
use millrace_log::Log;
use millrace_service::breaker::{Breaker, BreakerConfig};
use millrace_store::{Archive, ArchiveExtent, HourRead, LiveHours, Totals};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};

use super::follow::PollRequests;
use super::freshness::Freshness;
use super::high_water::HighWaterMarks;
use super::port::{HourCounts, HourReader, ReadError, Tier};
use super::position::{Coverage, MinPositions};
use super::refill::RefillSender;
use crate::config::Config;
use crate::metrics;

/// Most reads that wait for a position.
const MAX_WAITERS: usize = 1_000;

/// The read models of a process.
#[derive(Clone)]
pub struct ReadModels {
    /// Redis, on the engine that has one.
    pub live: Option<LiveHours>,
    /// Every hour.
    pub archive: Archive,
    /// Number of hours before the current one that `live` holds.
    pub live_hours: u32,
    /// Requests refills of Redis with older hours; `None` if there is no Redis.
    pub refill: Option<RefillSender>,
    /// The log, as soon as it is open: how far the read models are behind it.
    pub log: Arc<OnceLock<Log>>,
}

/// A read of the archive's first and last hour.
#[derive(Debug, Clone, Copy)]
struct ExtentRead {
    /// `None` if it failed.
    extent: Option<ArchiveExtent>,
    /// When it began, in ms since the epoch; of a failed one, when it ended.
    at_ms: i64,
    coverage: Coverage,
}

/// Reads each hour from the first tier that has it: Redis for live hours and for refilled older ones, then the archive.
///
/// Skips a read model whose circuit is open, and never serves lower counts than it served before.
pub struct Tiers {
    pub(super) models: ReadModels,
    pub(super) clock: Clock,
    pub(super) redis: Breaker,
    pub(super) archive: Breaker,
    /// Permits for reads of the archive. A scan of random hours waits here, not in the archive's queue.
    archive_permits: Semaphore,
    /// The last read of the archive's first and last hour. Holds a failed one, too, so that those who waited for it do not
    /// repeat it.
    extent: Mutex<Option<ExtentRead>>,
    pub(super) marks: HighWaterMarks,
    pub(super) freshness: Freshness,
    pub(super) polls: PollRequests,
    pub(super) waiters: Semaphore,
    store_timeout: Duration,
    archive_ttl_ms: i64,
    refill_interval_ms: i64,
    /// Limits the refill requests of all hours together: a scan of old hours must not send one for each.
    refill_rate: DefaultDirectRateLimiter,
}

impl Tiers {
    /// Tiers over `models`.
    pub fn new(models: ReadModels, config: &Config, clock: Clock) -> Self {
        let ms = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        Self {
            freshness: Freshness::new(Arc::clone(&models.log), clock.clone(), config.stale_after.0),
            polls: PollRequests::default(),
            waiters: Semaphore::new(MAX_WAITERS),
            models,
            clock,
            redis: breaker(Tier::Redis, config),
            archive: breaker(Tier::Archive, config),
            archive_permits: Semaphore::new(config.max_archive_reads),
            extent: Mutex::default(),
            marks: HighWaterMarks::default(),
            store_timeout: config.store_timeout.0,
            archive_ttl_ms: ms(config.archive_cache_ttl.0),
            refill_interval_ms: ms(config.refill_interval.0),
            refill_rate: RateLimiter::direct(Quota::per_second(
                NonZeroU32::new(config.max_refill_rate).unwrap_or(NonZeroU32::MIN),
            )),
        }
    }

    /// Redis, if it has this hour without a refill.
    pub(super) fn live_for(&self, hour: Hour, current: Hour) -> Option<&LiveHours> {
        let recent = (current.plus(-i64::from(self.models.live_hours))..=current).contains(&hour);
        self.models.live.as_ref().filter(|live| recent && live.covers(hour))
    }

    /// A live hour: from Redis, else from the archive, which has every hour, though later.
    async fn live(&self, live: &LiveHours, hour: Hour, current: Hour) -> Result<HourCounts, ReadError> {
        let (as_of_ms, coverage) = (self.clock.now_ms(), self.freshness.coverage(Tier::Redis));
        let fallback = match self.redis.call(live.hour(hour)).await {
            Ok(HourRead::Complete(totals)) => {
                let counts = HourCounts { totals, tier: Tier::Redis, as_of_ms, stale: false, coverage };
                match self.marks.admit(hour, current, counts) {
                    Ok(counts) => return Ok(counts),
                    // Redis lags behind what was served: try the archive.
                    Err(served) => Ok(served),
                }
            }
            Ok(HourRead::Rebuilding) => Err(ReadError::Rebuilding),
            Err(_) => Err(ReadError::Unavailable),
        };
        match self.archived(hour, current).await {
            Ok(counts) => Ok(HourCounts { stale: counts.stale || hour == current, ..counts }),
            Err(ReadError::Unavailable) => fallback,
            Err(other) => Err(other),
        }
    }

    /// An hour outside the live window: from memory, else from Redis if it was refilled, else from the archive.
    async fn older(&self, hour: Hour, current: Hour) -> Result<HourCounts, ReadError> {
        let now_ms = self.clock.now_ms();
        if let Some(counts) = self.marks.recent(hour, now_ms, self.archive_ttl_ms, self.freshness.log_end()) {
            return Ok(counts);
        }
        if let Some(live) = self.models.live.as_ref().filter(|_| hour < current) {
            let coverage = self.freshness.coverage(Tier::Redis);
            if let Ok(Some(totals)) = self.redis.call(live.older(hour)).await {
                let counts = HourCounts { totals, tier: Tier::Redis, as_of_ms: now_ms, stale: false, coverage };
                if let Ok(counts) = self.marks.admit(hour, current, counts) {
                    return Ok(counts);
                }
            }
        }
        if let Some((as_of_ms, coverage)) = self.outside(hour).await {
            let totals = Totals::default();
            let counts = HourCounts { totals, tier: Tier::Archive, as_of_ms, stale: false, coverage };
            return Ok(self.marks.admit(hour, current, counts).unwrap_or_else(|served| served));
        }
        let counts = self.archived(hour, current).await?;
        if let Some(send_refill) = &self.models.refill
            && hour < current
            && counts.totals != Totals::default()
            && self.marks.claim_refill(hour, now_ms, self.refill_interval_ms, || self.refill_rate.check().is_ok())
        {
            metrics::refill_requested();
            send_refill(hour);
        }
        Ok(counts)
    }

    /// The archive's counts, or those served before if they are higher.
    async fn archived(&self, hour: Hour, current: Hour) -> Result<HourCounts, ReadError> {
        // Only one request at a time reads the current hour; it does not wait behind a scan of others.
        let _permit = if hour == current { None } else { Some(self.permit().await?) };
        let counts = self.read_archive(hour).await?;
        Ok(self.marks.admit(hour, current, counts).unwrap_or_else(|served| served))
    }

    /// The archive's counts. The caller bounds how many read at a time.
    ///
    /// Boxes the archive's futures: they are large (PostgreSQL's migrations are in them), and reads of Redis must not
    /// have their size.
    pub(super) async fn read_archive(&self, hour: Hour) -> Result<HourCounts, ReadError> {
        let (as_of_ms, coverage) = (self.clock.now_ms(), self.freshness.coverage(Tier::Archive));
        match self.archive.call(self.models.archive.hour(hour).boxed()).await {
            Ok(HourRead::Complete(totals)) => {
                Ok(HourCounts { totals, tier: Tier::Archive, as_of_ms, stale: false, coverage })
            }
            Ok(HourRead::Rebuilding) => Err(ReadError::Rebuilding),
            Err(_) => Err(ReadError::Unavailable),
        }
    }

    /// If `hour` is before the first or after the last hour of the archive, when those were read. They are read once per
    /// `query.archive_cache_ttl`, so that reads of empty hours cost the archive nothing; again after an event that they lack.
    async fn outside(&self, hour: Hour) -> Option<(i64, Coverage)> {
        let asked_ms = self.clock.now_ms();
        let mut slot = self.extent.lock().await;
        let (begin_ms, log_end) = (self.clock.now_ms(), self.freshness.log_end());
        let is_current = |read: &ExtentRead| {
            read.extent.is_none() || read.coverage.log_end == Some(log_end) || read.at_ms > asked_ms
        };
        let recent = slot.filter(|read| (0..self.archive_ttl_ms).contains(&(begin_ms - read.at_ms)));
        let read = if let Some(recent) = recent.filter(is_current) {
            recent
        } else {
            let coverage = self.freshness.coverage(Tier::Archive);
            let extent = self.archive.call(self.models.archive.extent().boxed()).await.ok().flatten();
            let at_ms = if extent.is_some() { begin_ms } else { self.clock.now_ms() };
            *slot.insert(ExtentRead { extent, at_ms, coverage })
        };
        read.extent.filter(|extent| !extent.contains(hour)).map(|_| (read.at_ms, read.coverage))
    }

    /// Marks counts as stale if their store is behind the log.
    fn mark(&self, counts: HourCounts) -> HourCounts {
        HourCounts { stale: counts.stale || self.freshness.is_behind(counts.tier), ..counts }
    }

    pub(super) async fn permit(&self) -> Result<SemaphorePermit<'_>, ReadError> {
        match tokio::time::timeout(self.store_timeout, self.archive_permits.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(ReadError::Overloaded),
        }
    }
}

impl HourReader for Tiers {
    fn read(&self, hour: Hour, current: Hour) -> BoxFuture<'_, Result<HourCounts, ReadError>> {
        async move {
            let recent = (current.plus(-i64::from(self.models.live_hours))..=current).contains(&hour);
            let read = match self.live_for(hour, current) {
                Some(live) => self.live(live, hour, current).await,
                // Without Redis, recent hours are not cached either.
                None if recent && self.models.live.is_none() => self.archived(hour, current).await,
                None if hour == current => self.archived(hour, current).await,
                None => self.older(hour, current).await,
            };
            read.map(|counts| self.mark(counts))
        }
        .boxed()
    }

    fn read_range(&self, from: Hour, to: Hour, current: Hour) -> BoxFuture<'_, Result<Vec<HourCounts>, ReadError>> {
        async move {
            let _permit = self.permit().await?;
            let (as_of_ms, coverage) = (self.clock.now_ms(), self.freshness.coverage(Tier::Archive));
            let read = self.archive.call(self.models.archive.hours(from, to).boxed()).await;
            let found = read.map_err(|_| ReadError::Unavailable)?.ok_or(ReadError::Rebuilding)?;
            let counts = |index| {
                let hour = Hour::from_index(index);
                let totals = found.get(&hour).copied().unwrap_or_default();
                let counts = HourCounts { totals, tier: Tier::Archive, as_of_ms, stale: false, coverage };
                self.mark(self.marks.admit(hour, current, counts).unwrap_or_else(|served| served))
            };
            Ok((from.index()..to.index()).map(counts).collect())
        }
        .boxed()
    }

    fn read_at<'a>(
        &'a self,
        hour: Hour,
        current: Hour,
        positions: &'a MinPositions,
        wait: Duration,
    ) -> BoxFuture<'a, Result<HourCounts, ReadError>> {
        let read = self.wait_and_read((hour, current), positions, wait);
        async move { read.await.map(|counts| self.mark(counts)) }.boxed()
    }

    fn range_at<'a>(&'a self, positions: &'a MinPositions, wait: Duration) -> BoxFuture<'a, Result<(), ReadError>> {
        self.wait_for_archive(positions, wait).boxed()
    }

    fn partitions(&self) -> u32 {
        self.models.archive.partitions()
    }

    fn counted_up_to(&self) -> Option<i64> {
        self.freshness.up_to_ms()
    }

    fn notice(&self) -> Option<String> {
        self.freshness.notice()
    }

    /// A future hour is not live: the window of Redis ends with the current one.
    fn first_live(&self, current: Hour) -> Hour {
        let hours = self.models.live.as_ref().map_or(0, |_| self.models.live_hours);
        current.plus(-i64::from(hours))
    }
}

fn breaker(tier: Tier, config: &Config) -> Breaker {
    let limits = BreakerConfig {
        window: config.breaker_window,
        reset_timeout: config.breaker_reset_timeout.0,
        call_timeout: config.store_timeout.0,
    };
    Breaker::new(tier.as_str(), limits, metrics::breaker(tier))
}
