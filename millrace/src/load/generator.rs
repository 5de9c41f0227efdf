//! The events of a load: a pure function of the seed and the event's number, so that connections can send disjoint parts of the
//! sequence without coordination.

use std::time::Duration;

const HOUR_MS: u64 = 60 * 60 * 1000;
/// How many of a day's events fall into each of its hours, in UTC, relative to each other: few at night, most in the evening.
const DAY: [u64; 24] = [12, 9, 6, 4, 3, 3, 5, 12, 22, 30, 34, 38, 44, 42, 40, 41, 45, 52, 60, 66, 64, 52, 36, 22];

/// The parameters of the events.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    /// Seed of all random choices; the same seed generates the same events.
    pub(crate) seed: u64,
    /// Number of events.
    pub(crate) events: u64,
    /// Number of different users to draw from.
    pub(crate) users: u32,
    /// Share of clicks, in hundredths of a percent; all others are impressions.
    pub(crate) clicks: u32,
    /// When the events happen.
    pub(crate) times: Times,
    /// Events per second; `None`: as fast as responses arrive.
    pub(crate) rate: Option<f64>,
    /// Start of the load, ms since the epoch.
    pub(crate) now_ms: u64,
}

/// When events happen.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Times {
    /// None is later than the start of the load, even if the hour changes during it.
    Even {
        /// Number of hours, the current one included.
        hours: u32,
        /// Share of events in past hours, in hundredths of a percent.
        late: u32,
    },
    /// The first `filled` within the last 24 hours, as [`DAY`] distributes them, and without a rate; all others when they are due.
    Day {
        /// How many events fill the day.
        filled: u64,
    },
}

/// One event to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    /// When it happened, ms since the epoch.
    pub(crate) timestamp_ms: u64,
    /// The user's number.
    pub(crate) user: u32,
    /// A click, or else an impression.
    pub(crate) click: bool,
}

impl Shape {
    /// The event with this number, below [`Shape::events`].
    pub(crate) fn event(&self, number: u64) -> Event {
        let mut random = SplitMix(self.seed ^ number.wrapping_mul(0xd134_2543_de82_ef95));
        let this_hour = self.now_ms - self.now_ms % HOUR_MS;
        let timestamp_ms = match self.times {
            Times::Even { hours, late } => {
                let past = u64::from(hours - 1);
                if past > 0 && random.below(10_000) < u64::from(late) {
                    // Early in 1970 there are no hours before; saturating keeps the arithmetic total.
                    this_hour.saturating_sub((1 + random.below(past)) * HOUR_MS) + random.below(HOUR_MS)
                } else {
                    this_hour + random.below(self.now_ms % HOUR_MS + 1)
                }
            }
            Times::Day { filled } if number < filled => self.of_day(&mut random),
            Times::Day { .. } => {
                let after = self.due(number).unwrap_or_default();
                self.now_ms.saturating_add(u64::try_from(after.as_millis()).unwrap_or(u64::MAX))
            }
        };
        let user = u32::try_from(random.below(u64::from(self.users))).expect("below a u32");
        Event { timestamp_ms, user, click: random.below(10_000) < u64::from(self.clicks) }
    }

    /// When the event with this number is due, from the start of the load on; `None`: at once.
    pub(crate) fn due(&self, number: u64) -> Option<Duration> {
        let filled = match self.times {
            Times::Even { .. } => 0,
            Times::Day { filled } => filled,
        };
        let number = number.checked_sub(filled)?;
        self.rate.map(|rate| Duration::from_secs_f64(number as f64 / rate))
    }

    /// A time of the last 24 hours: each ms has the weight of its hour.
    fn of_day(&self, random: &mut SplitMix) -> u64 {
        let hours = self.hour_starts().map(|start| {
            let weight = usize::try_from(start / HOUR_MS % 24).map_or(1, |hour| DAY[hour]);
            (start, weight, weight * (self.now_ms + 1 - start).min(HOUR_MS))
        });
        let mut point = random.below(hours.clone().map(|(.., share)| share).sum());
        for (start, weight, share) in hours {
            if point < share {
                return start + point / weight;
            }
            point -= share;
        }
        self.now_ms
    }

    /// Whether the event belongs to a share, in hundredths of a percent, that is independent of its content.
    pub(crate) fn is_of(&self, number: u64, share: u32) -> bool {
        share > 0 && SplitMix(!self.seed ^ number.wrapping_mul(0xd134_2543_de82_ef95)).below(10_000) < u64::from(share)
    }

    /// First ms of every hour until now that the events may fall into, the current one first.
    pub(crate) fn hour_starts(&self) -> impl Iterator<Item = u64> + Clone + use<> {
        let this_hour = self.now_ms - self.now_ms % HOUR_MS;
        let hours = match self.times {
            Times::Even { hours, .. } => u64::from(hours),
            Times::Day { .. } => 24,
        };
        (0..hours).map(move |back| this_hour.saturating_sub(back * HOUR_MS))
    }
}

/// Steele, Lea and Flood's `SplitMix64`: good enough to spread events, and a few instructions.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, by multiplication: the bias is below 2⁻³⁰ for every bound used here.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn shape(seed: u64) -> Shape {
        let times = Times::Even { hours: 24, late: 500 };
        Shape { seed, events: 100_000, users: 1_000, clicks: 5_000, times, rate: None, now_ms: 1_763_712_345_678 }
    }

    #[test]
    fn the_same_seed_generates_the_same_events_in_any_order() {
        let (a, b) = (shape(7), shape(7));
        let forwards: Vec<_> = (0..500).map(|n| a.event(n)).collect();
        let backwards: Vec<_> = (0..500).rev().map(|n| b.event(n)).collect();
        assert!(forwards.iter().eq(backwards.iter().rev()));
        assert_ne!(forwards, (0..500).map(|n| shape(8).event(n)).collect::<Vec<_>>());
    }

    #[test]
    fn events_are_pinned() {
        // A seed repeats a failed run, across versions, too.
        let event = shape(1).event(0);
        assert_eq!(event, PINNED);
    }

    const PINNED: Event = Event { timestamp_ms: 1_763_712_257_801, user: 971, click: true };

    #[test]
    fn shares_are_as_configured() {
        let shape = shape(42);
        let events: Vec<_> = (0..shape.events).map(|n| shape.event(n)).collect();
        let this_hour = shape.now_ms - shape.now_ms % HOUR_MS;
        let late = events.iter().filter(|event| event.timestamp_ms < this_hour).count();
        assert!((4_700..5_300).contains(&late), "{late}");
        let twice = (0..shape.events).filter(|&n| shape.is_of(n, 500)).count();
        assert!((4_700..5_300).contains(&twice), "{twice}");
        assert!((0..1_000).all(|n| !shape.is_of(n, 0) && shape.is_of(n, 10_000)));
        let clicks = events.iter().filter(|event| event.click).count();
        assert!((49_000..51_000).contains(&clicks), "{clicks}");
        assert!(events.iter().all(|event| event.timestamp_ms <= shape.now_ms && event.user < 1_000));
        assert_eq!(events.iter().map(|event| event.user).collect::<HashSet<_>>().len(), 1_000);
        let hours: HashSet<_> = events.iter().map(|event| event.timestamp_ms - event.timestamp_ms % HOUR_MS).collect();
        assert_eq!(hours, shape.hour_starts().collect());
    }

    #[test]
    fn one_hour_has_no_past() {
        let shape = Shape { times: Times::Even { hours: 1, late: 10_000 }, now_ms: 7_200_000, ..shape(3) };
        assert!(
            (0..1_000).all(|n| shape.event(n).timestamp_ms == 7_200_000),
            "the first ms of an hour is all there is"
        );
    }

    #[test]
    fn a_day_has_its_curve_and_goes_on_at_its_rate() {
        let times = Times::Day { filled: 99_900 };
        let shape = Shape { clicks: 500, times, rate: Some(4.0), ..shape(9) };
        let events: Vec<_> = (0..99_900).map(|n| shape.event(n)).collect();
        let this_hour = shape.now_ms - shape.now_ms % HOUR_MS;
        let of_hour = |start: u64| events.iter().filter(|one| one.timestamp_ms / HOUR_MS == start / HOUR_MS).count();
        let total: u64 = DAY.iter().sum();
        for start in shape.hour_starts().filter(|&start| start < this_hour) {
            let weight = DAY[usize::try_from(start / HOUR_MS % 24).unwrap()];
            let (expected, found) = (weight as f64 / total as f64 * 99_900.0, of_hour(start) as f64);
            assert!((found - expected).abs() < expected.mul_add(0.1, 60.0), "{start}: {found}, expected {expected}");
        }
        let oldest = this_hour - 23 * HOUR_MS;
        assert!(events.iter().all(|event| (oldest..=shape.now_ms).contains(&event.timestamp_ms)));
        let clicks = events.iter().filter(|event| event.click).count();
        assert!((4_600..5_400).contains(&clicks), "{clicks}");
        assert_eq!((shape.due(99_899), shape.due(99_900)), (None, Some(Duration::ZERO)));
        assert_eq!(shape.due(99_906), Some(Duration::from_millis(1_500)));
        assert_eq!(shape.event(99_906).timestamp_ms, shape.now_ms + 1_500);
    }
}
