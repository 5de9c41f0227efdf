//! The events of a run. Seed and number alone determine an event, so that nothing has to be stored to compare it.

/// Hours that late events are spread over.
pub const LATE_HOURS: u64 = 168;
/// A current event is in the first minutes of its hour, never further ahead of the clock than the service accepts.
const CURRENT_MS: u64 = 300_000;
const HOUR_MS: u64 = 3_600_000;

/// The parameters of a run's events.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Determines every event.
    pub seed: u64,
    /// The hour of the start of the run, in hours since the epoch; no event is later.
    pub base_hour: u64,
    /// Whether events carry ids: without one, an event of unknown outcome cannot be sent again.
    pub ids: bool,
    /// The number of distinct users.
    pub users: u64,
    /// The share of one user's events, in percent.
    pub hot: u64,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its number in the run.
    pub number: u64,
    /// ms since the epoch.
    pub timestamp_ms: u64,
    /// The user's id.
    pub user: String,
    /// A click; otherwise an impression.
    pub click: bool,
    /// The event id.
    pub id: Option<String>,
    /// Whether it is also sent to another instance, as a duplicate.
    pub twice: bool,
}

impl Shape {
    /// The event of this number. 5 % are late, over 168 hours. With ids, four of five carry one, and one of thirty of these
    /// is sent twice.
    pub fn event(&self, number: u64) -> Event {
        let random = mix(self.seed ^ mix(number));
        let late = random.is_multiple_of(20);
        let (hour, within) = if late {
            (self.base_hour - 1 - (random >> 8) % (LATE_HOURS - 1), mix(random) % HOUR_MS)
        } else {
            (self.base_hour, mix(random) % CURRENT_MS)
        };
        let hot = (random >> 12) % 100 < self.hot;
        let user = if hot { self.users } else { (random >> 24) % self.users };
        let with_id = self.ids && !(random >> 16).is_multiple_of(5);
        Event {
            number,
            timestamp_ms: hour * HOUR_MS + within,
            user: format!("u{:x}-{user}", self.seed),
            click: (random >> 5).is_multiple_of(2),
            id: with_id.then(|| format!("e{:x}-{number}", self.seed)),
            twice: with_id && (random >> 40).is_multiple_of(30),
        }
    }

    /// Every hour that may hold an event, the oldest first.
    pub fn hours(&self) -> std::ops::RangeInclusive<u64> {
        self.base_hour + 1 - LATE_HOURS..=self.base_hour
    }
}

impl Event {
    /// The request target that posts it.
    pub fn target(&self) -> String {
        let Self { timestamp_ms, user, .. } = self;
        let kind = if self.click { "click" } else { "impression" };
        let id = self.id.as_ref().map(|id| format!("&event_id={id}")).unwrap_or_default();
        format!("/analytics?timestamp={timestamp_ms}&user={user}&{kind}{id}")
    }

    /// Its hour, in hours since the epoch.
    pub fn hour(&self) -> u64 {
        self.timestamp_ms / HOUR_MS
    }
}

/// A well-mixed 64-bit number (the finalizer of splitmix64): the same on every machine.
pub fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_determines_the_events_and_their_shares() {
        let shape = Shape { seed: 7, base_hour: 500_000, ids: true, users: 3_000, hot: 0 };
        let events: Vec<Event> = (0..100_000).map(|number| shape.event(number)).collect();
        assert_eq!(events[77], shape.event(77));
        let percent = |of: fn(&Event) -> bool| events.iter().filter(|event| of(event)).count() / 1_000;
        assert_eq!(percent(|event| event.hour() != 500_000), 4, "5 % are late");
        assert!((79..=80).contains(&percent(|event| event.id.is_some())));
        assert!((2..=3).contains(&percent(|event| event.twice)));
        assert!(events.iter().all(|event| shape.hours().contains(&event.hour())));
    }
}
