//! The time range of an export: its split into requests.

use std::fmt;

use clap::ValueEnum;

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
