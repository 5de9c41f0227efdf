//! The parameters of a load.

use std::time::Duration;

use super::generator::Shape;
use crate::client::Target;

/// Everything that determines a load.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The events.
    pub(crate) shape: Shape,
    /// Part of every user's name, so that no other load has the same users.
    pub(crate) run: String,
    /// Command services; connections are distributed round robin.
    pub(crate) commands: Vec<Target>,
    /// The query service with the counts.
    pub(crate) query: Target,
    /// Number of connections.
    pub(crate) connections: usize,
    /// Number of threads; connections are distributed round robin.
    pub(crate) threads: usize,
    /// Events in one request; 1 posts each by itself.
    pub(crate) batch: u64,
    /// Whether events carry ids.
    pub(crate) ids: bool,
    /// Whether an event of unknown outcome is sent again; only with ids.
    pub(crate) resend_unknown: bool,
    /// Share of events sent twice at the same time, in hundredths of a percent; only with ids.
    pub(crate) duplicates: u32,
    /// Timeout of a connect and of an exchange.
    pub(crate) timeout: Duration,
    /// How long an event is retried while the service is unavailable.
    pub(crate) patience: Duration,
    /// How long the counts may take to become right.
    pub(crate) settle: Duration,
}
