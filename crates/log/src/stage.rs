//! A stage: pure code that an engine runs exactly once over a topic.

use millrace_contracts::Topic;

use crate::{Batch, LogError, Step};

/// Why a stage cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StageError {
    /// A state change that is not what the stage writes. The partition is not started; a person has to look.
    #[error("state change {key}: {why}")]
    ForeignChange {
        /// The change's key, shortened.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// What the stage keeps aside on this machine cannot be written or read. A fresh start restores it from the log.
    #[error("{0}")]
    Unavailable(String),
}

impl From<StageError> for LogError {
    fn from(error: StageError) -> Self {
        match error {
            StageError::ForeignChange { .. } => Self::Refused(error.to_string()),
            StageError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

/// Records in; outputs and state changes out. No clock: time is the records' own. No I/O, but for state that a stage may
/// keep aside on this machine to save memory, and which the log can restore.
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
    fn load(&self, state: &mut Self::State, key: &[u8], value: &[u8]) -> Result<(), StageError>;

    /// After the changes are loaded: the input offset from which the state wants to see records again that are contained
    /// already. `None` when it needs none.
    fn replay_from(&self, _state: &Self::State) -> Option<u64> {
        None
    }

    /// Shows records from [`Stage::replay_from`] up to the position again, in order. They are not to be counted.
    fn replay(&self, _state: &mut Self::State, _batch: &Batch) {}

    /// Takes in the records of a batch and says what is to be written. A record that cannot be used is the stage's to
    /// put aside; it never stops the partition.
    fn apply(&self, state: &mut Self::State, batch: &Batch, step: &mut Step) -> Result<Self::Undo, StageError>;

    /// Takes the newest application back: the step did not happen.
    fn undo(&self, state: &mut Self::State, undo: Self::Undo);

    /// The newest application is durable: what it did may be told.
    fn committed(&self, _state: &mut Self::State, _undo: Self::Undo) {}
}
