//! The event timestamps that Millrace accepts: one set of bounds for the service that takes events and the one that counts
//! them.

use std::ops::RangeInclusive;

use jiff::Timestamp;
use millrace_base::{Bounds, Span, Violation};
use serde::{Deserialize, Deserializer, de};

/// The accepted event timestamps, section `[analytics]` of the settings. The command service refuses an event outside, and
/// the processor quarantines it, so both must read the same values: with different ones, acknowledged events are not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventWindow {
    /// How far ahead of the clock a timestamp may be.
    pub future_tolerance: Span,
    /// The earliest timestamp, ms since the epoch. In the settings: a time in RFC 3339.
    #[serde(rename = "accept_from", deserialize_with = "ms_of_text")]
    pub accept_from_ms: i64,
}

impl Default for EventWindow {
    fn default() -> Self {
        Self { future_tolerance: Span::from_secs(300), accept_from_ms: 0 }
    }
}

impl EventWindow {
    /// Every setting outside its bounds.
    pub fn validate(&self) -> Vec<Violation> {
        let mut bounds = Bounds::new();
        bounds
            .range("future_tolerance", &self.future_tolerance, &(Span::from_millis(1)..=Span::from_secs(366 * 86_400)))
            .check(self.accept_from_ms >= 0, "accept_from", "a time in RFC 3339, 1970-01-01T00:00:00Z or later");
        bounds.into_violations()
    }

    /// The settings by key, in ms, for the metric by which operators and alerts compare processes.
    pub fn by_key(&self) -> [(&'static str, i64); 2] {
        let tolerance_ms = i64::try_from(self.future_tolerance.as_millis()).unwrap_or(i64::MAX);
        [("analytics.future_tolerance", tolerance_ms), ("analytics.accept_from", self.accept_from_ms)]
    }

    /// The accepted timestamps at `now_ms`. All in ms since the epoch.
    pub fn at(&self, now_ms: i64) -> RangeInclusive<i64> {
        let ahead_ms = i64::try_from(self.future_tolerance.as_millis()).unwrap_or(i64::MAX);
        self.accept_from_ms..=now_ms.saturating_add(ahead_ms)
    }
}

fn ms_of_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let text = String::deserialize(deserializer)?;
    let time = text.parse::<Timestamp>().map(Timestamp::as_millisecond);
    time.map_err(|_| de::Error::custom("must be a time in RFC 3339, such as \"1970-01-01T00:00:00Z\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_reaches_from_the_earliest_timestamp_to_the_tolerance_ahead() {
        let window = EventWindow { accept_from_ms: 10, ..EventWindow::default() };
        assert_eq!(window.at(1_000), 10..=301_000);
        assert_eq!(window.at(i64::MAX), 10..=i64::MAX);
        assert_eq!(window.validate(), []);
    }

    #[test]
    fn refuses_what_would_accept_nothing() {
        let window = EventWindow { accept_from_ms: -1, future_tolerance: Span::from_millis(0) };
        let keys: Vec<String> = window.validate().into_iter().map(|violation| violation.key).collect();
        assert_eq!(keys, ["future_tolerance", "accept_from"]);
    }
}
