//! A rate limit per peer address, where the operator sets one.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use millrace_base::backoff::jitter;

/// Requests that are refused together are spread over this time, so that they do not come back together.
const SPREAD: Duration = Duration::from_secs(1);

/// A number of requests a second for each peer address; bursts of as many pass.
#[derive(Debug)]
pub struct RateLimit(DefaultKeyedRateLimiter<IpAddr>);

/// A request beyond its rate limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimited {
    /// When to try again.
    pub retry_after: Duration,
}

/// A time to retry after `wait`, at random within a second.
pub(crate) fn spread(wait: Duration) -> Duration {
    (wait + jitter(SPREAD)).max(Duration::from_millis(1))
}

impl RateLimit {
    /// A limit of `per_second`; 0 means no limit.
    pub fn new(per_second: u32) -> Option<Self> {
        NonZeroU32::new(per_second).map(|rate| Self(RateLimiter::keyed(Quota::per_second(rate))))
    }

    /// Counts one request.
    ///
    /// # Errors
    /// When the address exceeds its rate.
    pub fn check(&self, ip: IpAddr) -> Result<(), RateLimited> {
        self.0.check_key(&ip).map_err(|until| {
            let wait = until.wait_time_from(DefaultClock::default().now());
            RateLimited { retry_after: spread(wait) }
        })
    }

    /// Drops the state of addresses that are within their rate: without it the table would grow with every new address.
    pub fn evict_idle(&self) {
        self.0.retain_recent();
        self.0.shrink_to_fit();
    }
}
