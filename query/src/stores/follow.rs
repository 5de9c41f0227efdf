//! Polls the log and the stores for how far each is: regularly, and the stores at once while requests wait for events.
//!
//! Each store by itself: while one does not answer, what the other has counted is visible without delay.

use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::Notify;

use super::port::Tier;
use super::tiers::Tiers;

/// Between two polls of the log, and of a store that no request waits for.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Between two polls of a store that a request waits for.
const WAIT_INTERVAL: Duration = Duration::from_millis(5);

/// Requests for the next poll of each store.
#[derive(Debug, Default)]
pub(super) struct PollRequests {
    live: Notify,
    archive: Notify,
}

impl PollRequests {
    /// Requests a poll of both stores.
    pub(super) fn send(&self) {
        self.live.notify_one();
        self.archive.notify_one();
    }
}

impl Tiers {
    /// Follows the log and the stores, for ever.
    pub async fn follow(&self) {
        tokio::join!(self.follow_log(), self.follow_live(), self.follow_archive());
    }

    async fn follow_log(&self) {
        loop {
            self.freshness.poll_log().await;
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn follow_live(&self) {
        let Some(live) = &self.models.live else { return };
        loop {
            let counted = self.redis.call(live.counted()).await;
            self.freshness.record(Tier::Redis, counted.ok());
            pause(&self.polls.live).await;
        }
    }

    async fn follow_archive(&self) {
        loop {
            let counted = self.archive.call(self.models.archive.counted().boxed()).await;
            self.freshness.record(Tier::Archive, counted.ok());
            pause(&self.polls.archive).await;
        }
    }
}

/// The pause before the next poll of a store.
async fn pause(requested: &Notify) {
    if tokio::time::timeout(POLL_INTERVAL, requested.notified()).await.is_ok() {
        tokio::time::sleep(WAIT_INTERVAL).await;
    }
}
