//! Settings of the processor.

use std::path::PathBuf;

use millrace_base::{Bounds, Size, Span, Violation};
use millrace_contracts::EventWindow;
use millrace_log::Limits;

use crate::bounds::CountingBounds;

/// Settings of the processor. `millrace/default.toml` documents each.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address of the admin listener: health and metrics.
    pub admin: std::net::SocketAddr,
    /// Worker threads of this process.
    pub workers: usize,
    /// Maximum number of records of one step.
    pub max_step_records: usize,
    /// Maximum number of bytes of one step.
    pub max_step_bytes: Size,
    /// Maximum time for which a step collects records.
    pub max_step_time: Span,
    /// Maximum number of exact users of an hour in a partition.
    pub max_exact_users: usize,
    /// Log time after the last event of an hour at which a sketch replaces its exact users.
    pub evict_after: Span,
    /// Maximum number of records in the deduplication window of a partition.
    pub max_dedup_records: u64,
    /// Maximum age of the deduplication window, in log time.
    pub dedup_window: Span,
    /// Maximum memory for the users of all hours of the process; beyond it they spill to disk.
    pub max_memory: Size,
    /// Directory of the scratch files; empty for the system's temporary directory.
    pub scratch_directory: PathBuf,
    /// The timestamps that count: section `[analytics]`, which the command service shares.
    #[serde(skip)]
    pub event_window: EventWindow,
}

impl Config {
    /// Bounds of one step.
    pub(crate) fn step(&self) -> Limits {
        Limits { records: self.max_step_records, bytes: self.max_step_bytes.as_usize(), wait: self.max_step_time.0 }
    }

    /// Every setting outside its bounds.
    pub fn validate(&self) -> Vec<Violation> {
        let (ms, seconds, day) = (Span::from_millis, Span::from_secs, 86_400);
        let mut bounds = Bounds::new();
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
    pub fn bounds(&self) -> CountingBounds {
        let ms = |span: Span| i64::try_from(span.0.as_millis()).unwrap_or(i64::MAX);
        CountingBounds {
            max_exact_users: self.max_exact_users,
            evict_after_ms: ms(self.evict_after),
            max_dedup_records: self.max_dedup_records,
            dedup_window_ms: ms(self.dedup_window),
            max_memory: self.max_memory.0,
            ..CountingBounds::default()
        }
    }
}
