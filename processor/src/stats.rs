//! The statistics of one step, and their counters.

use millrace_contracts::{QuarantineReason, metric};

/// What one step did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepStats {
    /// Events counted.
    pub counted: u64,
    /// Counted events whose hour was closed.
    pub late: u64,
    /// Events dropped as duplicates.
    pub duplicates: u64,
    /// Duplicates with another content.
    pub conflicts: u64,
    /// Quarantined records, in the order of [`QuarantineReason::ALL`].
    pub quarantined: [u64; QuarantineReason::ALL.len()],
    /// Quarantined events that a command service with the settings of this process would have refused.
    pub contradictions: u64,
    /// Sets that a sketch replaced because they had too many users.
    pub over_bound: u64,
    /// Sets that a sketch replaced because their hour expired.
    pub expired: u64,
    /// Snapshots written.
    pub snapshots: u64,
}

impl StepStats {
    /// Adds the statistics of a committed step to the counters.
    pub(crate) fn record(&self, partition: u32) {
        let counters = [
            (metric::COUNTED, self.counted),
            (metric::LATE, self.late),
            (metric::DUPLICATES, self.duplicates),
            (metric::CONFLICTS, self.conflicts),
            (metric::SNAPSHOTS, self.snapshots),
        ];
        for (counter, number) in counters {
            metrics::counter!(counter.name).increment(number);
        }
        for (cause, number) in [("bound", self.over_bound), ("age", self.expired)] {
            metrics::counter!(metric::SKETCH_SWITCHES.name, "cause" => cause).increment(number);
        }
        for (reason, records) in QuarantineReason::ALL.into_iter().zip(self.quarantined) {
            metrics::counter!(metric::QUARANTINED.name, "reason" => reason.as_str()).increment(records);
            if records > 0 {
                tracing::warn!(partition, reason = reason.as_str(), records, "records quarantined in analytics.late");
            }
        }
    }
}
