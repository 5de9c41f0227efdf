//! Free disk space: below the minimum, appends are refused.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::EmbeddedConfig;
use crate::fault;

/// The reason of refused appends below `min_free_disk`.
pub(super) const DISK_FULL: &str = "the disk is at its reserve";
/// Between two checks of the free disk space.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// The free disk space, read by whoever needs it, at intervals.
pub(super) struct DiskSpace {
    directory: PathBuf,
    min_free: u64,
    /// As of the last check.
    free: AtomicU64,
    checked: Mutex<Option<Instant>>,
    /// The consumer that retention waits for, and its position, in words.
    held_by: Mutex<Option<String>>,
}

impl DiskSpace {
    pub(super) fn new(config: &EmbeddedConfig) -> Self {
        let (directory, min_free) = (config.directory.clone(), config.min_free_disk.0);
        let free = AtomicU64::new(u64::MAX);
        Self { directory, min_free, free, checked: Mutex::default(), held_by: Mutex::default() }
    }

    /// Whether there is enough free space for appends, as of the last interval.
    pub(super) fn is_enough(&self) -> bool {
        self.free() >= self.min_free
    }

    /// Whether there is enough free space for the steps of stages. Half of the minimum is theirs: retention waits for
    /// them, so they must not wait for retention.
    pub(super) fn is_enough_for_steps(&self) -> bool {
        self.free() >= self.min_free / 2
    }

    fn free(&self) -> u64 {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if checked.is_none_or(|at| at.elapsed() >= CHECK_INTERVAL) {
            let free = self.read();
            *checked = Some(Instant::now());
            self.report(self.free.swap(free, Ordering::Relaxed) < self.min_free, free < self.min_free);
        }
        drop(checked);
        self.free.load(Ordering::Relaxed)
    }

    /// Whether appends are refused. A full disk is checked again: readiness depends on it, and no write comes to a
    /// process that is not ready. Free while there is enough space.
    pub(super) fn is_full(&self) -> bool {
        self.free.load(Ordering::Relaxed) < self.min_free && !self.is_enough()
    }

    /// Why appends are refused, in words.
    pub(super) fn reason(&self) -> String {
        match &*self.held_by.lock().unwrap_or_else(PoisonError::into_inner) {
            None => DISK_FULL.into(),
            Some(held_by) => format!("{DISK_FULL}, and {held_by}"),
        }
    }

    /// Records that retention waits for a consumer, or that it does not.
    pub(super) fn set_held_by(&self, held_by: Option<String>) {
        *self.held_by.lock().unwrap_or_else(PoisonError::into_inner) = held_by;
    }

    fn read(&self) -> u64 {
        if fault::sabotaged("embedded::disk_full") {
            return 0;
        }
        match rustix::fs::statvfs(&self.directory) {
            Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize),
            Err(error) => {
                tracing::warn!(%error, "cannot read the free disk space");
                u64::MAX
            }
        }
    }

    fn report(&self, was_full: bool, full: bool) {
        if full && !was_full {
            tracing::warn!("{}: refusing appends", self.reason());
        } else if was_full && !full {
            tracing::info!("the disk has enough free space again: accepting appends");
        }
    }
}
