//! A stage: pure code that an engine runs exactly once over a topic.

use millrace_contracts::Topic;

use crate::{Batch, Step};

/// A state change that is not what the stage writes. The partition is not started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("state change {key}: {why}")]
pub struct LoadError {
    /// The change's key, shortened.
    pub key: String,
    /// What is wrong with it.
    pub why: String,
}

/// Records in; outputs and state changes out. No I/O, no clock: time is the records' own.
///
/// The engine persists outputs, changes and the input position in one atomic step, and nothing else. After a crash or a
/// move it makes a new state, loads every surviving change, and goes on at the position that was written with them.
pub trait Stage: Send + Sync + 'static {
    /// What the stage remembers of one partition.
    type State: Send;
    /// What takes one application back.
    type Undo: Send;

    /// The topic read.
    fn input(&self) -> Topic;

    /// The topic of state changes; it has as many partitions as the input.
    fn changes(&self) -> Topic;

    /// The state of a partition that nothing was counted in.
    fn new_state(&self, partition: u32) -> Self::State;

    /// Takes up one surviving change. Changes come in no particular order, at least once, only the newest of a key for
    /// certain.
    fn load(&self, state: &mut Self::State, key: &[u8], value: &[u8]) -> Result<(), LoadError>;

    /// Takes in the records of a batch and says what is to be written. A record that cannot be used is the stage's to
    /// put aside; it never stops the partition.
    fn apply(&self, state: &mut Self::State, batch: &Batch, step: &mut Step) -> Self::Undo;

    /// Takes the newest application back: the step did not happen.
    fn undo(&self, state: &mut Self::State, undo: Self::Undo);
}
