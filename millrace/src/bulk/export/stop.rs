//! Why an export stops.

use std::path::PathBuf;

/// The reason.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stop {
    /// The range is empty.
    #[error("--to must be later than --from")]
    Empty,
    /// The service cannot serve every count now: it rebuilds an hour, is unavailable, or broke off its response.
    #[error("{0}: {1}; try again later")]
    Later(String, String),
    /// The service refuses this request.
    #[error("{0}: {1}")]
    Refused(String, String),
    /// The output cannot be written.
    #[error("{path}: {why}")]
    Output {
        /// Its path.
        path: PathBuf,
        /// The error of the operating system.
        why: std::io::Error,
    },
}
