//! The one table of topics, and the names everything of ours carries on a shared cluster.

/// What the log drops from a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleanup {
    /// Records older than this many ms.
    Delete {
        /// Retention in ms.
        retention_ms: u64,
    },
    /// Records that a later record of the same key replaces.
    Compact,
}

/// One topic of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topic {
    /// Its name without the configured prefix.
    pub name: &'static str,
    /// What its keys are, for people.
    pub key: &'static str,
    /// What the log drops from it.
    pub cleanup: Cleanup,
    /// Whether the log stamps records as it takes them, whatever a producer's clock says; else the producer does.
    pub log_time: bool,
    /// What it holds, for people.
    pub content: &'static str,
}

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

impl Topic {
    /// Accepted events.
    pub const EVENTS: Self = Self {
        name: "analytics.events",
        key: "user",
        cleanup: Cleanup::Delete { retention_ms: 7 * DAY_MS },
        log_time: true,
        content: "one accepted event",
    };
    /// The processor's state changes.
    pub const STATE: Self = Self {
        name: "analytics.state",
        key: "{hour}/{p}/d/{seq}, {hour}/{p}/s/{snapshot}/{chunk}, {hour}/{p}/c, time/{p}, pos/{p}, marker/{p}",
        cleanup: Cleanup::Compact,
        log_time: false,
        content: "the processor's changes: users first seen and snapshots of them, counters, log time, position",
    };
    /// Hourly counts.
    pub const HOURLY: Self = Self {
        name: "analytics.hourly",
        key: "{hour}/{p}",
        cleanup: Cleanup::Compact,
        log_time: false,
        content: "absolute counts of an hour in a partition",
    };
    /// Records of [`Topic::EVENTS`] that were not counted.
    pub const LATE: Self = Self {
        name: "analytics.late",
        key: "{hour}, or - when there is none",
        cleanup: Cleanup::Delete { retention_ms: 30 * DAY_MS },
        log_time: false,
        content: "a record that was not counted: outside the window, or no event of ours",
    };
    /// Requests to fill Redis with an older hour again.
    pub const REFILL: Self = Self {
        name: "analytics.refill",
        key: "{hour}",
        cleanup: Cleanup::Delete { retention_ms: HOUR_MS },
        log_time: false,
        content: "a request to fill Redis with an older hour",
    };
}

/// Every topic, in the order of the data flow. All have the same number of partitions: partition p of one is made from
/// partition p of another.
pub const TOPICS: [Topic; 5] = [Topic::EVENTS, Topic::STATE, Topic::HOURLY, Topic::LATE, Topic::REFILL];

/// The names of topics, consumer groups, transactional ids and Redis keys: all carry one configurable prefix, so that a
/// shared cluster stays tidy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    prefix: String,
}

/// A prefix that Kafka would not take in a topic name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a prefix has 1 to 64 of the characters a-z A-Z 0-9 . _ - and ends in . or -")]
pub struct PrefixError;

impl Default for Names {
    fn default() -> Self {
        Self { prefix: "millrace.".into() }
    }
}

impl Names {
    /// Names with a prefix of the operator's choice.
    pub fn new(prefix: &str) -> Result<Self, PrefixError> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if prefix.len() > 64 || !prefix.ends_with(['.', '-']) || !prefix.chars().all(legal) {
            return Err(PrefixError);
        }
        Ok(Self { prefix: prefix.into() })
    }

    /// A topic's full name.
    pub fn topic(&self, topic: &Topic) -> String {
        format!("{}{}", self.prefix, topic.name)
    }

    /// The consumer group of a role: `millrace.processor`.
    pub fn group(&self, role: &str) -> String {
        format!("{}{role}", self.prefix)
    }

    /// The transactional id of one worker of a role: `millrace.processor-{instance}-{worker}`.
    pub fn transactional_id(&self, role: &str, instance: &str, worker: usize) -> String {
        format!("{}{role}-{instance}-{worker}", self.prefix)
    }

    /// The stem of Redis keys: the prefix with a colon in place of its last character, `millrace:`.
    pub fn redis_stem(&self) -> String {
        format!("{}:", &self.prefix[..self.prefix.len() - 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_carries_the_prefix() {
        let names = Names::new("team-a.").unwrap();
        assert_eq!(names.topic(&Topic::EVENTS), "team-a.analytics.events");
        assert_eq!(names.group("processor"), "team-a.processor");
        assert_eq!(names.transactional_id("processor", "host-9083", 1), "team-a.processor-host-9083-1");
        assert_eq!(names.redis_stem(), "team-a:");
        for bad in ["", "x", "a b.", "ä.", "x/."] {
            assert_eq!(Names::new(bad), Err(PrefixError), "{bad}");
        }
    }
}
