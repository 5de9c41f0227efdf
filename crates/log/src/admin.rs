//! The description of topics.

use millrace_contracts::Topic;

/// One topic of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its declaration.
    pub topic: Topic,
    /// Its name with the prefix.
    pub full_name: String,
    /// Its partitions, by number; empty if the topic does not exist.
    pub partitions: Vec<PartitionInfo>,
}

/// One partition of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionInfo {
    /// The oldest retained offset.
    pub start: u64,
    /// The offset after the newest record. On Kafka control records count, so a reader of an idle topic may end below
    /// it.
    pub end: u64,
}
