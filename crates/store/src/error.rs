//! What can go wrong with a store, sorted by what happens next.

use millrace_contracts::Next;

/// A failed operation on a store. Nothing of the write that failed counts as applied: at the next attempt the stored
/// position says how far it came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct StoreError {
    /// Retry with a pause, or stop until a person has looked. A store never skips.
    pub next: Next,
    /// What went wrong, without secrets.
    pub why: String,
}

impl StoreError {
    pub(crate) fn retry(why: impl Into<String>) -> Self {
        Self { next: Next::Retry, why: why.into() }
    }

    pub(crate) fn stop(why: impl Into<String>) -> Self {
        Self { next: Next::Stop, why: why.into() }
    }
}
