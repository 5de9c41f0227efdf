//! Snapshots of a partition, for comparison and refill; reads of an hour do not use them.

use millrace_contracts::HourlyCount;

/// A consistent snapshot of one partition of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionSnapshot {
    /// The partition.
    pub partition: u32,
    /// The position of its counts in `analytics.hourly`; `None` if it must be rebuilt from the start.
    pub position: Option<u64>,
    /// Whether the partition has caught up with the log since its rebuild began.
    pub complete: bool,
    /// The counts of the requested hours, by hour; an hour without events has none.
    pub counts: Vec<HourlyCount>,
}
