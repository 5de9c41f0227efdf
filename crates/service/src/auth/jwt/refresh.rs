//! Reading the issuer's keys again because of a token.

use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::watch;
use tokio::time::timeout;

/// Least time between two reads because of a token: anybody can make up key ids.
const INTERVAL: Duration = Duration::from_mins(1);
/// Longest wait for a read: one may be under way before it.
const PATIENCE: Duration = Duration::from_secs(11);

/// Requests for another read of the issuer's keys.
pub(super) struct Refresh {
    limit: DefaultDirectRateLimiter,
    requests: watch::Sender<Requests>,
}

/// How many requests there were, and how many of them a read has served: one that began after them, whatever came of it. One
/// that was under way may have the keys of before.
#[derive(Debug, Default, Clone, Copy)]
struct Requests {
    made: u64,
    served: u64,
}

impl Requests {
    fn is_pending(self) -> bool {
        self.served < self.made
    }
}

impl Default for Refresh {
    fn default() -> Self {
        let quota = Quota::with_period(INTERVAL).expect("the interval is not zero");
        Self { limit: RateLimiter::direct(quota), requests: watch::Sender::default() }
    }
}

impl Refresh {
    /// Requests a read, if the last request was long enough ago.
    pub(super) fn request(&self) {
        if self.limit.check().is_ok() {
            self.requests.send_modify(|requests| requests.made += 1);
        }
    }

    /// Whether a request is not served yet.
    pub(super) fn is_pending(&self) -> bool {
        self.requests.borrow().is_pending()
    }

    /// Waits until every request so far is served.
    pub(super) async fn ended(&self) {
        let mut requests = self.requests.subscribe();
        let made = requests.borrow().made;
        let _ = timeout(PATIENCE, requests.wait_for(|requests| requests.served >= made)).await;
    }

    /// Waits for a request that is not served.
    pub(super) async fn requested(&self) {
        let _ = self.requests.subscribe().wait_for(|requests| requests.is_pending()).await;
    }

    /// A read begins: it serves the requests so far. To be given to [`Self::end`].
    pub(super) fn begin(&self) -> u64 {
        self.requests.borrow().made
    }

    /// The read that began after so many requests has ended.
    pub(super) fn end(&self, begun: u64) {
        self.requests.send_modify(|requests| requests.served = begun);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_request_during_a_read_waits_for_the_next_one() {
        let refresh = Refresh::default();
        refresh.ended().await;
        let first = refresh.begin();
        refresh.request();
        let mut waits = Box::pin(refresh.ended());
        assert!(refresh.is_pending() && waits.as_mut().now_or_never().is_none());
        refresh.end(first);
        assert!(refresh.is_pending(), "that read may have the keys of before");
        assert!(waits.as_mut().now_or_never().is_none());
        refresh.requested().await;
        let second = refresh.begin();
        refresh.end(second);
        waits.await;
        assert!(!refresh.is_pending());
        assert!(refresh.requested().now_or_never().is_none(), "each request is read for once");
    }
}
