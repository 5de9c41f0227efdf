//! The port to the read models: what is asked of them, and what they may answer.

use futures::future::BoxFuture;
use millrace_contracts::{Code, Hour};
use millrace_store::Totals;

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// This process: the body of the current hour, or numbers that were answered before.
    Memory,
    /// Redis.
    Redis,
    /// The archive.
    Archive,
}

impl Tier {
    /// The word of the `Millrace-Tier` header and of metric labels.
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
pub struct Known {
    /// The counts.
    pub totals: Totals,
    /// Who answered.
    pub tier: Tier,
    /// When the numbers began to be read from their store, in ms since the epoch: they hold all that it held then.
    pub as_of_ms: i64,
    /// Whether the store that should have answered did not, so that the numbers may lag behind it.
    pub stale: bool,
}

/// Why an hour's counts cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// No read model that answers is known to be complete.
    Rebuilding,
    /// No read model answers.
    Unavailable,
    /// Too many reads of the archive are under way.
    Overloaded,
}

impl Missed {
    /// The code, and the words for a person.
    pub(crate) const fn code(self) -> (Code, &'static str) {
        match self {
            Self::Rebuilding => (Code::Rebuilding, "the hour's counts are being built again; try again soon"),
            Self::Unavailable => (Code::Unavailable, "no read model can be reached; try again soon"),
            Self::Overloaded => (Code::Overloaded, "too many reads of the archive are under way; try again soon"),
        }
    }
}

/// The read models, seen from HTTP.
pub trait Hours: Send + Sync + 'static {
    /// The counts of `hour`, when `current` is the hour that runs now.
    fn read(&self, hour: Hour, current: Hour) -> BoxFuture<'_, Result<Known, Missed>>;

    /// The counts of each hour from `from` up to but without `to`, in one read. Not for hours from [`first_live`] to the
    /// current one, which have a fresher place.
    ///
    /// [`first_live`]: Self::first_live
    fn bulk(&self, from: Hour, to: Hour, current: Hour) -> BoxFuture<'_, Result<Vec<Known>, Missed>>;

    /// The first hour that [`read`](Self::read) answers from a fresher place than the archive.
    fn first_live(&self, current: Hour) -> Hour;
}
