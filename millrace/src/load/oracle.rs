//! The expected counts, computed the plain way: a map of hours, sets of user numbers. It shares no code with the processor, so
//! that a bug there cannot repeat here.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::generator::Event;

/// The three numbers of an hour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// Different users.
    pub(crate) unique_users: u64,
    /// Clicks.
    pub(crate) clicks: u64,
    /// Impressions.
    pub(crate) impressions: u64,
}

/// The range of an hour's numbers. Both ends are equal when no outcome is unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Without the events of unknown outcome.
    pub(crate) least: Numbers,
    /// With all of them.
    pub(crate) most: Numbers,
}

/// The events by outcome.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    hours: HashMap<u64, HourEvents>,
}

#[derive(Debug, Default)]
struct HourEvents {
    acknowledged: EventSet,
    unknown: EventSet,
}

#[derive(Debug, Default)]
struct EventSet {
    users: HashSet<u32>,
    clicks: u64,
    impressions: u64,
}

impl Oracle {
    /// The event is in the log.
    pub(crate) fn acknowledged(&mut self, event: Event) {
        self.hour(event).acknowledged.add(event);
    }

    /// The event is in the log or not.
    pub(crate) fn unknown(&mut self, event: Event) {
        self.hour(event).unknown.add(event);
    }

    fn hour(&mut self, event: Event) -> &mut HourEvents {
        self.hours.entry(event.timestamp_ms / 3_600_000 * 3_600_000).or_default()
    }

    /// Adds the events of another part of the load.
    pub(crate) fn merge(&mut self, other: Self) {
        for (hour, events) in other.hours {
            let mine = self.hours.entry(hour).or_default();
            mine.acknowledged.merge(events.acknowledged);
            mine.unknown.merge(events.unknown);
        }
    }

    /// The range of every hour, by its first ms: the baseline plus the events.
    pub(crate) fn expected(&self, baseline: &BTreeMap<u64, Numbers>) -> BTreeMap<u64, Expected> {
        let mut expected: BTreeMap<u64, Expected> =
            baseline.iter().map(|(&hour, &before)| (hour, Expected { least: before, most: before })).collect();
        for (&hour, events) in &self.hours {
            let (acknowledged, unknown) = (&events.acknowledged, &events.unknown);
            let either = acknowledged.users.union(&unknown.users).count() as u64;
            let Expected { least, most } = expected.entry(hour).or_default();
            *least = least.plus(acknowledged.users.len() as u64, acknowledged.clicks, acknowledged.impressions);
            *most =
                most.plus(either, acknowledged.clicks + unknown.clicks, acknowledged.impressions + unknown.impressions);
        }
        expected
    }
}

impl EventSet {
    fn add(&mut self, event: Event) {
        self.users.insert(event.user);
        if event.click {
            self.clicks += 1;
        } else {
            self.impressions += 1;
        }
    }

    fn merge(&mut self, other: Self) {
        self.users.extend(other.users);
        self.clicks += other.clicks;
        self.impressions += other.impressions;
    }
}

impl Numbers {
    fn plus(self, unique_users: u64, clicks: u64, impressions: u64) -> Self {
        Self {
            unique_users: self.unique_users + unique_users,
            clicks: self.clicks + clicks,
            impressions: self.impressions + impressions,
        }
    }
}

impl Expected {
    /// Whether these numbers can be right.
    pub(crate) fn allows(&self, got: Numbers) -> bool {
        (self.least.unique_users..=self.most.unique_users).contains(&got.unique_users)
            && (self.least.clicks..=self.most.clicks).contains(&got.clicks)
            && (self.least.impressions..=self.most.impressions).contains(&got.impressions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    fn event(timestamp_ms: u64, user: u32, click: bool) -> Event {
        Event { timestamp_ms, user, click }
    }

    fn numbers(unique_users: u64, clicks: u64, impressions: u64) -> Numbers {
        Numbers { unique_users, clicks, impressions }
    }

    #[test]
    fn hours_are_separate_to_the_millisecond() {
        let mut oracle = Oracle::default();
        oracle.acknowledged(event(HOUR - 1, 1, true));
        oracle.acknowledged(event(HOUR, 1, true));
        oracle.acknowledged(event(HOUR + 5, 1, false));
        let expected = oracle.expected(&BTreeMap::new());
        assert_eq!(expected[&0].least, numbers(1, 1, 0));
        assert_eq!(expected[&HOUR].least, numbers(1, 1, 1));
        assert!(expected.values().all(|hour| hour.least == hour.most));
    }

    #[test]
    fn unknown_outcomes_widen_the_range_only() {
        let mut oracle = Oracle::default();
        oracle.acknowledged(event(0, 1, true));
        oracle.unknown(event(0, 1, true));
        oracle.unknown(event(0, 2, false));
        let hour = oracle.expected(&BTreeMap::new())[&0];
        assert_eq!((hour.least, hour.most), (numbers(1, 1, 0), numbers(2, 2, 1)));
        assert!(hour.allows(numbers(1, 2, 0)) && hour.allows(numbers(2, 1, 1)));
        for wrong in [numbers(0, 1, 0), numbers(3, 1, 0), numbers(1, 0, 0), numbers(1, 3, 0), numbers(1, 1, 2)] {
            assert!(!hour.allows(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn parts_merge_on_top_of_the_baseline() {
        let (mut all, mut a, mut b) = (Oracle::default(), Oracle::default(), Oracle::default());
        for n in 0..100_u32 {
            let event = event(u64::from(n) * HOUR / 10, n % 7, n % 3 == 0);
            all.acknowledged(event);
            if n % 2 == 0 { a.acknowledged(event) } else { b.acknowledged(event) }
        }
        a.merge(b);
        let baseline = BTreeMap::from([(0, numbers(10, 20, 30)), (99 * HOUR, numbers(1, 1, 1))]);
        assert_eq!(a.expected(&baseline), all.expected(&baseline));
        assert_eq!(a.expected(&baseline)[&0].least, numbers(17, 24, 36));
        assert_eq!(a.expected(&baseline)[&(99 * HOUR)].least, numbers(1, 1, 1));
    }
}
