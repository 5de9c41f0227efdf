//! Wall-clock time, and the start of the next hour.

use std::time::Duration;

use millrace_base::Clock;

/// Milliseconds of an hour.
pub(crate) const HOUR_MS: u64 = 3_600_000;

/// Now, ms since the epoch.
pub(crate) fn now_ms() -> u64 {
    Clock::system().now_ms().cast_unsigned()
}

/// Waits for the next hour if the current one ends within the measurement, so that all of it is in one hour.
pub(crate) async fn wait_out_the_hours_end(lasting: Duration) {
    let left = Duration::from_millis(HOUR_MS - now_ms() % HOUR_MS);
    if left < lasting + Duration::from_secs(5) {
        tokio::time::sleep(left + Duration::from_millis(100)).await;
    }
}
