//! Wall-clock time, and the hour's turn.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds of an hour.
pub(crate) const HOUR_MS: u64 = 3_600_000;

/// Now, ms since the epoch.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Waits for the next hour if the current one ends within the time: what is measured is "the current hour" throughout.
pub(crate) async fn not_over_the_turn(lasting: Duration) {
    let left = Duration::from_millis(HOUR_MS - now_ms() % HOUR_MS);
    if left < lasting + Duration::from_secs(5) {
        tokio::time::sleep(left + Duration::from_millis(100)).await;
    }
}
