//! Errors of the log, by what happens next.

use std::error::Error;
use std::sync::Arc;

use millrace_contracts::Next;

/// A failed operation on the log. Appends do not use it: they end in an [`Outcome`](crate::Outcome).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The log is unreachable, or a worker lost its epoch or its partitions: a fresh start is expected to succeed.
    #[error(transparent)]
    Unavailable(Failure),
    /// The log is not as the guarantees need it, for example a wrong partition count, a position that the log no longer
    /// has, or a state that does not match its position. A person has to decide.
    #[error(transparent)]
    Refused(Failure),
    /// The data on disk is not what was written. The text names the file and the loss.
    #[error(transparent)]
    Damaged(Failure),
}

/// What failed, and the error that caused it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{detail}")]
pub struct Failure {
    /// What happened and what it means, the text of the cause included.
    pub detail: String,
    /// The error of the client library or the operating system, if one caused this.
    #[source]
    pub source: Option<Arc<dyn Error + Send + Sync>>,
}

impl Failure {
    /// A failure without a cause of another library.
    pub fn new(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), source: None }
    }

    /// Keeps the error that caused this one.
    #[must_use]
    pub fn because(self, source: impl Error + Send + Sync + 'static) -> Self {
        Self { source: Some(Arc::new(source)), ..self }
    }
}

/// Equal if the details are; sources cannot be compared.
impl PartialEq for Failure {
    fn eq(&self, other: &Self) -> bool {
        self.detail == other.detail
    }
}

impl Eq for Failure {}

impl LogError {
    /// A failure that a fresh start is expected to overcome.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::Unavailable(Failure::new(detail))
    }

    /// A failure that needs a person.
    pub fn refused(detail: impl Into<String>) -> Self {
        Self::Refused(Failure::new(detail))
    }

    /// Data on disk that is not what was written.
    pub fn damaged(detail: impl Into<String>) -> Self {
        Self::Damaged(Failure::new(detail))
    }

    /// Keeps the error that caused this one.
    #[must_use]
    pub fn because(self, source: impl Error + Send + Sync + 'static) -> Self {
        match self {
            Self::Unavailable(failure) => Self::Unavailable(failure.because(source)),
            Self::Refused(failure) => Self::Refused(failure.because(source)),
            Self::Damaged(failure) => Self::Damaged(failure.because(source)),
        }
    }

    /// Adds to a refusal what an operator can do.
    #[must_use]
    pub fn advise(self, remedy: &str) -> Self {
        match self {
            Self::Refused(failure) if !remedy.is_empty() => {
                Self::Refused(Failure { detail: format!("{}. To go on, {remedy}", failure.detail), ..failure })
            }
            other => other,
        }
    }

    /// What happens next.
    pub const fn next(&self) -> Next {
        match self {
            Self::Unavailable(_) => Next::Retry,
            Self::Refused(_) | Self::Damaged(_) => Next::Stop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reports_its_source() {
        let cause = std::io::Error::from(std::io::ErrorKind::NotFound);
        let text = cause.to_string();
        let error = LogError::damaged("x.jnl: not found").because(cause);
        assert_eq!(error.to_string(), "x.jnl: not found");
        assert_eq!(error.source().map(ToString::to_string), Some(text));
    }
}
