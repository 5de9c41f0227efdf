//! The UTC hour, the unit of every count.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use millrace_base::Clock;

const MS_PER_HOUR: i64 = 3_600_000;

/// A UTC hour since the Unix epoch. Its text form in keys and logs is `2026-11-21T08Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hour(i64);

/// The text is not an hour in the form of [`Hour`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an hour of the form 2026-11-21T08Z")]
pub struct HourError;

impl Hour {
    /// The last hour that the calendar library can format, `9999-12-30T22Z`.
    pub const MAX: Self = Self(253_402_207_200_000 / MS_PER_HOUR);

    /// The hour of a timestamp in ms since the epoch.
    pub const fn of_ms(timestamp_ms: i64) -> Self {
        Self(timestamp_ms.div_euclid(MS_PER_HOUR))
    }

    /// The current hour.
    pub fn current(clock: &Clock) -> Self {
        Self::of_ms(clock.now_ms())
    }

    /// The hour with an index, counted from the epoch.
    pub const fn from_index(index: i64) -> Self {
        Self(index)
    }

    /// The index of the hour, counted from the epoch.
    pub const fn index(self) -> i64 {
        self.0
    }

    /// First ms of the hour.
    pub const fn start_ms(self) -> i64 {
        self.0 * MS_PER_HOUR
    }

    /// First ms after the hour.
    pub const fn end_ms(self) -> i64 {
        (self.0 + 1) * MS_PER_HOUR
    }

    /// The hour `hours` later; earlier if negative.
    #[must_use]
    pub const fn plus(self, hours: i64) -> Self {
        Self(self.0 + hours)
    }
}

impl fmt::Display for Hour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = Timestamp::from_millisecond(self.start_ms()).map_err(|_| fmt::Error)?.to_zoned(TimeZone::UTC);
        write!(f, "{:04}-{:02}-{:02}T{:02}Z", time.year(), time.month(), time.day(), time.hour())
    }
}

impl FromStr for Hour {
    type Err = HourError;

    fn from_str(text: &str) -> Result<Self, HourError> {
        let bytes = text.as_bytes();
        if bytes.len() != 14 || bytes[10] != b'T' || bytes[13] != b'Z' || !text.is_ascii() || bytes[11] == b'+' {
            return Err(HourError);
        }
        let date: jiff::civil::Date = text[..10].parse().map_err(|_| HourError)?;
        let hour: i8 = text[11..13].parse().map_err(|_| HourError)?;
        let time = jiff::civil::Time::new(hour, 0, 0, 0).map_err(|_| HourError)?;
        let stamp = TimeZone::UTC.to_timestamp(date.to_datetime(time)).map_err(|_| HourError)?;
        Ok(Self::of_ms(stamp.as_millisecond()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn edges_of_an_hour() {
        assert_eq!(Hour::of_ms(3_599_999), Hour(0));
        assert_eq!(Hour::of_ms(3_600_000), Hour(1));
        assert_eq!(Hour(0).to_string(), "1970-01-01T00Z");
        assert_eq!("2026-11-21T08Z".parse::<Hour>().unwrap().to_string(), "2026-11-21T08Z");
        assert_eq!(Hour::MAX.to_string(), "9999-12-30T22Z");
        for bad in ["", "2026-11-21T24Z", "2026-11-21 08Z", "2026-11-21T+8Z", "2026-13-21T08Z", "2026-11-21T08Z/1"] {
            assert!(bad.parse::<Hour>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips_and_sorts_like_time(a in 0..Hour::MAX.0, b in 0..Hour::MAX.0) {
            let (x, y) = (Hour(a), Hour(b));
            prop_assert_eq!(x.to_string().parse::<Hour>(), Ok(x));
            prop_assert_eq!(x.cmp(&y), x.to_string().cmp(&y.to_string()));
        }
    }
}
