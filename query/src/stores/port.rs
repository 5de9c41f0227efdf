//! The port to the read models: how handlers read hourly counts, and how a read fails.

use std::time::Duration;

use futures::future::BoxFuture;
use millrace_contracts::{Code, Hour};
use millrace_store::Totals;

use super::position::{Coverage, MinPositions};

/// The read model that served an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// This process: the snapshot of the current hour, or counts served earlier.
    Memory,
    /// Redis.
    Redis,
    /// The archive.
    Archive,
}

impl Tier {
    /// The value of the `Millrace-Tier` header and of metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Redis => "redis",
            Self::Archive => "archive",
        }
    }
}

/// The counts of an hour, and how fresh they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HourCounts {
    /// The counts.
    pub totals: Totals,
    /// The tier that served them.
    pub tier: Tier,
    /// When the read of the store began, in ms since the epoch. The counts include every write before that.
    pub as_of_ms: i64,
    /// Whether the counts may lag: the read model of this hour did not answer, or lacks events that the log had
    /// `query.stale_after` ago.
    pub stale: bool,
    /// Up to where the counts hold.
    pub coverage: Coverage,
}

/// Why a read returns no counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadError {
    /// No available read model is complete.
    Rebuilding,
    /// No read model is available.
    Unavailable,
    /// Too many reads of the archive are in flight.
    Overloaded,
    /// No read model has counted the required events yet.
    NotYetVisible,
    /// Too many reads wait for events.
    TooManyWaiters,
}

impl ReadError {
    /// The outcome code, and a detail for people.
    pub(crate) const fn code(self) -> (Code, &'static str) {
        match self {
            Self::Rebuilding => (Code::Rebuilding, "the hour's counts are being rebuilt; try again soon"),
            Self::Unavailable => (Code::Unavailable, "no read model is available; try again soon"),
            Self::Overloaded => (Code::Overloaded, "too many reads of the archive are in flight; try again soon"),
            Self::NotYetVisible => {
                (Code::NotYetVisible, "the events up to min-position are not counted yet; try again")
            }
            Self::TooManyWaiters => (Code::Overloaded, "too many reads wait for events; try again soon"),
        }
    }
}

/// Reads hourly counts from the read models.
pub trait HourReader: Send + Sync + 'static {
    /// Reads the counts of `hour`. `current` is the current hour.
    fn read(&self, hour: Hour, current: Hour) -> BoxFuture<'_, Result<HourCounts, ReadError>>;

    /// Reads the counts of each hour of `from..to` from the archive at once. Do not call it for hours from [`first_live`]
    /// to the current one: [`read`](Self::read) has fresher counts.
    ///
    /// [`first_live`]: Self::first_live
    fn read_range(&self, from: Hour, to: Hour, current: Hour) -> BoxFuture<'_, Result<Vec<HourCounts>, ReadError>>;

    /// Reads the counts of `hour` from a read model that has these events; waits for one at most this long.
    fn read_at<'a>(
        &'a self,
        hour: Hour,
        current: Hour,
        positions: &'a MinPositions,
        wait: Duration,
    ) -> BoxFuture<'a, Result<HourCounts, ReadError>>;

    /// Waits at most this long until [`read_range`](Self::read_range) has these events.
    fn range_at<'a>(&'a self, positions: &'a MinPositions, wait: Duration) -> BoxFuture<'a, Result<(), ReadError>>;

    /// The number of partitions of the topic of events.
    fn partitions(&self) -> u32;

    /// The time up to which every read model counts, in ms since the epoch; `None` if that is not known.
    fn counted_up_to(&self) -> Option<i64>;

    /// What an operator has to know while a read model lacks events that the log had `query.stale_after` ago.
    fn notice(&self) -> Option<String>;

    /// The first hour that [`read`](Self::read) serves from a fresher read model than the archive.
    fn first_live(&self, current: Hour) -> Hour;
}
