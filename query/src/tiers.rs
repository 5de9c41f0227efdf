//! Which read model answers for which hour.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use millrace_contracts::Hour;
use millrace_service::breaker::{Breaker, BreakerConfig};
use millrace_store::{Answer, Archive, Edges, LiveHours, Totals};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};

use crate::http::Clock;
use crate::said::Said;
use crate::{Config, Hours, Known, Missed, Tier, metrics};

/// Asks for an older hour to be put into Redis again. Must not block; one that is lost is made again by a later read.
pub type Refresh = Arc<dyn Fn(Hour) + Send + Sync>;

/// The read models of a process.
#[derive(Clone)]
pub struct Reads {
    /// Redis, where there is one.
    pub live: Option<LiveHours>,
    /// Every hour.
    pub archive: Archive,
    /// How many hours before the current one are in `live`.
    pub live_hours: u32,
    /// How Redis is filled with an older hour that was read; `None` where it is not.
    pub refresh: Option<Refresh>,
}

/// The read models in the order in which they are asked: Redis for live hours and for older ones that were filled in not
/// long ago, then, and for all other hours, the archive. None of them is asked while its breaker is open, and none gets
/// through with less than was said before.
pub struct Tiers {
    reads: Reads,
    clock: Clock,
    redis: Breaker,
    archive: Breaker,
    /// Reads of the archive: a scan of random hours waits here, not in the archive's queue.
    seats: Semaphore,
    /// What was found at the last look, and when that was; a look that failed is not repeated by everyone who waited for it.
    edges: Mutex<Option<(Option<Edges>, i64)>>,
    said: Said,
    wait: Duration,
    archive_for_ms: i64,
    refill_every_ms: i64,
    /// Of all hours: a scan of old ones must not ask for as many refills.
    refills: DefaultDirectRateLimiter,
}

impl Tiers {
    /// The read models as the settings say.
    pub fn new(reads: Reads, config: &Config, clock: Clock) -> Self {
        let ms = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        Self {
            reads,
            clock,
            redis: breaker(Tier::Redis, config),
            archive: breaker(Tier::Archive, config),
            seats: Semaphore::new(config.max_archive_reads),
            edges: Mutex::default(),
            said: Said::default(),
            wait: config.store_timeout.0,
            archive_for_ms: ms(config.archive_cache_ttl.0),
            refill_every_ms: ms(config.refill_interval.0),
            refills: RateLimiter::direct(Quota::per_second(
                NonZeroU32::new(config.max_refill_rate).unwrap_or(NonZeroU32::MIN),
            )),
        }
    }

    async fn live(&self, live: &LiveHours, hour: Hour, current: Hour) -> Result<Known, Missed> {
        let as_of_ms = (self.clock)();
        let found = self.redis.call(live.hour(hour)).await.ok();
        let otherwise = match found {
            Some(Answer::Known(totals)) => {
                let known = Known { totals, tier: Tier::Redis, as_of_ms, stale: false };
                match self.said.weigh(hour, current, known) {
                    Ok(known) => return Ok(known),
                    // Redis is behind it, so no answer of Redis is newer.
                    Err(before) => Ok(before),
                }
            }
            Some(Answer::Rebuilding) => Err(Missed::Rebuilding),
            None => Err(Missed::Unavailable),
        };
        // What Redis does not know says nothing about the archive, which has every hour; but not as soon.
        match self.archived(hour, current).await {
            Ok(known) => Ok(Known { stale: known.stale || hour == current, ..known }),
            Err(Missed::Unavailable) => otherwise,
            Err(other) => Err(other),
        }
    }

    async fn older(&self, hour: Hour, current: Hour) -> Result<Known, Missed> {
        let now_ms = (self.clock)();
        if let Some(known) = self.said.fresh(hour, now_ms, self.archive_for_ms) {
            return Ok(known);
        }
        if let Some(live) = &self.reads.live
            && hour < current
            && let Ok(Some(totals)) = self.redis.call(live.older(hour)).await
        {
            let known = Known { totals, tier: Tier::Redis, as_of_ms: now_ms, stale: false };
            if let Ok(known) = self.said.weigh(hour, current, known) {
                return Ok(known);
            }
        }
        if let Some(as_of_ms) = self.outside(hour).await {
            let known = Known { totals: Totals::default(), tier: Tier::Archive, as_of_ms, stale: false };
            return Ok(self.said.weigh(hour, current, known).unwrap_or_else(|before| before));
        }
        let known = self.archived(hour, current).await?;
        if let Some(refresh) = &self.reads.refresh
            && hour < current
            && known.totals != Totals::default()
            && self.said.refill(hour, now_ms, self.refill_every_ms, || self.refills.check().is_ok())
        {
            metrics::refill_asked();
            refresh(hour);
        }
        Ok(known)
    }

    /// The archive's numbers, or those said before if they are more. What is asked of the archive is boxed: it is large
    /// (PostgreSQL's migrations are in it), and reads of Redis need not carry its room.
    async fn archived(&self, hour: Hour, current: Hour) -> Result<Known, Missed> {
        // The current hour is read by one request at a time, and does not wait behind a scan of others.
        let _seat = if hour == current { None } else { Some(self.seat().await?) };
        let as_of_ms = (self.clock)();
        match self.archive.call(self.reads.archive.hour(hour).boxed()).await.ok() {
            Some(Answer::Known(totals)) => {
                let known = Known { totals, tier: Tier::Archive, as_of_ms, stale: false };
                Ok(self.said.weigh(hour, current, known).unwrap_or_else(|before| before))
            }
            Some(Answer::Rebuilding) => Err(Missed::Rebuilding),
            None => Err(Missed::Unavailable),
        }
    }

    /// Whether an hour is outside those that have counts, and as of when that is known. Looked up once in a while, so that
    /// hours nobody has ever counted cost the archive nothing.
    async fn outside(&self, hour: Hour) -> Option<i64> {
        let mut known = self.edges.lock().await;
        let begun_ms = (self.clock)();
        let fresh = known.filter(|(_, at_ms)| (0..self.archive_for_ms).contains(&(begun_ms - at_ms)));
        let (edges, at_ms) = if let Some(fresh) = fresh {
            fresh
        } else {
            let edges = self.archive.call(self.reads.archive.edges().boxed()).await.ok().flatten();
            *known.insert((edges, if edges.is_some() { begun_ms } else { (self.clock)() }))
        };
        edges.filter(|edges| !edges.hold(hour)).map(|_| at_ms)
    }

    async fn seat(&self) -> Result<SemaphorePermit<'_>, Missed> {
        match tokio::time::timeout(self.wait, self.seats.acquire()).await {
            Ok(Ok(seat)) => Ok(seat),
            _ => Err(Missed::Overloaded),
        }
    }
}

impl Hours for Tiers {
    fn read(&self, hour: Hour, current: Hour) -> BoxFuture<'_, Result<Known, Missed>> {
        async move {
            let recent = (current.plus(-i64::from(self.reads.live_hours))..=current).contains(&hour);
            match &self.reads.live {
                Some(live) if recent && live.covers(hour) => self.live(live, hour, current).await,
                // Without a Redis they are read anew as they are from one.
                None if recent => self.archived(hour, current).await,
                _ if hour == current => self.archived(hour, current).await,
                _ => self.older(hour, current).await,
            }
        }
        .boxed()
    }

    fn bulk(&self, from: Hour, to: Hour, current: Hour) -> BoxFuture<'_, Result<Vec<Known>, Missed>> {
        async move {
            let _seat = self.seat().await?;
            let as_of_ms = (self.clock)();
            let found =
                self.archive.call(self.reads.archive.hours(from, to).boxed()).await.map_err(|_| Missed::Unavailable)?;
            let found = found.ok_or(Missed::Rebuilding)?;
            let known = |index| {
                let hour = Hour::from_index(index);
                let totals = found.get(&hour).copied().unwrap_or_default();
                let known = Known { totals, tier: Tier::Archive, as_of_ms, stale: false };
                self.said.weigh(hour, current, known).unwrap_or_else(|before| before)
            };
            Ok((from.index()..to.index()).map(known).collect())
        }
        .boxed()
    }

    /// A future hour is not live: Redis' window ends with the current one.
    fn first_live(&self, current: Hour) -> Hour {
        let hours = self.reads.live.as_ref().map_or(0, |_| self.reads.live_hours);
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
