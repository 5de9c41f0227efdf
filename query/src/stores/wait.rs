//! Reads that wait until a store has counted given events.
//!
//! The store that answers is the one that has them: its position is looked up before its counts are read. A request that waits
//! has the stores polled sooner ([`follow`](super::follow)), for all that wait.

use std::sync::Arc;
use std::time::Duration;

use millrace_contracts::Hour;
use millrace_store::HourRead;
use tokio::sync::{SemaphorePermit, watch};
use tokio::time::Instant;

use super::freshness::StoresProgress;
use super::port::{HourCounts, ReadError, Tier};
use super::position::MinPositions;
use super::tiers::Tiers;

/// The shortest wait: some polls of the stores, the last of which may be 250 ms ago.
const MIN_WAIT: Duration = Duration::from_millis(50);

/// The wait of one request.
struct Wait<'a> {
    tiers: &'a Tiers,
    polls: watch::Receiver<Arc<StoresProgress>>,
    permit: Option<SemaphorePermit<'a>>,
    end: Instant,
}

impl<'a> Wait<'a> {
    fn new(tiers: &'a Tiers, at_most: Duration) -> Self {
        let end = Instant::now() + at_most.max(MIN_WAIT);
        Self { tiers, polls: tiers.freshness.subscribe(), permit: None, end }
    }

    /// The last poll of the stores.
    fn stores(&mut self) -> Arc<StoresProgress> {
        Arc::clone(&self.polls.borrow_and_update())
    }

    /// Waits for the next poll of a store.
    ///
    /// # Errors
    /// [`ReadError::NotYetVisible`] at the end of the wait, [`ReadError::TooManyWaiters`] if there are too many.
    async fn next(&mut self) -> Result<(), ReadError> {
        if self.permit.is_none() {
            let permit = self.tiers.waiters.try_acquire();
            self.permit = Some(permit.map_err(|_| ReadError::TooManyWaiters)?);
        }
        self.tiers.polls.send();
        match tokio::time::timeout_at(self.end, self.polls.changed()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(ReadError::NotYetVisible),
        }
    }
}

impl Tiers {
    /// The counts of an hour from a store that has these events. Waits for one at most this long.
    pub(super) async fn wait_and_read(
        &self,
        (hour, current): (Hour, Hour),
        positions: &MinPositions,
        at_most: Duration,
    ) -> Result<HourCounts, ReadError> {
        let mut wait = Wait::new(self, at_most);
        loop {
            let stores = wait.stores();
            match self.read_where(hour, current, positions, &stores).await {
                Err(ReadError::NotYetVisible) => wait.next().await?,
                read => return read,
            }
        }
    }

    /// Waits until the archive has these events, which has every hour.
    pub(super) async fn wait_for_archive(&self, positions: &MinPositions, at_most: Duration) -> Result<(), ReadError> {
        let mut wait = Wait::new(self, at_most);
        while !wait.stores().archive.has(positions) {
            wait.next().await?;
        }
        Ok(())
    }

    /// Reads an hour from a store that had these events at the last poll; neither from memory nor where a refill is.
    async fn read_where(
        &self,
        hour: Hour,
        current: Hour,
        positions: &MinPositions,
        stores: &StoresProgress,
    ) -> Result<HourCounts, ReadError> {
        // Counts that are lower than those served before are of a store behind another, whose counts may lack an event of the
        // request: neither are served.
        let admit = |counts| self.marks.admit(hour, current, counts).map_err(|_| ReadError::NotYetVisible);
        if stores.live.has(positions)
            && let Some(live) = self.live_for(hour, current)
        {
            let (as_of_ms, coverage) = (self.clock.now_ms(), self.freshness.coverage(Tier::Redis));
            if let Ok(HourRead::Complete(totals)) = self.redis.call(live.hour(hour)).await
                && let Ok(counts) = admit(HourCounts { totals, tier: Tier::Redis, as_of_ms, stale: false, coverage })
            {
                return Ok(counts);
            }
        }
        if !stores.archive.has(positions) {
            return Err(ReadError::NotYetVisible);
        }
        let _permit = self.permit().await?;
        admit(self.read_archive(hour).await?)
    }
}
