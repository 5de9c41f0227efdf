//! The counts of a log, folded independently of the product's code.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

/// One record of `analytics.events`, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// `partition@offset`.
    pub at: String,
    /// ms since the epoch.
    pub timestamp_ms: u64,
    /// The user's id.
    pub user: String,
    /// A click; otherwise an impression.
    pub click: bool,
    /// The event id.
    pub id: Option<String>,
}

/// The counts of an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub struct Counts {
    /// Distinct users.
    pub users: u64,
    /// Clicks.
    pub clicks: u64,
    /// Impressions.
    pub impressions: u64,
}

/// The counts of every hour with events, by hours since the epoch.
pub type Hours = BTreeMap<u64, Counts>;

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} users, {} clicks, {} impressions", self.users, self.clicks, self.impressions)
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.users += other.users;
        self.clicks += other.clicks;
        self.impressions += other.impressions;
    }
}

impl LogRecord {
    /// Whether it has the same content, at any position.
    fn same(&self, other: &Self) -> bool {
        (self.timestamp_ms, self.click) == (other.timestamp_ms, other.click)
    }
}

/// The counts of a log. An event id of a user counts once, by its first record.
pub fn fold(log: &[LogRecord]) -> Hours {
    let mut seen: HashMap<(&str, &str), &LogRecord> = HashMap::new();
    let mut users: BTreeMap<u64, HashSet<&str>> = BTreeMap::new();
    let mut hours = Hours::new();
    for event in log {
        if let Some(id) = &event.id {
            let first = *seen.entry((&event.user, id)).or_insert(event);
            if !std::ptr::eq(first, event) {
                continue;
            }
        }
        let hour = event.timestamp_ms / 3_600_000;
        let counts = hours.entry(hour).or_default();
        *(if event.click { &mut counts.clicks } else { &mut counts.impressions }) += 1;
        counts.users += u64::from(users.entry(hour).or_default().insert(&event.user));
    }
    hours
}

/// The number of records that repeat an event id, and of those with different content.
pub fn repeats(log: &[LogRecord]) -> (u64, u64) {
    let mut seen: HashMap<(&str, &str), &LogRecord> = HashMap::new();
    let (mut repeats, mut conflicts) = (0, 0);
    for event in log {
        let Some(id) = &event.id else { continue };
        match seen.get(&(event.user.as_str(), id.as_str())) {
            None => {
                seen.insert((&event.user, id), event);
            }
            Some(first) => {
                repeats += 1;
                conflicts += u64::from(!first.same(event));
            }
        }
    }
    (repeats, conflicts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(timestamp_ms: u64, user: &str, click: bool, id: Option<&str>) -> LogRecord {
        LogRecord { at: "0@0".into(), timestamp_ms, user: user.into(), click, id: id.map(Into::into) }
    }

    #[test]
    fn counts_an_id_once_by_its_first_record() {
        let log = [
            logged(1, "a", true, Some("x")),
            logged(1, "a", true, Some("x")),
            logged(3_600_000, "a", false, Some("x")),
            logged(2, "b", false, Some("x")),
            logged(2, "b", true, None),
            logged(2, "b", true, None),
        ];
        assert_eq!(fold(&log), Hours::from([(0, Counts { users: 2, clicks: 3, impressions: 1 })]));
        assert_eq!(repeats(&log), (2, 1));
    }
}
