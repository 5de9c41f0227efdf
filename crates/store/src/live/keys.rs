//! The keys, and the format of an hour's value.

use millrace_contracts::{Exactness, Hour, HourlyCount, Names};

/// The keys of all partitions, with one prefix. The keys of a partition share a hash tag, so they are on one node of a
/// Redis Cluster and one script may access them: `millrace:a:{3}:hour:2026-11-21T08Z`, `millrace:a:{3}:older:…`,
/// `millrace:a:{3}:pos`.
#[derive(Debug, Clone)]
pub(super) struct Keys(String);

impl Keys {
    pub(super) fn new(names: &Names) -> Self {
        Self(names.redis_stem())
    }

    pub(super) fn hour(&self, partition: u32, hour: Hour) -> String {
        format!("{}a:{{{partition}}}:hour:{hour}", self.0)
    }

    /// An hour outside the window, filled on request.
    pub(super) fn older(&self, partition: u32, hour: Hour) -> String {
        format!("{}a:{{{partition}}}:older:{hour}", self.0)
    }

    pub(super) fn position(&self, partition: u32) -> String {
        format!("{}a:{{{partition}}}:pos", self.0)
    }
}

/// The value of an hour without its build, which the script appends:
/// `generation:next_offset:clicks:impressions:unique:e|a`.
pub(super) fn value(count: &HourlyCount) -> String {
    let exactness = match count.exactness {
        Exactness::Exact => 'e',
        Exactness::Approximate => 'a',
    };
    let HourlyCount { generation, next_offset, clicks, impressions, unique_users, .. } = count;
    format!("{generation}:{next_offset}:{clicks}:{impressions}:{unique_users}:{exactness}")
}

/// A parsed value of an hour.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HourValue<'a> {
    pub(super) generation: u32,
    pub(super) next_offset: u64,
    pub(super) clicks: u64,
    pub(super) impressions: u64,
    pub(super) unique_users: u64,
    pub(super) exactness: Exactness,
    pub(super) build: &'a str,
}

impl HourValue<'_> {
    pub(super) fn count(&self, hour: Hour, partition: u32) -> HourlyCount {
        let Self { generation, next_offset, clicks, impressions, unique_users, exactness, .. } = *self;
        HourlyCount { hour, partition, generation, next_offset, clicks, impressions, unique_users, exactness }
    }
}

/// Whether a value is a reservation: a refill of the hour has started, and it has no counts yet.
pub(super) fn is_reservation(text: &str) -> bool {
    text.starts_with("p:")
}

/// Parses a value; `None` if it is malformed.
pub(super) fn parse(text: &str) -> Option<HourValue<'_>> {
    let parts: Vec<&str> = text.split(':').collect();
    let [generation, next_offset, clicks, impressions, unique_users, exactness, build] = parts[..] else { return None };
    Some(HourValue {
        generation: generation.parse().ok()?,
        next_offset: next_offset.parse().ok()?,
        clicks: clicks.parse().ok()?,
        impressions: impressions.parse().ok()?,
        unique_users: unique_users.parse().ok()?,
        exactness: match exactness {
            "e" => Exactness::Exact,
            "a" => Exactness::Approximate,
            _ => return None,
        },
        build: (!build.is_empty()).then_some(build)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_have_the_documented_format() {
        let hour: Hour = "2026-11-21T08Z".parse().unwrap();
        let keys = Keys::new(&Names::default());
        assert_eq!(keys.hour(3, hour), "millrace:a:{3}:hour:2026-11-21T08Z");
        assert_eq!(keys.older(3, hour), "millrace:a:{3}:older:2026-11-21T08Z");
        assert_eq!(keys.position(3), "millrace:a:{3}:pos");
        let count = HourlyCount {
            hour,
            partition: 3,
            generation: 1,
            next_offset: 70,
            clicks: 5,
            impressions: 6,
            unique_users: 7,
            exactness: Exactness::Approximate,
        };
        assert_eq!(value(&count), "1:70:5:6:7:a");
        let stored = HourValue {
            generation: 1,
            next_offset: 70,
            clicks: 5,
            impressions: 6,
            unique_users: 7,
            exactness: Exactness::Approximate,
            build: "b1",
        };
        assert_eq!(parse("1:70:5:6:7:a:b1"), Some(stored));
        for bad in ["", "1:70:5:6:7:a", "1:70:5:6:7:a:", "1:70:5:6:7:x:b", "1:70:5:-6:7:a:b", "1:70:5:6:7:a:b:c"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
