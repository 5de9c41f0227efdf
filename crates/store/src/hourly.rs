//! The port: how hourly counts are written, and what a read answers.

use millrace_contracts::{Exactness, HourlyCount};

use crate::StoreError;

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

/// One partition's part of a write.
#[derive(Debug, Clone, Copy)]
pub struct HourlyWrite<'a> {
    /// The partition; all counts are of it.
    pub partition: u32,
    /// The position the store is believed to stand at; `None` begins a rebuild.
    pub expected: Option<u64>,
    /// The position in `analytics.hourly` once this is written.
    pub next: u64,
    /// Whether everything that was in the log is contained then.
    pub caught_up: bool,
    /// Absolute counts, at most one for an hour.
    pub counts: &'a [HourlyCount],
}

/// What became of one [`HourlyWrite`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// Counts and position moved, together.
    Moved,
    /// Nothing was written: the store stands elsewhere (`None`: nowhere, it was emptied).
    Elsewhere(Option<u64>),
}

/// Keeps hourly counts and, in the same atomic unit, the position they reach.
///
/// A write whose outcome stayed unknown is simply written again: the stored position decides, and the second one is
/// answered [`Written::Elsewhere`] with the position it had asked for.
pub trait HourlyStore: Send + 'static {
    /// Where a partition stands; `None` when it is to be built from the start.
    fn position(&mut self, partition: u32) -> impl Future<Output = Result<Option<u64>, StoreError>> + Send;

    /// Writes each part atomically by itself; one result for each, in order. A partition occurs at most once.
    fn write(&mut self, writes: &[HourlyWrite<'_>]) -> impl Future<Output = Result<Vec<Written>, StoreError>> + Send;
}
