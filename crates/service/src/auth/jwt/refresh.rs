//! Reading the issuer's keys again because of a token.

use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

/// Least time between two reads because of a token: anybody can make up key ids.
const INTERVAL: Duration = Duration::from_mins(1);
/// Longest wait for a read.
const PATIENCE: Duration = Duration::from_secs(10);

/// Requests for another read of the issuer's keys.
pub(super) struct Refresh {
    limit: DefaultDirectRateLimiter,
    requested: Notify,
    under_way: watch::Sender<bool>,
}

impl Default for Refresh {
    fn default() -> Self {
        let quota = Quota::with_period(INTERVAL).expect("the interval is not zero");
        Self { limit: RateLimiter::direct(quota), requested: Notify::new(), under_way: watch::Sender::new(false) }
    }
}

impl Refresh {
    /// Requests a read, if the last request was long enough ago.
    pub(super) fn request(&self) {
        if self.limit.check().is_ok() {
            self.under_way.send_replace(true);
            self.requested.notify_one();
        }
    }

    /// Waits until a requested read has ended; false at once if none was requested.
    pub(super) async fn ended(&self) -> bool {
        let mut under_way = self.under_way.subscribe();
        let begun = *under_way.borrow();
        begun && matches!(timeout(PATIENCE, under_way.wait_for(|under_way| !under_way)).await, Ok(Ok(_)))
    }

    /// Waits for a request.
    pub(super) async fn requested(&self) {
        self.requested.notified().await;
    }

    /// A read has ended.
    pub(super) fn end(&self) {
        self.under_way.send_replace(false);
    }
}
