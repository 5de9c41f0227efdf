//! The port: writes of hourly counts, and the result of a read.

use millrace_contracts::{Exactness, HourlyCount, ProjectionPosition, ProjectionWrite, StoreError, WriteOutcome};

/// The counts of an hour over all partitions. Users are disjoint between partitions, so they add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Number of clicks.
    pub clicks: u64,
    /// Number of impressions.
    pub impressions: u64,
    /// Number of distinct users.
    pub unique_users: u64,
    /// Whether `unique_users` is exact, which requires that it is exact in every partition.
    pub exactness: Exactness,
}

impl Default for Totals {
    /// An hour without events: exact zeros.
    fn default() -> Self {
        Self { clicks: 0, impressions: 0, unique_users: 0, exactness: Exactness::Exact }
    }
}

impl Totals {
    /// Adds the counts of one partition. Saturates: counts stay far below 2^64.
    pub(crate) fn add(&mut self, clicks: u64, impressions: u64, unique_users: u64, exactness: Exactness) {
        self.clicks = self.clicks.saturating_add(clicks);
        self.impressions = self.impressions.saturating_add(impressions);
        self.unique_users = self.unique_users.saturating_add(unique_users);
        self.exactness = self.exactness.max(exactness);
    }
}

/// The result of reading an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HourRead {
    /// The hour's counts; zeros if it has no events.
    Complete(Totals),
    /// The store does not yet contain everything in the log, so counts and zeros would be wrong.
    Rebuilding,
}

/// Stores hourly counts and, in the same atomic unit, their position in the log.
///
/// A caller repeats a write whose outcome is unknown: the stored position decides, and the second write returns
/// [`WriteOutcome::PositionMismatch`] with the position that the first one wrote.
pub trait HourlyStore: Send + 'static {
    /// The stored position of a partition; `None` if it must be rebuilt from the start.
    fn position(
        &mut self,
        partition: u32,
    ) -> impl Future<Output = Result<Option<ProjectionPosition>, StoreError>> + Send;

    /// Writes absolute counts, at most one per hour. Each partition is atomic by itself and occurs at most once. Returns one
    /// outcome per write, in order.
    fn write(
        &mut self,
        writes: &[ProjectionWrite<'_, [HourlyCount]>],
    ) -> impl Future<Output = Result<Vec<WriteOutcome>, StoreError>> + Send;
}
