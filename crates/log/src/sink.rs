//! A sink: a read model that keeps its own position beside its state.

use millrace_contracts::{Next, Topic};

use crate::Batch;

/// One partition's part of a write.
#[derive(Debug)]
pub struct SinkStep<'a> {
    /// The records; empty when only `caught_up` is news.
    pub batch: &'a Batch,
    /// Where the sink stands, as it said last; `None` before the first write of a rebuild.
    pub expected: Option<u64>,
    /// Where it stands once this is written.
    pub next: u64,
    /// Whether everything that was readable when reading reached this point is contained: the log itself said so.
    pub caught_up: bool,
}

/// What became of one [`SinkStep`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// State and position moved, together.
    Moved,
    /// Nothing was written: the sink stands elsewhere (`None`: nowhere, it was emptied). Reading goes on from there.
    Elsewhere(Option<u64>),
}

/// A failed write or look at the position. Nothing of the step that failed is applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct SinkError {
    /// Retry with a pause, or stop; a sink never skips.
    pub next: Next,
    /// What went wrong.
    pub why: String,
}

/// A read model fed from one topic. State and position move in one atomic unit; the consumer group's offsets decide
/// nothing.
pub trait Sink: Send + 'static {
    /// The topic read.
    fn topic(&self) -> Topic;

    /// Where reading of a partition goes on; `None` means from the start.
    fn position(&mut self, partition: u32) -> impl Future<Output = Result<Option<u64>, SinkError>> + Send;

    /// Applies the steps, each atomically by itself, one result for each in order.
    fn write(&mut self, steps: &[SinkStep<'_>]) -> impl Future<Output = Result<Vec<Written>, SinkError>> + Send;
}
