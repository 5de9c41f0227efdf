//! The one notation of times that people write: in options of tools, in query strings, headers and bodies.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::Hour;

/// What a refused time should be, in a message.
pub const TIME_FORM: &str = "ms since the epoch, or ISO 8601 from 1970 on, such as 2026-11-21T08Z";

/// A time in ms since the epoch: that number, or ISO 8601, with an offset or in UTC: 2026-11-21, 2026-11-21T08Z,
/// 2026-11-21T08:00:00+01:00. `None` for other texts, and outside 1970 and the end of [`Hour::MAX`].
pub fn time_ms(text: &str) -> Option<i64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let hour = || text.parse::<Hour>().ok().map(Hour::start_ms);
    let stamp = || text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond);
    let civil = || {
        let civil: DateTime = text.parse().ok()?;
        Some(TimeZone::UTC.to_timestamp(civil).ok()?.as_millisecond())
    };
    let read = if digits { text.parse().ok() } else { hour().or_else(stamp).or_else(civil) };
    read.filter(|ms| (0..=Hour::MAX.end_ms()).contains(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_numbers_or_iso_8601() {
        const HOUR_MS: i64 = 3_600_000;
        for (text, ms) in [
            ("0", 0),
            ("3600001", 3_600_001),
            ("0000000000000000000000000123", 123),
            ("1970-01-02", 86_400_000),
            ("1970-01-01T01Z", HOUR_MS),
            ("1970-01-01T01:00", HOUR_MS),
            ("1970-01-01T01:00Z", HOUR_MS),
            ("1970-01-01T01:00:00.5Z", HOUR_MS + 500),
            ("1970-01-01T02:00:00+01:00", HOUR_MS),
        ] {
            assert_eq!(time_ms(text), Some(ms), "{text}");
        }
        for bad in [
            "",
            "-1",
            "+1",
            "1.0",
            "1e3",
            "now",
            "1969-12-31",
            "1970-13-01",
            "99999999999999999999",
            "9999999999999999",
        ] {
            assert_eq!(time_ms(bad), None, "{bad}");
        }
    }
}
