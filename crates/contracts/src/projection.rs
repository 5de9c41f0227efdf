//! The contract between the reader of the log and the store of a read model: one type each for write, outcome and error.

use std::error::Error;
use std::sync::Arc;

use crate::{CountedPosition, Next};

/// How far a read model contains a partition of its input, and which record that ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProjectionPosition {
    /// The first input offset that the read model does not contain.
    pub next_offset: u64,
    /// The identity of the record before `next_offset`, by which another log, or one that was filled again, is detected; `None`
    /// if there is none, and in positions of earlier versions.
    pub last_record: Option<u64>,
}

/// One partition's part of a write to a read model. State and position move in one atomic unit.
#[derive(Debug)]
pub struct ProjectionWrite<'a, T: ?Sized> {
    /// The partition that everything in `items` belongs to.
    pub partition: u32,
    /// The position that the store is expected to have; `None` begins a rebuild.
    pub expected: Option<u64>,
    /// The position of the store once this is written.
    pub next: u64,
    /// The identity of the record before `next`, to be stored with it.
    pub last_record: Option<u64>,
    /// Whether the store then contains everything that was readable when reading reached this point.
    pub caught_up: bool,
    /// Up to which position of its own input the log's last step in `items` holds, if they contain the end of a step. The
    /// store keeps it beside its position, until the next one or a rebuild.
    pub counted: Option<CountedPosition>,
    /// What to write; empty when only the position or `caught_up` changes.
    pub items: &'a T,
}

impl<T: ?Sized> ProjectionWrite<'_, T> {
    /// The same write, of other items: those that a store makes from a batch.
    pub fn with_items<'b, U: ?Sized>(&self, items: &'b U) -> ProjectionWrite<'b, U> {
        let Self { partition, expected, next, last_record, caught_up, counted, .. } = *self;
        ProjectionWrite { partition, expected, next, last_record, caught_up, counted, items }
    }
}

/// The result of one [`ProjectionWrite`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    /// State and position moved, together.
    Applied,
    /// Nothing was written: the store has another position than expected (`None`: it is empty). Reading resumes there.
    PositionMismatch(Option<u64>),
}

/// A failed operation on a read model. Nothing of the write that failed counts as applied: the stored position decides at
/// the next try.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{detail}")]
pub struct StoreError {
    /// [`Next::Retry`] with a pause, or [`Next::Stop`] until a person has looked. A read model never skips.
    pub next: Next,
    /// What happened and what it means, without secrets.
    pub detail: String,
    /// The client library's error, if one caused this.
    #[source]
    pub source: Option<Arc<dyn Error + Send + Sync>>,
}

/// Equal if what happens next and the detail are; sources cannot be compared.
impl PartialEq for StoreError {
    fn eq(&self, other: &Self) -> bool {
        (self.next, &self.detail) == (other.next, &other.detail)
    }
}

impl Eq for StoreError {}

impl StoreError {
    /// A failure that a later try may overcome.
    pub fn retry(detail: impl Into<String>) -> Self {
        Self { next: Next::Retry, detail: detail.into(), source: None }
    }

    /// A failure that needs a person.
    pub fn stop(detail: impl Into<String>) -> Self {
        Self { next: Next::Stop, detail: detail.into(), source: None }
    }

    /// Keeps the error that caused this one.
    #[must_use]
    pub fn because(self, source: impl Error + Send + Sync + 'static) -> Self {
        Self { source: Some(Arc::new(source)), ..self }
    }
}
