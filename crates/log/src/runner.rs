//! How a stage or a sink is run, the same for both engines.

use tokio::sync::watch;

use crate::Limits;

/// Where a runner stands, for readiness and for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Waiting for the log, or for partitions.
    Starting,
    /// Reading state back before it may go on.
    Restoring {
        /// Partitions being restored.
        partitions: Vec<u32>,
    },
    /// At work on these partitions; none is fine when there are more instances than partitions.
    Running {
        /// Partitions held.
        partitions: Vec<u32>,
    },
    /// Something failed; it will be tried again.
    Retrying {
        /// What failed.
        why: String,
    },
}

/// How to run a stage or a sink.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The consumer group's name without the prefix, `processor`.
    pub role: String,
    /// Names this process among the instances of the role: stable over a restart, different from every other's.
    pub instance: String,
    /// Number of workers in this process, at least 1. The embedded engine runs one.
    pub workers: usize,
    /// Bounds of one step.
    pub step: Limits,
    /// Told about every change of status.
    pub status: watch::Sender<Status>,
}
