//! Messages of TCP intake: records of `intake`, `intake.journal` and `intake.state`.

mod key;
mod message;
mod state;

pub use key::IntakeKey;
pub use message::{IntakeMessage, JournalRecord, Sender};
pub use state::{ClientRanges, IntakeProgress, SeqRange, Series};
