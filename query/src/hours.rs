//! Which read model answers for which hour.

use std::future::Future;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_contracts::{Hour, Next};
use millrace_store::{Answer, Archive, LiveHours, StoreError};

use crate::metrics;

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// The body of the current hour, kept in this process.
    Memory,
    /// Redis.
    Redis,
    /// The archive.
    Archive,
}

impl Tier {
    /// The word of the `Millrace-Tier` header and of metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Redis => "redis",
            Self::Archive => "archive",
        }
    }
}

/// What a read model said, and which one.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// The counts, or that they are not known to be complete.
    pub answer: Answer,
    /// The read model that answered.
    pub tier: Tier,
}

/// The read models, seen from HTTP. An error means that none of them could answer in time.
pub trait Hours: Send + Sync + 'static {
    /// The counts of `hour`, when `current` is the hour that runs now.
    fn read(&self, hour: Hour, current: Hour) -> BoxFuture<'_, Result<Found, StoreError>>;
}

/// The read models of a process.
#[derive(Clone)]
pub struct Reads {
    /// Redis, where there is one.
    pub live: Option<LiveHours>,
    /// Every hour.
    pub archive: Archive,
    /// How many hours before the current one are in `live`.
    pub live_hours: u32,
}

/// The read models in the order in which they are asked: live hours of Redis, then, and for all other hours, of the
/// archive.
pub struct Tiers {
    reads: Reads,
    timeout: Duration,
}

impl Tiers {
    /// `timeout` bounds the time given to each read model.
    pub fn new(reads: Reads, timeout: Duration) -> Self {
        Self { reads, timeout }
    }

    async fn within(
        &self,
        tier: Tier,
        read: impl Future<Output = Result<Answer, StoreError>>,
    ) -> Result<Found, StoreError> {
        let answer = match tokio::time::timeout(self.timeout, read).await {
            Ok(answer) => answer,
            Err(_) => Err(StoreError { next: Next::Retry, why: format!("no answer within {:?}", self.timeout) }),
        };
        answer.map(|answer| Found { answer, tier }).inspect_err(|error| {
            metrics::store_error(tier);
            // Counted each; readiness logs the change.
            tracing::debug!(store = tier.as_str(), error = error.why, "a read model does not answer");
        })
    }
}

impl Hours for Tiers {
    fn read(&self, hour: Hour, current: Hour) -> BoxFuture<'_, Result<Found, StoreError>> {
        async move {
            if let Some(live) = &self.reads.live
                && is_live(hour, current, self.reads.live_hours)
                && live.covers(hour)
                && let Ok(found) = self.within(Tier::Redis, live.hour(hour)).await
            {
                return Ok(found);
            }
            // Redis that is away says nothing about the archive, which has every hour.
            self.within(Tier::Archive, self.reads.archive.hour(hour)).await
        }
        .boxed()
    }
}

/// A future hour is not live: Redis' window ends with the current one.
fn is_live(hour: Hour, current: Hour, live_hours: u32) -> bool {
    hour <= current && hour >= current.plus(-i64::from(live_hours))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_the_current_hour_and_those_before() {
        let current = Hour::from_index(1_000);
        let live: Vec<i64> = (970..1_005).filter(|&i| is_live(Hour::from_index(i), current, 24)).collect();
        assert_eq!(live, (976..=1_000).collect::<Vec<_>>());
    }
}
