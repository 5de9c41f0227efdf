//! A stage: pure code that an engine runs over a topic, exactly once.

use std::error::Error;

use millrace_contracts::Topic;

use crate::{Batch, Failure, LogError, Step};

/// The reason why a stage cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StageError {
    /// A state change that this stage does not write. Its partition does not start; a person has to look.
    #[error("state change {key}: {why}")]
    ForeignChange {
        /// The change's key, shortened.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// A record of the input that counts and that this version cannot read: skipping it would lose it. Its partition stops; a
    /// person has to look.
    #[error("{record}: {why}")]
    ForeignRecord {
        /// Topic, partition and offset.
        record: String,
        /// What is wrong with it.
        why: String,
    },
    /// A state change under a key that is reserved for the runner ([`RunnerKey`](crate::RunnerKey)): a defect of the
    /// stage.
    #[error("state change {key}: the prefix of this key is reserved for the runner")]
    ReservedKey {
        /// The change's key, shortened.
        key: String,
    },
    /// The stage's local scratch state is unreadable or unwritable. A fresh start restores it from the log.
    #[error(transparent)]
    Unavailable(Failure),
}

impl StageError {
    /// A failure of local scratch state.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::Unavailable(Failure::new(detail))
    }

    /// Keeps the error that caused this one, if this is [`StageError::Unavailable`].
    #[must_use]
    pub fn because(self, source: impl Error + Send + Sync + 'static) -> Self {
        match self {
            Self::Unavailable(failure) => Self::Unavailable(failure.because(source)),
            other => other,
        }
    }
}

impl From<StageError> for LogError {
    fn from(error: StageError) -> Self {
        match error {
            StageError::ForeignChange { .. } | StageError::ForeignRecord { .. } | StageError::ReservedKey { .. } => {
                Self::refused(error.to_string()).because(error)
            }
            StageError::Unavailable(failure) => Self::Unavailable(failure),
        }
    }
}

/// Records in; outputs and state changes out. A stage has no clock (time is the records' timestamps) and does no I/O,
/// except for scratch state on this machine that saves memory and that the log can restore.
///
/// The engine persists outputs, changes and the input position in one atomic step, and nothing else. After a crash or a
/// rebalance it makes a new state, loads every surviving change, and resumes at the position written with them.
pub trait Stage: Send + Sync + 'static {
    /// The state of one partition.
    type State: Send;
    /// Reverts one application.
    type Undo: Send;

    /// The input topic.
    fn input(&self) -> Topic;

    /// The topic of state changes; it has as many partitions as the input.
    fn changes(&self) -> Topic;

    /// Every other topic that the stage writes: partition p from partition p of the input, or its only partition.
    fn outputs(&self) -> &'static [Topic];

    /// The state of a partition without any record.
    fn new_state(&self, partition: u32) -> Self::State;

    /// Loads one surviving change. Changes of one key come in the order they were written, only the newest is certain to
    /// come, and none that was deleted later; changes of different keys come in any order.
    fn load(&self, state: &mut Self::State, key: &[u8], value: &[u8]) -> Result<(), StageError>;

    /// The input offset from which the state needs a replay of records that it already contains; `None` if it needs
    /// none. Called after the changes are loaded.
    fn replay_from(&self, _state: &Self::State) -> Option<u64> {
        None
    }

    /// Replays records from [`Stage::replay_from`] up to the position, in order. They are contained: do not count them.
    fn replay(&self, _state: &mut Self::State, _batch: &Batch) {}

    /// Called once the state is restored: from here on this process owns the partition, until the state is dropped.
    fn restored(&self, _state: &mut Self::State) {}

    /// Applies a batch and puts outputs and changes into `step`. The stage quarantines a record that it cannot use: no
    /// record stops the partition.
    fn apply(&self, state: &mut Self::State, batch: &Batch, step: &mut Step) -> Result<Self::Undo, StageError>;

    /// Reverts the newest application: its step did not commit.
    fn undo(&self, state: &mut Self::State, undo: Self::Undo);

    /// Called once the newest application is durable: its effects may be reported.
    fn committed(&self, _state: &mut Self::State, _undo: Self::Undo) {}
}
