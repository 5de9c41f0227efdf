//! A sink: a read model that stores its own position beside its state.

use millrace_contracts::{ProjectionWrite, StoreError, Topic, WriteOutcome};

use crate::Batch;

/// A read model fed from one topic. State and position move in one atomic unit; the consumer group's offsets decide
/// nothing.
pub trait Sink: Send + 'static {
    /// The input topic.
    fn topic(&self) -> Topic;

    /// The position at which reading of a partition resumes; `None` means from the start.
    fn position(&mut self, partition: u32) -> impl Future<Output = Result<Option<u64>, StoreError>> + Send;

    /// Applies the writes, each atomically by itself; one outcome for each, in order.
    fn write(
        &mut self,
        writes: &[ProjectionWrite<'_, Batch>],
    ) -> impl Future<Output = Result<Vec<WriteOutcome>, StoreError>> + Send;
}
