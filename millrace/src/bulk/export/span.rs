//! The time range of an export: its notation, and its split into requests.

use std::fmt;

use clap::ValueEnum;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use millrace_contracts::Hour;

const HOUR_MS: i64 = 3_600_000;
const DAY_HOURS: i64 = 24;

/// The unit of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Step {
    /// One UTC hour
    Hour,
    /// One UTC day
    Day,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hour => "hour",
            Self::Day => "day",
        })
    }
}

/// A time in ms since the epoch, from ISO 8601 (UTC by default) or that number.
pub(crate) fn time(text: &str) -> Result<i64, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse::<i64>().ok()).flatten();
    let hour = || text.parse::<Hour>().ok().map(Hour::start_ms);
    let stamp = || text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond);
    let civil = || {
        let civil: DateTime = text.parse().ok()?;
        Some(TimeZone::UTC.to_timestamp(civil).ok()?.as_millisecond())
    };
    let read = if digits { number } else { hour().or_else(stamp).or_else(civil) };
    read.filter(|ms| (0..=Hour::MAX.end_ms()).contains(ms))
        .ok_or_else(|| "must be ms since the epoch, or ISO 8601 from 1970 on, such as 2026-11-21T08:00Z".into())
}

/// Splits a range into pieces of at most `max_hours`. A piece ends within an hour or a day only at the end of the range.
pub(super) fn pieces(from: i64, to: i64, step: Step, max_hours: u32) -> impl Iterator<Item = (i64, i64)> {
    let most = i64::from(max_hours);
    let (unit, length) = match step {
        Step::Day => (DAY_HOURS, (most / DAY_HOURS).max(1) * DAY_HOURS),
        Step::Hour => (1, most),
    };
    let (unit_ms, length_ms) = (unit * HOUR_MS, length * HOUR_MS);
    let mut start = from;
    std::iter::from_fn(move || {
        let piece = (start, to.min(start - start.rem_euclid(unit_ms) + length_ms));
        start = piece.1;
        (piece.0 < piece.1).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_numbers_or_iso_8601() {
        for (text, ms) in [
            ("0", 0),
            ("3600001", 3_600_001),
            ("1970-01-02", 86_400_000),
            ("1970-01-01T01Z", HOUR_MS),
            ("1970-01-01T01:00", HOUR_MS),
            ("1970-01-01T01:00:00.5Z", HOUR_MS + 500),
            ("1970-01-01T02:00:00+01:00", HOUR_MS),
        ] {
            assert_eq!(time(text), Ok(ms), "{text}");
        }
        for bad in ["", "-1", "now", "1969-12-31", "1970-13-01", "99999999999999999999", "9999999999999999"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn pieces_cover_the_range_without_gaps(from in 0..10_000_000_000_i64, length in 0..10_000_000_000_i64,
                                            most in 1..2_000_u32, day: bool) {
            let (to, step) = (from + length, if day { Step::Day } else { Step::Hour });
            let unit = if day { DAY_HOURS * HOUR_MS } else { HOUR_MS };
            let most = if day { most.max(24) } else { most };
            let mut at = from;
            for (start, end) in pieces(from, to, step, most) {
                prop_assert_eq!(start, at);
                prop_assert!(start < end && end - (start - start % HOUR_MS) <= i64::from(most) * HOUR_MS);
                prop_assert!(end == to || end % unit == 0);
                at = end;
            }
            prop_assert_eq!(at, to);
        }
    }
}
