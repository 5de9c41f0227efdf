//! The port: how hourly counts are written, and what a read answers.

use millrace_contracts::{Exactness, HourlyCount, ProjectionWrite, StoreError, WriteOutcome};

/// The counts of an hour over all partitions. Users are disjoint between partitions, so they add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Number of clicks.
    pub clicks: u64,
    /// Number of impressions.
    pub impressions: u64,
    /// Number of different users.
    pub unique_users: u64,
    /// Whether `unique_users` is exact: it is when it is in every partition.
    pub exactness: Exactness,
}

impl Default for Totals {
    /// An hour without events: exact zeros.
    fn default() -> Self {
        Self { clicks: 0, impressions: 0, unique_users: 0, exactness: Exactness::Exact }
    }
}

impl Totals {
    /// Adds one partition's part. Saturates: counts stay far below 2^64.
    pub(crate) fn add(&mut self, clicks: u64, impressions: u64, unique_users: u64, exactness: Exactness) {
        self.clicks = self.clicks.saturating_add(clicks);
        self.impressions = self.impressions.saturating_add(impressions);
        self.unique_users = self.unique_users.saturating_add(unique_users);
        self.exactness = self.exactness.max(exactness);
    }
}

/// What a store says about an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The hour's counts; zeros when it had no events.
    Known(Totals),
    /// The store does not yet contain everything the log holds: nothing can be said, zeros least of all.
    Rebuilding,
}

/// Keeps hourly counts and, in the same atomic unit, the position they reach.
///
/// A write whose outcome stayed unknown is simply written again: the stored position decides, and the second one returns
/// [`WriteOutcome::PositionMismatch`] with the position that the first one wrote.
pub trait HourlyStore: Send + 'static {
    /// Where a partition stands; `None` when it is to be built from the start.
    fn position(&mut self, partition: u32) -> impl Future<Output = Result<Option<u64>, StoreError>> + Send;

    /// Writes absolute counts, at most one for an hour, each partition atomically by itself; one result for each, in order.
    /// A partition occurs at most once.
    fn write(
        &mut self,
        writes: &[ProjectionWrite<'_, [HourlyCount]>],
    ) -> impl Future<Output = Result<Vec<WriteOutcome>, StoreError>> + Send;
}
