//! Settings of the processor, and the bounds of counting that follow from them.

use std::path::PathBuf;

use millrace_base::{Size, Span, Violation};
use millrace_contracts::EventWindow;
use millrace_log::Limits;

/// Settings of the processor. `millrace/default.toml` documents each.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address of the admin listener: health and metrics.
    pub admin: std::net::SocketAddr,
    /// Worker threads of this process.
    pub workers: usize,
    /// Most records of one step.
    pub max_step_records: usize,
    /// Most bytes of one step.
    pub max_step_bytes: Size,
    /// Longest time a step collects records.
    pub max_step_time: Span,
    /// Most users of an hour in a partition that are counted exactly.
    pub max_exact_users: usize,
    /// Log time without a write after which an hour's exact users are evicted.
    pub evict_after: Span,
    /// Most records of a partition in the window of event ids.
    pub max_dedup_records: u64,
    /// Longest log time of the window of event ids.
    pub dedup_window: Span,
    /// Memory for the users of all hours of the process; beyond it they go to disk.
    pub max_memory: Size,
    /// Directory of the scratch files; empty for the system's temporary directory.
    pub scratch_directory: PathBuf,
    /// The timestamps that are counted: section `[analytics]`, which the command service reads, too.
    #[serde(skip)]
    pub event_window: EventWindow,
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
    /// Bounds of one step.
    pub(crate) fn step(&self) -> Limits {
        Limits { records: self.max_step_records, bytes: self.max_step_bytes.as_usize(), wait: self.max_step_time.0 }
    }

    /// Every setting outside its bounds.
    pub fn validate(&self) -> Vec<Violation> {
        let (ms, seconds, day) = (Span::from_millis, Span::from_secs, 86_400);
        let mut bounds = millrace_base::Bounds::new();
        bounds
            .range("workers", &self.workers, &(1..=64))
            .range("max_step_records", &self.max_step_records, &(1..=50_000))
            .range("max_step_bytes", &self.max_step_bytes, &(Size::from_kib(1)..=Size::from_mib(256)))
            .range("max_step_time", &self.max_step_time, &(ms(1)..=ms(100)))
            .range("max_exact_users", &self.max_exact_users, &(1..=100_000_000))
            .range("evict_after", &self.evict_after, &(seconds(60)..=seconds(3_660 * day)))
            .range("max_dedup_records", &self.max_dedup_records, &(1..=100_000_000))
            .range("dedup_window", &self.dedup_window, &(seconds(1)..=seconds(7 * day)))
            .range("max_memory", &self.max_memory, &(Size::from_mib(16)..=Size::from_gib(1_024)));
        bounds.into_violations()
    }

    /// The bounds of counting.
    pub fn bounds(&self) -> Bounds {
        let ms = |span: Span| i64::try_from(span.0.as_millis()).unwrap_or(i64::MAX);
        Bounds {
            exact_users: self.max_exact_users,
            exact_for_ms: ms(self.evict_after),
            dedup_records: self.max_dedup_records,
            dedup_window_ms: ms(self.dedup_window),
            memory: self.max_memory.0,
            ..Bounds::default()
        }
    }
}
