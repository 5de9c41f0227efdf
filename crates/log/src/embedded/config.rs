//! Settings of the embedded engine.

use std::path::PathBuf;
use std::time::Duration;

/// Settings of the embedded engine. `millrace/default.toml` documents each.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddedConfig {
    /// Where everything is kept; one process at a time.
    pub directory: PathBuf,
    /// Partitions of every topic; a directory with another number is refused.
    pub partitions: u32,
    /// Most records waiting for the writer; more are refused.
    pub queue_records: u32,
    /// Most KiB waiting for the writer; more are refused.
    pub queue_kib: u32,
    /// Largest record in bytes, key and value together; a larger one is refused.
    pub max_record_bytes: u32,
    /// Block cache in KiB.
    pub cache_kib: u32,
    /// A memtable is written to a table at this size, in KiB. There is one for each topic-partition.
    pub memtable_kib: u32,
    /// All journals together, in MiB.
    pub journal_mib: u32,
    /// Appends are refused when less than this many MiB are free on the disk.
    pub reserve_mib: u32,
    /// A topic that drops by age also drops what is older than its newest this many MiB, per partition; 0 means no bound.
    pub retention_mib: u32,
    /// A compacted topic keeps this many of its newest records for readers that follow it, per partition.
    pub tail_records: u32,
    /// How often what is no longer kept is dropped, in ms.
    pub retention_interval_ms: u32,
}

impl EmbeddedConfig {
    pub(super) fn retention_interval(&self) -> Duration {
        Duration::from_millis(self.retention_interval_ms.into())
    }

    /// What is wrong, as (key below the section, what is allowed).
    pub fn validate(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut check = |ok: bool, key: &str, allowed: &str| {
            if !ok {
                problems.push((key.to_owned(), allowed.to_owned()));
            }
        };
        check(!self.directory.as_os_str().is_empty(), "directory", "a path");
        check((1..=1024).contains(&self.partitions), "partitions", "1 to 1024");
        check((1..=10_000_000).contains(&self.queue_records), "queue_records", "1 to 10000000");
        check((1_024..=2_097_151).contains(&self.queue_kib), "queue_kib", "1024 to 2097151");
        check((1_024..=16 << 20).contains(&self.max_record_bytes), "max_record_bytes", "1024 to 16777216");
        check((256..=64 << 20).contains(&self.cache_kib), "cache_kib", "256 to 67108864");
        check((1_024..=1 << 20).contains(&self.memtable_kib), "memtable_kib", "1024 to 1048576");
        check((64..=65_536).contains(&self.journal_mib), "journal_mib", "64 to 65536");
        check((1_000..=100_000_000).contains(&self.tail_records), "tail_records", "1000 to 100000000");
        let interval = self.retention_interval_ms;
        check((10..=3_600_000).contains(&interval), "retention_interval_ms", "10 to 3600000");
        problems
    }
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("data"),
            partitions: 1,
            queue_records: 200_000,
            queue_kib: 65_536,
            max_record_bytes: 1_310_720,
            cache_kib: 8_192,
            memtable_kib: 8_192,
            journal_mib: 128,
            reserve_mib: 256,
            retention_mib: 0,
            tail_records: 100_000,
            retention_interval_ms: 60_000,
        }
    }
}
