//! Settings of the embedded engine.

use std::path::PathBuf;

use millrace_base::{Bounds, Size, Span, Violation};

/// Settings of the embedded engine. `millrace/default.toml` documents each.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddedConfig {
    /// The data directory; one process at a time.
    pub directory: PathBuf,
    /// Partitions of every topic; a directory with another number is refused.
    pub partitions: u32,
    /// Most records in the queue to the writer; further appends are refused.
    pub max_queue_records: u32,
    /// Most bytes in the queue to the writer; further appends are refused.
    pub max_queue_bytes: Size,
    /// Largest record, key and value together; a larger one is refused.
    pub max_record_bytes: Size,
    /// Block cache.
    pub cache_size: Size,
    /// Size at which a memtable is written to a table. Each topic-partition has one.
    pub memtable_size: Size,
    /// Size of all journals together.
    pub journal_size: Size,
    /// Appends are refused while less than this is free on the disk.
    pub min_free_disk: Size,
    /// A topic with retention by age also drops what is older than its newest this many bytes, per partition; zero
    /// means no bound.
    pub retention_bytes: Size,
    /// Newest records that a compacted topic keeps uncompacted for readers that follow it, per partition.
    pub max_tail_records: u32,
    /// Pause between two runs of retention.
    pub retention_check_interval: Span,
}

impl EmbeddedConfig {
    /// Every setting outside its bounds.
    pub fn validate(&self) -> Vec<Violation> {
        let mut bounds = Bounds::new();
        bounds
            .check(!self.directory.as_os_str().is_empty(), "directory", "a path")
            .range("partitions", &self.partitions, &(1..=1024))
            .range("max_queue_records", &self.max_queue_records, &(1..=10_000_000))
            .range("max_queue_bytes", &self.max_queue_bytes, &(Size::from_mib(1)..=Size::from_kib(2_097_151)))
            .range("max_record_bytes", &self.max_record_bytes, &(Size::from_kib(1)..=Size::from_mib(16)))
            .range("cache_size", &self.cache_size, &(Size::from_kib(256)..=Size::from_gib(64)))
            .range("memtable_size", &self.memtable_size, &(Size::from_mib(1)..=Size::from_gib(1)))
            .range("journal_size", &self.journal_size, &(Size::from_mib(64)..=Size::from_gib(64)))
            .range("min_free_disk", &self.min_free_disk, &(Size(0)..=Size::from_gib(1 << 20)))
            .range("retention_bytes", &self.retention_bytes, &(Size(0)..=Size::from_gib(1 << 20)))
            .range("max_tail_records", &self.max_tail_records, &(1_000..=100_000_000))
            .range(
                "retention_check_interval",
                &self.retention_check_interval,
                &(Span::from_secs(1)..=Span::from_secs(3_600)),
            );
        bounds.into_violations()
    }
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("data"),
            partitions: 1,
            max_queue_records: 200_000,
            max_queue_bytes: Size::from_mib(64),
            max_record_bytes: Size::from_kib(1_280),
            cache_size: Size::from_mib(8),
            memtable_size: Size::from_mib(8),
            journal_size: Size::from_mib(128),
            min_free_disk: Size::from_mib(256),
            retention_bytes: Size(0),
            max_tail_records: 100_000,
            retention_check_interval: Span::from_secs(60),
        }
    }
}
