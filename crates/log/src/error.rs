//! What can go wrong with the log, sorted by what happens next.

use millrace_contracts::Next;

/// A failed operation on the log. Appends do not use it: they end in an [`Outcome`](crate::Outcome).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The log cannot be reached, or a worker lost its epoch or its partitions; a fresh start is expected to succeed.
    #[error("{0}")]
    Unavailable(String),
    /// Something is not as the guarantees need it: a wrong partition count, a position the log no longer has, a state
    /// that does not match its position. A person has to decide.
    #[error("{0}")]
    Refused(String),
    /// The data on disk is not what was written. Names the file and the loss.
    #[error("{0}")]
    Damaged(String),
}

impl LogError {
    /// What happens next.
    pub const fn next(&self) -> Next {
        match self {
            Self::Unavailable(_) => Next::Retry,
            Self::Refused(_) | Self::Damaged(_) => Next::Stop,
        }
    }
}
