//! What can be asked about topics.

use millrace_contracts::Topic;

/// One topic as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    /// Which one.
    pub topic: Topic,
    /// Its name with the prefix.
    pub full_name: String,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionInfo>,
}

/// One partition as it stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionInfo {
    /// The oldest offset that is still there.
    pub start: u64,
    /// The offset after the newest record. On Kafka control records count, so an idle topic's reader may end short of it.
    pub end: u64,
}
