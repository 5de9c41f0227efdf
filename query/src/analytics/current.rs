//! The current hour, kept rendered in memory.
//!
//! One request at a time reads the store, at most once per `query.refresh_interval`; the others get the last snapshot. No
//! background task refreshes it: a read does, or the readiness probe once a second.

use std::sync::Arc;

use arc_swap::{ArcSwapOption, Guard};
use millrace_base::Clock;
use millrace_contracts::Hour;
use tokio::sync::Mutex;

use super::render::{HourResponse, MaxAge};
use crate::config::Config;
use crate::metrics;
use crate::stores::port::{HourCounts, HourReader, ReadError, Tier};

/// The rendered counts of an hour, or why there are none.
pub(crate) type HourResult = Result<Box<HourResponse>, ReadError>;

/// The result of one read of the current hour.
#[derive(Debug)]
pub(crate) struct HourSnapshot {
    hour: Hour,
    /// Ms since the epoch: of counts, when their read began; of a failure, when the read ended.
    at_ms: i64,
    /// Counts the reads of this process: one more for each snapshot.
    generation: u64,
    /// Whether a store answered. One that is rebuilding did.
    pub(crate) store_available: bool,
    pub(crate) result: HourResult,
}

impl HourSnapshot {
    /// Whether this is a snapshot of `hour` younger than `max_age_ms`. A clock set back makes every snapshot old.
    fn is_usable(&self, hour: Hour, now_ms: i64, max_age_ms: i64) -> bool {
        self.hour == hour && (0..max_age_ms).contains(&(now_ms - self.at_ms))
    }
}

/// The newest snapshot, and the lock of the one request that refreshes it.
pub(crate) struct CurrentHour {
    slot: ArcSwapOption<HourSnapshot>,
    refresh: Mutex<()>,
    refresh_ms: i64,
    stale_after_ms: i64,
}

impl CurrentHour {
    pub(crate) fn new(config: &Config) -> Self {
        let ms = |span: std::time::Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        Self {
            slot: ArcSwapOption::empty(),
            refresh: Mutex::new(()),
            refresh_ms: ms(config.refresh_interval.0),
            stale_after_ms: ms(config.stale_after.0),
        }
    }

    /// The snapshot, if no refresh is due.
    pub(crate) fn fresh(&self, hour: Hour, now_ms: i64) -> Option<Guard<Option<Arc<HourSnapshot>>>> {
        let snapshot = self.slot.load();
        let fresh = snapshot.as_ref().is_some_and(|snapshot| snapshot.is_usable(hour, now_ms, self.refresh_ms));
        fresh.then_some(snapshot)
    }

    /// The snapshot, refreshed if that is due. Waits for another request's refresh only if the snapshot is older than
    /// `query.stale_after`.
    pub(crate) async fn get(&self, hour: Hour, hours: &dyn HourReader, clock: &Clock) -> Arc<HourSnapshot> {
        let before = self.slot.load_full();
        let generation_before = before.as_ref().map_or(0, |snapshot| snapshot.generation);
        let _refresh = match self.refresh.try_lock() {
            Ok(refresh) => refresh,
            Err(_) => match before.filter(|snapshot| snapshot.is_usable(hour, clock.now_ms(), self.stale_after_ms)) {
                Some(previous) => return previous,
                None => self.refresh.lock().await,
            },
        };
        let now_ms = clock.now_ms();
        let previous = self.slot.load_full();
        if let Some(snapshot) = &previous
            && snapshot.hour == hour
            && (snapshot.generation > generation_before || snapshot.is_usable(hour, now_ms, self.refresh_ms))
        {
            return Arc::clone(snapshot);
        }
        let snapshot = Arc::new(read(hour, previous.as_deref(), hours, clock).await);
        // A slow read of an hour that has ended meanwhile does not replace the snapshot of the new hour.
        if previous.is_none_or(|previous| previous.hour <= hour) {
            self.slot.store(Some(Arc::clone(&snapshot)));
        }
        snapshot
    }
}

/// Reads the hour. While no store is available, the result is the previous snapshot's counts, marked stale.
async fn read(hour: Hour, previous: Option<&HourSnapshot>, hours: &dyn HourReader, clock: &Clock) -> HourSnapshot {
    metrics::refreshed();
    let begin_ms = clock.now_ms();
    let read = hours.read(hour, hour).await;
    let generation = previous.map_or(0, |snapshot| snapshot.generation) + 1;
    let store_available = !matches!(read, Err(ReadError::Unavailable));
    let (at_ms, result) = match read {
        Ok(counts) => {
            let counts = HourCounts { tier: Tier::Memory, ..counts };
            (begin_ms, Ok(Box::new(HourResponse::new(counts, MaxAge::Second, clock.now_ms()))))
        }
        Err(error) => {
            let now_ms = clock.now_ms();
            let result = match previous.filter(|snapshot| snapshot.hour == hour).map(|snapshot| &snapshot.result) {
                Some(Ok(response)) if !store_available => Ok(Box::new(response.to_stale(now_ms))),
                _ => Err(error),
            };
            (now_ms, result)
        }
    };
    HourSnapshot { hour, at_ms, generation, store_available, result }
}
