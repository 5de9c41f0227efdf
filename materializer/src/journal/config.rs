//! Settings of the journal file.

use std::path::PathBuf;

use millrace_base::{Bounds, Size, Span, Violation};

use super::format::Format;

/// Settings of the journal file. `millrace/default.toml` documents each.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalConfig {
    /// Where the segments are written; empty for no journal in this process.
    pub directory: PathBuf,
    /// Names the journal among those of the cluster.
    pub name: String,
    /// How records are written.
    pub format: Format,
    /// A segment ends once it has so many bytes.
    pub segment_size: Size,
    /// A segment ends with the period of so long, by the records' time; zero for no end by time.
    pub rotate_every: Span,
    /// Segments that are kept besides the newest; 0 for all.
    pub keep: u32,
}

impl JournalConfig {
    /// Settings outside their bounds.
    pub fn validate(&self) -> Vec<Violation> {
        let mut bounds = Bounds::new();
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let named = (1..=64).contains(&self.name.len()) && self.name.bytes().all(legal);
        bounds.check(named, "name", "1 to 64 of the characters a-z A-Z 0-9 . _ -");
        bounds.range("segment_size", &self.segment_size, &(Size::from_kib(64)..=Size::from_gib(1024)));
        let every = self.rotate_every;
        let periodic =
            every == Span::from_secs(0) || (Span::from_secs(1)..=Span::from_secs(366 * 86_400)).contains(&every);
        bounds.check(periodic, "rotate_every", "0s or 1s..=366d");
        bounds.into_violations()
    }
}
