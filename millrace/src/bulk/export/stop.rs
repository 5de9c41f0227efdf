//! Why an export cannot go on.

use std::path::PathBuf;

/// The reason.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stop {
    /// The span is empty.
    #[error("--to must be later than --from")]
    Empty,
    /// The service cannot tell every count now: it rebuilds an hour, is away, or cut its answer short.
    #[error("http://{0}: {1}; try again later")]
    Later(String, String),
    /// The service will not answer this.
    #[error("http://{0}: {1}")]
    Refused(String, String),
    /// The output cannot be written.
    #[error("{path}: {why}")]
    Output {
        /// Which.
        path: PathBuf,
        /// What the system says.
        why: std::io::Error,
    },
}
