//! A sink: a read model that stores its own position beside its state.

use millrace_contracts::{ProjectionPosition, ProjectionWrite, StoreError, Topic, WriteOutcome};

use crate::Batch;

/// The position of a sink's group, for tools and for a sink whose own position is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupPosition {
    /// The offset after the last record written.
    pub next_offset: u64,
    /// The copy of the read model that was written; 0 if its sink names none.
    pub copy_id: u64,
}

/// One copy of a read model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SinkCopy<'a> {
    /// The role of its sink: its consumer group.
    pub role: &'a str,
    /// See [`Sink::copy_id`].
    pub id: u64,
}

/// A read model fed from one topic. State and position move in one atomic unit; the consumer group's offsets decide
/// nothing.
pub trait Sink: Send + 'static {
    /// The input topic.
    fn topic(&self) -> Topic;

    /// The position at which reading of a partition resumes; `None` means from the start.
    /// It is refused if the log has another record before it than the one that it names.
    fn position(
        &mut self,
        partition: u32,
    ) -> impl Future<Output = Result<Option<ProjectionPosition>, StoreError>> + Send;

    /// What an operator can do if the log does not have the sink's position, as the end of a sentence: "restore ...".
    fn remedy(&self) -> String {
        String::new()
    }

    /// Names this copy of the read model. It is committed with the group's position, so that another copy does not take the
    /// position for its own. 0 for none.
    fn copy_id(&self) -> u64 {
        0
    }

    /// Applies the writes, each atomically by itself; one outcome for each, in order.
    fn write(
        &mut self,
        writes: &[ProjectionWrite<'_, Batch>],
    ) -> impl Future<Output = Result<Vec<WriteOutcome>, StoreError>> + Send;
}
