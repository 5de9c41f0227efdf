//! A sink: a read model that keeps its own position beside its state.

use millrace_contracts::{ProjectionWrite, StoreError, Topic, WriteOutcome};

use crate::Batch;

/// A read model fed from one topic. State and position move in one atomic unit; the consumer group's offsets decide
/// nothing.
pub trait Sink: Send + 'static {
    /// The topic read.
    fn topic(&self) -> Topic;

    /// Where reading of a partition goes on; `None` means from the start.
    fn position(&mut self, partition: u32) -> impl Future<Output = Result<Option<u64>, StoreError>> + Send;

    /// Applies the steps, each atomically by itself, one result for each in order.
    fn write(
        &mut self,
        steps: &[ProjectionWrite<'_, Batch>],
    ) -> impl Future<Output = Result<Vec<WriteOutcome>, StoreError>> + Send;
}
