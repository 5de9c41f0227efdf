//! What a store holds of one partition, and where it stands: for those who compare or copy, not for answers.

use millrace_contracts::HourlyCount;

/// A consistent look at one partition of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The partition.
    pub partition: u32,
    /// The position in `analytics.hourly` that its counts reach; `None` when it is to be built from the start.
    pub position: Option<u64>,
    /// Whether it was found to contain everything that the log held, once since it was begun.
    pub complete: bool,
    /// The counts of the hours asked for, by hour; an hour without events has none.
    pub counts: Vec<HourlyCount>,
}
