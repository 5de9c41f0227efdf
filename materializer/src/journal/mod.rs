//! The journal file: every message of TCP intake once, in one sequence of segments on a local disk.
//!
//! Records come from `intake.journal`, which has one partition, so its order is the file's. A record's number is its
//! offset there. A batch is written and synced, then the sidecar moves to its end; after a crash the files are cut back to
//! the sidecar's position, and reading goes on from there. So the files hold each record once, whatever stops the writer.
//!
//! [`Journal`] writes, [`JournalReader`] reads without disturbing it, [`verify`] checks every byte.

mod config;
mod directory;
mod error;
mod format;
mod index;
mod reader;
mod run;
mod segment;
mod sidecar;
mod sink;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

pub use config::JournalConfig;
pub use error::JournalError;
pub use format::{Entry, Format};
pub use reader::{From, JournalReader};
pub use run::{role, run};
pub use sidecar::Position;
pub use sink::REMEDY;
pub use verify::{Verification, verify};
pub use writer::Journal;
