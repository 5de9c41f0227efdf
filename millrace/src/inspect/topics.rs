//! A topic in the output of `topics`.

use millrace_contracts::{Cleanup, Names, TOPICS, Topic};
use millrace_log::TopicInfo;
use serde::{Deserialize, Serialize};

/// One topic. Travels as JSON from a running process to the tools.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TopicLine {
    /// Name with the prefix.
    pub(crate) name: String,
    /// Cleanup policy and retention.
    pub(crate) cleanup: String,
    /// Meaning of the keys.
    pub(crate) key: String,
    /// Meaning of the values.
    pub(crate) content: String,
    /// Partitions, by number.
    pub(crate) partitions: Vec<PartitionLine>,
}

/// One partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartitionLine {
    /// The oldest offset.
    pub(crate) start: u64,
    /// The offset after the newest record.
    pub(crate) end: u64,
}

impl From<&TopicInfo> for TopicLine {
    fn from(info: &TopicInfo) -> Self {
        Self {
            name: info.full_name.clone(),
            cleanup: cleanup(info.topic.cleanup),
            key: info.topic.key.to_owned(),
            content: info.topic.content.to_owned(),
            partitions: info.partitions.iter().map(|p| PartitionLine { start: p.start, end: p.end }).collect(),
        }
    }
}

fn cleanup(cleanup: Cleanup) -> String {
    const HOUR_MS: u64 = 3_600_000;
    match cleanup {
        Cleanup::Compact => "compact".into(),
        Cleanup::Delete { retention_ms } if retention_ms % (24 * HOUR_MS) == 0 => {
            format!("delete after {} d", retention_ms / (24 * HOUR_MS))
        }
        Cleanup::Delete { retention_ms } => format!("delete after {} h", retention_ms / HOUR_MS),
    }
}

/// The declared topic of this name, with or without the prefix; otherwise a text that lists the declared ones.
pub(crate) fn declared(names: &Names, name: &str) -> Result<Topic, String> {
    let found = TOPICS.iter().copied().find(|topic| topic.name == name || names.topic(topic) == name);
    found.ok_or_else(|| {
        let shown: String = name.chars().take(64).flat_map(char::escape_default).collect();
        let all: Vec<_> = TOPICS.iter().map(|topic| topic.name).collect();
        format!("no topic {shown}; valid are {}", all.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_topics_with_and_without_prefix() {
        let names = Names::new("team-a.").unwrap();
        for name in ["analytics.events", "team-a.analytics.events"] {
            assert_eq!(declared(&names, name), Ok(Topic::EVENTS));
        }
        let unknown = declared(&names, "millrace.analytics.events\n").unwrap_err();
        let allowed = "analytics.events, analytics.state, analytics.hourly, analytics.late, analytics.refill, \
                       topics.commands, topics.state, topics.owners, messages, dead-letters, intake, intake.state, \
                       intake.journal, audit";
        assert_eq!(unknown, format!("no topic millrace.analytics.events\\n; valid are {allowed}"));
    }

    #[test]
    fn shows_retention_in_the_largest_unit() {
        assert_eq!(cleanup(Topic::EVENTS.cleanup), "delete after 7 d");
        assert_eq!(cleanup(Cleanup::Delete { retention_ms: 3_600_000 }), "delete after 1 h");
        assert_eq!(cleanup(Topic::STATE.cleanup), "compact");
    }
}
