//! Which read model serves which hour.

use std::num::NonZeroU32;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use millrace_base::Clock;
use millrace_contracts::Hour;
use millrace_service::breaker::{Breaker, BreakerConfig};
use millrace_store::{Archive, ArchiveExtent, HourRead, LiveHours, Totals};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};

use super::high_water::HighWaterMarks;
use super::port::{HourCounts, HourReader, ReadError, Tier};
use super::refill::RefillSender;
use crate::config::Config;
use crate::metrics;

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
}

/// Reads each hour from the first tier that has it: Redis for live hours and for refilled older ones, then the archive.
///
/// Skips a read model whose circuit is open, and never serves lower counts than it served before.
pub struct Tiers {
    models: ReadModels,
    clock: Clock,
    redis: Breaker,
    archive: Breaker,
    /// Permits for reads of the archive. A scan of random hours waits here, not in the archive's queue.
    archive_permits: Semaphore,
    /// The archive's first and last hour and when that was read. Holds a failed read, too, so that those who waited for it
    /// do not repeat it.
    extent: Mutex<Option<(Option<ArchiveExtent>, i64)>>,
    marks: HighWaterMarks,
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

    /// A live hour: from Redis, else from the archive, which has every hour, though later.
    async fn live(&self, live: &LiveHours, hour: Hour, current: Hour) -> Result<HourCounts, ReadError> {
        let as_of_ms = self.clock.now_ms();
        let fallback = match self.redis.call(live.hour(hour)).await {
            Ok(HourRead::Complete(totals)) => {
                let counts = HourCounts { totals, tier: Tier::Redis, as_of_ms, stale: false };
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
        if let Some(counts) = self.marks.recent(hour, now_ms, self.archive_ttl_ms) {
            return Ok(counts);
        }
        if let Some(live) = &self.models.live
            && hour < current
            && let Ok(Some(totals)) = self.redis.call(live.older(hour)).await
        {
            let counts = HourCounts { totals, tier: Tier::Redis, as_of_ms: now_ms, stale: false };
            if let Ok(counts) = self.marks.admit(hour, current, counts) {
                return Ok(counts);
            }
        }
        if let Some(as_of_ms) = self.outside(hour).await {
            let counts = HourCounts { totals: Totals::default(), tier: Tier::Archive, as_of_ms, stale: false };
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
    ///
    /// Boxes the archive's futures: they are large (PostgreSQL's migrations are in them), and reads of Redis must not
    /// have their size.
    async fn archived(&self, hour: Hour, current: Hour) -> Result<HourCounts, ReadError> {
        // Only one request at a time reads the current hour; it does not wait behind a scan of others.
        let _permit = if hour == current { None } else { Some(self.permit().await?) };
        let as_of_ms = self.clock.now_ms();
        match self.archive.call(self.models.archive.hour(hour).boxed()).await {
            Ok(HourRead::Complete(totals)) => {
                let counts = HourCounts { totals, tier: Tier::Archive, as_of_ms, stale: false };
                Ok(self.marks.admit(hour, current, counts).unwrap_or_else(|served| served))
            }
            Ok(HourRead::Rebuilding) => Err(ReadError::Rebuilding),
            Err(_) => Err(ReadError::Unavailable),
        }
    }

    /// If `hour` is before the first or after the last hour of the archive, when those were read. They are read once per
    /// `query.archive_cache_ttl`, so that reads of empty hours cost the archive nothing.
    async fn outside(&self, hour: Hour) -> Option<i64> {
        let mut slot = self.extent.lock().await;
        let begin_ms = self.clock.now_ms();
        let recent = slot.filter(|(_, at_ms)| (0..self.archive_ttl_ms).contains(&(begin_ms - at_ms)));
        let (extent, at_ms) = if let Some(recent) = recent {
            recent
        } else {
            let extent = self.archive.call(self.models.archive.extent().boxed()).await.ok().flatten();
            *slot.insert((extent, if extent.is_some() { begin_ms } else { self.clock.now_ms() }))
        };
        extent.filter(|extent| !extent.contains(hour)).map(|_| at_ms)
    }

    async fn permit(&self) -> Result<SemaphorePermit<'_>, ReadError> {
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
            match &self.models.live {
                Some(live) if recent && live.covers(hour) => self.live(live, hour, current).await,
                // Without Redis, recent hours are not cached either.
                None if recent => self.archived(hour, current).await,
                _ if hour == current => self.archived(hour, current).await,
                _ => self.older(hour, current).await,
            }
        }
        .boxed()
    }

    fn read_range(&self, from: Hour, to: Hour, current: Hour) -> BoxFuture<'_, Result<Vec<HourCounts>, ReadError>> {
        async move {
            let _permit = self.permit().await?;
            let as_of_ms = self.clock.now_ms();
            let read = self.archive.call(self.models.archive.hours(from, to).boxed()).await;
            let found = read.map_err(|_| ReadError::Unavailable)?.ok_or(ReadError::Rebuilding)?;
            let counts = |index| {
                let hour = Hour::from_index(index);
                let totals = found.get(&hour).copied().unwrap_or_default();
                let counts = HourCounts { totals, tier: Tier::Archive, as_of_ms, stale: false };
                self.marks.admit(hour, current, counts).unwrap_or_else(|served| served)
            };
            Ok((from.index()..to.index()).map(counts).collect())
        }
        .boxed()
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
