//! Settings of the processor, and the bounds of counting that follow from them.

use std::path::PathBuf;
use std::time::Duration;

use millrace_service::config::{Size, Span};

/// Settings of the processor. `millrace/default.toml` documents each.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address of the admin listener: health and metrics.
    pub admin: std::net::SocketAddr,
    /// Worker threads of this process.
    pub workers: usize,
    /// Most records of one step.
    pub step_records: usize,
    /// Most bytes of one step.
    pub step_bytes: Size,
    /// Longest time a step collects records.
    pub step_time: Span,
    /// Most users of an hour in a partition that are counted exactly.
    pub exact_users: usize,
    /// How long an hour that is not written any more keeps its exact users, in log time.
    pub exact_for: Span,
    /// Most records of a partition among which an event id is looked for.
    pub dedup_records: u64,
    /// How far back an event id is looked for, in log time.
    pub dedup_window: Span,
    /// Memory for the users of all hours of the process; beyond it they go to disk.
    pub memory: Size,
    /// The directory of the files for that; empty for the system's temporary directory.
    pub scratch: PathBuf,
    /// The timestamps that are counted: those of the command service.
    #[serde(skip)]
    pub window: Window,
}

/// The timestamps of events that are counted; others are put aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The oldest, in ms since the epoch.
    pub accept_from_ms: u64,
    /// How far ahead of the log's time.
    pub future_tolerance: Duration,
}

/// The bounds of counting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// Most users of an hour in a partition that are counted exactly.
    pub exact_users: usize,
    /// How long an hour keeps its exact users after it was last written, in ms of log time.
    pub exact_for_ms: i64,
    /// Most records among which an event id is looked for.
    pub dedup_records: u64,
    /// How far back an event id is looked for, in ms of log time.
    pub dedup_window_ms: i64,
    /// Memory for the users of all hours of the process.
    pub memory: u64,
    /// The least number of users of a closed hour that is moved to disk.
    pub spill_users: usize,
    /// Deltas of an hour in the log after which a snapshot may replace them,
    pub merge_deltas: usize,
    /// and after which one does, however few users they hold.
    pub merge_anyway: usize,
    /// Bytes of snapshots after which a step takes no more of them.
    pub snapshot_bytes: usize,
}

impl Default for Window {
    fn default() -> Self {
        Self { accept_from_ms: 0, future_tolerance: Duration::from_mins(5) }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            exact_users: 2_000_000,
            exact_for_ms: 7 * 24 * 3_600_000,
            dedup_records: 500_000,
            dedup_window_ms: 3_600_000,
            memory: 512 << 20,
            spill_users: 4_096,
            merge_deltas: 256,
            merge_anyway: 2_048,
            snapshot_bytes: 8 << 20,
        }
    }
}

impl Config {
    /// What is wrong, as (key below the section, what is allowed).
    pub fn validate(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut check = |ok: bool, key: &str, allowed: &str| {
            if !ok {
                problems.push((key.to_owned(), allowed.to_owned()));
            }
        };
        check((1..=64).contains(&self.workers), "workers", "1 to 64");
        check((1..=50_000).contains(&self.step_records), "step_records", "1 to 50000");
        check((1_024..=256 << 20).contains(&self.step_bytes.0), "step_bytes", "1KiB to 256MiB");
        let time = Duration::from_millis(1)..=Duration::from_millis(100);
        check(time.contains(&self.step_time.0), "step_time", "1ms to 100ms");
        check((1..=100_000_000).contains(&self.exact_users), "exact_users", "1 to 100000000");
        let kept = Duration::from_mins(1)..=Duration::from_hours(3_660 * 24);
        check(kept.contains(&self.exact_for.0), "exact_for", "1m to 3660d");
        check((1..=100_000_000).contains(&self.dedup_records), "dedup_records", "1 to 100000000");
        let window = Duration::from_secs(1)..=Duration::from_hours(7 * 24);
        check(window.contains(&self.dedup_window.0), "dedup_window", "1s to 7d");
        check((16 << 20..=1 << 40).contains(&self.memory.0), "memory", "16MiB to 1024GiB");
        problems
    }

    /// The bounds of counting.
    pub fn bounds(&self) -> Bounds {
        let ms = |span: Span| i64::try_from(span.0.as_millis()).unwrap_or(i64::MAX);
        Bounds {
            exact_users: self.exact_users,
            exact_for_ms: ms(self.exact_for),
            dedup_records: self.dedup_records,
            dedup_window_ms: ms(self.dedup_window),
            memory: self.memory.0,
            ..Bounds::default()
        }
    }
}
