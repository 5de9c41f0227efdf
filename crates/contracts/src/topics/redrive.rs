//! Redrives: which dead letters are sent again, and how far that is.

use serde::{Deserialize, Serialize};

/// Which dead letters to redrive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedriveFilter {
    /// Given up at or after this time, ms since the epoch.
    pub from_ms: Option<i64>,
    /// Given up before this time, ms since the epoch.
    pub to_ms: Option<i64>,
    /// With this last status.
    pub status: Option<u16>,
    /// Messages a second; `None`: all at once.
    pub rate: Option<u32>,
}

/// The progress of a redrive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redrive {
    /// When it began, ms since the epoch.
    pub begun_ms: i64,
    /// Dead letters that it took off the list.
    pub selected: u64,
    /// Messages of theirs that are settled.
    pub done: u64,
    /// Messages of theirs that are dead letters again.
    pub failed: u64,
    /// Whether a seek dropped the messages that were left.
    pub canceled: bool,
}

impl Redrive {
    /// Whether no message of it is left.
    pub fn is_over(&self) -> bool {
        self.canceled || self.done + self.failed >= self.selected
    }

    /// `running`, `done`, or `canceled`.
    pub fn state(&self) -> &'static str {
        match (self.canceled, self.is_over()) {
            (true, _) => "canceled",
            (false, true) => "done",
            (false, false) => "running",
        }
    }
}
