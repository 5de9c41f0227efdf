//! Options and status of a run of a stage or sink, the same for both engines.

use std::collections::BTreeMap;

use tokio::sync::watch;

use crate::Limits;

/// The progress of a restore, in offsets. The total grows once the input to replay is determined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Offsets read.
    pub done: u64,
    /// Offsets to read in total, as determined so far.
    pub total: u64,
}

impl Progress {
    /// Percent, rounded down; 0 while the total is 0.
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

/// The status of a runner, for readiness and operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Waiting for the log, or for partitions.
    Starting,
    /// Restoring state before processing resumes.
    Restoring {
        /// The partitions.
        partitions: Vec<u32>,
        /// The progress over all of them.
        progress: Progress,
    },
    /// Processing; without partitions if there are more instances than partitions.
    Running {
        /// The assigned partitions.
        partitions: Vec<u32>,
    },
    /// Processing some of the assigned partitions; the others failed, and are retried.
    Degraded {
        /// The partitions that are processed.
        partitions: Vec<u32>,
        /// Why each of the others is not.
        failed: BTreeMap<u32, String>,
    },
    /// An operation failed; the runner retries.
    Retrying {
        /// The failure.
        why: String,
    },
}

impl Status {
    /// Why the run is not ready; `None` while it processes all its partitions.
    pub fn not_ready(&self) -> Option<String> {
        match self {
            Self::Starting => Some("waiting for partitions".into()),
            Self::Restoring { partitions, progress } => {
                Some(format!("restoring partitions {partitions:?}: {progress}"))
            }
            Self::Running { .. } => None,
            Self::Degraded { failed, .. } => {
                let shown =
                    failed.iter().map(|(partition, why)| format!("partition {partition} is not processed: {why}"));
                Some(shown.collect::<Vec<_>>().join("; "))
            }
            Self::Retrying { why } => Some(why.clone()),
        }
    }
}

/// The options of a run of a stage or sink.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The consumer group's name without the prefix, `processor`.
    pub role: String,
    /// The name of this process among the instances of the role: unique, and stable over a restart.
    pub instance: String,
    /// The number of workers in this process, at least 1. The embedded engine runs one.
    pub workers: usize,
    /// The bounds of one step.
    pub step: Limits,
    /// Receives every change of status.
    pub status: watch::Sender<Status>,
}
