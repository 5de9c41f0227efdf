//! Requests a second of one peer address, when the operator sets a bound.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use millrace_contracts::Code;
use uuid::Uuid;

use crate::Problem;

pub(super) const FORGET_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct PerIp(DefaultKeyedRateLimiter<IpAddr>);

impl PerIp {
    pub(super) fn new(per_second: u32) -> Option<Self> {
        NonZeroU32::new(per_second).map(|most| Self(RateLimiter::keyed(Quota::per_second(most))))
    }

    pub(super) fn check(&self, ip: IpAddr) -> Result<(), Problem> {
        self.0.check_key(&ip).map_err(|until| {
            let wait = until.wait_time_from(DefaultClock::default().now());
            // Spread over a second, so that those refused together do not come back together.
            let jitter = Duration::from_millis(u64::from(Uuid::new_v4().as_bytes()[0]) * 4);
            Problem::new(Code::RateLimited, "too many requests from this address")
                .retry_after((wait + jitter).max(Duration::from_millis(1)))
        })
    }

    /// Forgets the addresses that are as good as new, or the table would grow with every stranger.
    pub(super) fn forget(&self) {
        self.0.retain_recent();
        self.0.shrink_to_fit();
    }
}
