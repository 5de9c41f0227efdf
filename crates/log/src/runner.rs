//! How a stage or a sink is run, the same for both engines.

use tokio::sync::watch;

use crate::Limits;

/// How much of a restore is done, in offsets. The whole grows when it is known which input is to be looked at again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Offsets behind us.
    pub done: u64,
    /// Offsets in all, as far as is known.
    pub total: u64,
}

impl Progress {
    /// Rounded down; 0 while the whole is not known.
    pub fn percent(self) -> u64 {
        let percent = u128::from(self.done.min(self.total)) * 100 / u128::from(self.total.max(1));
        u64::try_from(percent).unwrap_or(100)
    }
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} %", self.percent())
    }
}

/// Where a runner stands, for readiness and for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Waiting for the log, or for partitions.
    Starting,
    /// Reading state back before it may go on.
    Restoring {
        /// Partitions being restored.
        partitions: Vec<u32>,
        /// How far it is.
        progress: Progress,
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
