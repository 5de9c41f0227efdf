//! The limit of open files: every connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// File descriptors reserved for the log, the stores and the other files of the process.
const RESERVE: u64 = 512;

/// Raises the soft limit of open files to the hard one. Returns how many of `wanted` connections fit.
pub(super) fn fitting_connections(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "cannot raise the limit of open files");
        }
    }
    let Some(files) = getrlimit(Resource::Nofile).current else { return wanted };
    let fit = usize::try_from(files.saturating_sub(RESERVE).max(files / 2)).unwrap_or(usize::MAX);
    if fit < wanted {
        tracing::warn!(
            files,
            wanted,
            connections = fit,
            "limit of open files allows fewer connections than configured"
        );
    }
    wanted.min(fit)
}
