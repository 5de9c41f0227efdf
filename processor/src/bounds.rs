//! The bounds of counting. All but the internal ones come from the settings.

/// The bounds of counting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountingBounds {
    /// Maximum number of exact users of an hour in a partition.
    pub max_exact_users: usize,
    /// Log time after the last event of an hour, in ms, at which a sketch replaces its exact users.
    pub evict_after_ms: i64,
    /// Maximum number of records in the deduplication window.
    pub max_dedup_records: u64,
    /// Maximum age of the deduplication window, in ms of log time.
    pub dedup_window_ms: i64,
    /// Maximum memory for the users of all hours of the process, in bytes.
    pub max_memory: u64,
    /// Minimum number of users of a closed hour to spill to disk.
    pub min_spill_users: usize,
    /// Number of deltas from which a snapshot may replace them, if they contain enough users.
    pub merge_deltas: usize,
    /// Number of deltas from which a snapshot replaces them in any case.
    pub max_deltas: usize,
    /// Bytes of snapshots at which a step starts no further snapshot.
    pub snapshot_bytes: usize,
}

impl Default for CountingBounds {
    fn default() -> Self {
        Self {
            max_exact_users: 2_000_000,
            evict_after_ms: 7 * 24 * 3_600_000,
            max_dedup_records: 500_000,
            dedup_window_ms: 3_600_000,
            max_memory: 512 << 20,
            min_spill_users: 4_096,
            merge_deltas: 256,
            max_deltas: 2_048,
            snapshot_bytes: 8 << 20,
        }
    }
}
