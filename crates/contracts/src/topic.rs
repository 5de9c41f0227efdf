//! The table of topics, and the names of everything that Millrace creates on a shared cluster.

/// The cleanup policy of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleanup {
    /// Deletes records by age.
    Delete {
        /// Retention in ms.
        retention_ms: u64,
    },
    /// Retains the newest record of each key.
    Compact,
}

/// The number of partitions of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partitions {
    /// The engine's setting `partitions`: every such topic of a log has the same number.
    Configured,
    /// This many, whatever the setting.
    Fixed(u32),
}

impl Partitions {
    /// The number, where the engine's setting is `configured`.
    pub const fn count(self, configured: u32) -> u32 {
        match self {
            Self::Configured => configured,
            Self::Fixed(count) => count,
        }
    }
}

/// One topic of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topic {
    /// The name without the configured prefix.
    pub name: &'static str,
    /// The format of its keys, for documentation.
    pub key: &'static str,
    /// Its number of partitions.
    pub partitions: Partitions,
    /// Its cleanup policy.
    pub cleanup: Cleanup,
    /// Whether the log sets the timestamp of a record at append (`LogAppendTime`); otherwise the producer does.
    pub log_time: bool,
    /// Its content, for documentation.
    pub content: &'static str,
}

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

impl Topic {
    /// Accepted events.
    pub const EVENTS: Self = Self {
        name: "analytics.events",
        key: "user",
        partitions: Partitions::Configured,
        cleanup: Cleanup::Delete { retention_ms: 7 * DAY_MS },
        log_time: true,
        content: "one accepted event",
    };
    /// The processor's state changes.
    pub const STATE: Self = Self {
        name: "analytics.state",
        key: "{hour}/{p}/d/{seq}, {hour}/{p}/s/{snapshot}/{chunk}, {hour}/{p}/c, time/{p}, key/{p}, pos/{p}, marker/{p}",
        partitions: Partitions::Configured,
        cleanup: Cleanup::Compact,
        log_time: false,
        content: "the processor's changes: users first seen and snapshots of them, counters, log time, position",
    };
    /// Hourly counts.
    pub const HOURLY: Self = Self {
        name: "analytics.hourly",
        key: "{hour}/{p}",
        partitions: Partitions::Configured,
        cleanup: Cleanup::Compact,
        log_time: false,
        content: "absolute counts of an hour in a partition",
    };
    /// Records of [`Topic::EVENTS`] that the processor did not count.
    pub const LATE: Self = Self {
        name: "analytics.late",
        key: "{hour}, or - when there is none",
        partitions: Partitions::Configured,
        cleanup: Cleanup::Delete { retention_ms: 30 * DAY_MS },
        log_time: false,
        content: "a record that was not counted: outside the window, or not an event",
    };
    /// Requests to fill Redis with an older hour again.
    pub const REFILL: Self = Self {
        name: "analytics.refill",
        key: "{hour}",
        partitions: Partitions::Configured,
        cleanup: Cleanup::Delete { retention_ms: HOUR_MS },
        log_time: false,
        content: "a request to fill Redis with an older hour",
    };
    /// Messages of TCP intake as connections appended them.
    pub const INTAKE: Self = Self {
        name: "intake",
        key: "client",
        partitions: Partitions::Configured,
        cleanup: Cleanup::Delete { retention_ms: 7 * DAY_MS },
        log_time: true,
        content: "one message of a client; duplicates are possible",
    };
    /// The memory of the intake stage.
    pub const INTAKE_STATE: Self = Self {
        name: "intake.state",
        key: "range/{p}/{principal}/{client}/{epoch}, series/{p}/{nonce}, time/{p}, pos/{p}, marker/{p}",
        partitions: Partitions::Configured,
        cleanup: Cleanup::Compact,
        log_time: false,
        content: "the numbers that clients have used, how far series of frames have come, log time, position",
    };
    /// The journal: each message once. One partition: its order is the file's.
    pub const INTAKE_JOURNAL: Self = Self {
        name: "intake.journal",
        key: "client",
        partitions: Partitions::Fixed(1),
        cleanup: Cleanup::Delete { retention_ms: 7 * DAY_MS },
        log_time: false,
        content: "one message, exactly once, in order for each client",
    };
    /// Commands about topics and subscriptions.
    pub const TOPIC_COMMANDS: Self = Self {
        name: "topics.commands",
        key: "topic",
        partitions: Partitions::Configured,
        cleanup: Cleanup::Delete { retention_ms: 7 * DAY_MS },
        log_time: false,
        content: "changes of topics, subscriptions and cursors, appended by the coordinator of the partition",
    };
    /// The state of topics and subscriptions.
    pub const TOPIC_STATE: Self = Self {
        name: "topics.state",
        key: "open/{p}, topic/{t}, sub/{t}/{s}, cursor/{t}/{s}, retry/{t}/{s}/{offset}, redrive/{t}/{s}/{id}, \
              delay/{t}/{due}/{offset}, event/{offset}, head/{t}, heads/{p}, pos/{p}, marker/{p}",
        partitions: Partitions::Configured,
        cleanup: Cleanup::Compact,
        log_time: false,
        content: "topics, subscriptions, cursors and messages in retry, as the coordinators fold them from the commands",
    };
    /// Coordinators.
    pub const TOPIC_OWNERS: Self = Self {
        name: "topics.owners",
        key: "{p}",
        partitions: Partitions::Configured,
        cleanup: Cleanup::Compact,
        log_time: false,
        content: "the coordinator of each partition, and where front ends reach it",
    };
    /// Messages of all API topics.
    pub const MESSAGES: Self = Self {
        name: "messages",
        key: "topic",
        partitions: Partitions::Configured,
        cleanup: Cleanup::Delete { retention_ms: 7 * DAY_MS },
        log_time: true,
        content: "messages of every topic, each topic in one partition",
    };
    /// Messages that subscriptions gave up.
    pub const DEAD_LETTERS: Self = Self {
        name: "dead-letters",
        key: "topic/subscription",
        partitions: Partitions::Configured,
        cleanup: Cleanup::Delete { retention_ms: 30 * DAY_MS },
        log_time: false,
        content: "messages that a subscription gave up, with the reason",
    };
    /// Who did what. One partition: its order is that of the acts.
    pub const AUDIT: Self = Self {
        name: "audit",
        key: "principal",
        partitions: Partitions::Fixed(1),
        cleanup: Cleanup::Delete { retention_ms: 90 * DAY_MS },
        log_time: true,
        content: "who did what, when, from where, and how it ended",
    };
}

/// Every topic, in the order of the data flow. Partition p of a stage's outputs and changes is made from partition p of its
/// input, so these topics have the same number of partitions.
pub const TOPICS: &[Topic] = &[
    Topic::EVENTS,
    Topic::STATE,
    Topic::HOURLY,
    Topic::LATE,
    Topic::REFILL,
    Topic::TOPIC_COMMANDS,
    Topic::TOPIC_STATE,
    Topic::TOPIC_OWNERS,
    Topic::MESSAGES,
    Topic::DEAD_LETTERS,
    Topic::INTAKE,
    Topic::INTAKE_STATE,
    Topic::INTAKE_JOURNAL,
    Topic::AUDIT,
];

/// The names of topics, consumer groups, transactional ids and Redis keys. All carry one configurable prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    prefix: String,
}

/// A prefix that Kafka does not allow in a topic name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a prefix has 1 to 64 of the characters a-z A-Z 0-9 . _ - and ends in . or -")]
pub struct PrefixError;

impl Default for Names {
    fn default() -> Self {
        Self { prefix: "millrace.".into() }
    }
}

impl Names {
    /// Names with this prefix.
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
    fn all_names_carry_the_prefix() {
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
