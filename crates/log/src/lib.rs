//! The log port and its two engines.
//!
//! A datum comes in through [`Log::append`] and goes out through a [`Reader`], a [`Stage`] (records in; outputs, state
//! changes and input positions out in one atomic step) or a [`Sink`] (a read model that keeps its own position). Both
//! engines, `kafka` and `embedded`, keep the same promises, and one conformance suite (`tests/it`) holds them to it.
//!
//! What is in the records is not this crate's business, but for two kinds it writes itself: `pos/{p}` and `marker/{p}` in
//! a stage's topic of changes. Read models live in `millrace-store`, what is counted in `millrace-processor`.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod admin;
mod batch;
mod embedded;
mod error;
mod fault;
mod kafka;
mod log;
mod metric;
mod outcome;
mod progress;
mod restore;
mod runner;
mod sink;
mod stage;
mod step;
mod worker;

pub use admin::{PartitionInfo, TopicInfo};
pub use batch::{Batch, Limits, Record};
pub use embedded::{EmbeddedConfig, EmbeddedLog};
pub use error::LogError;
#[cfg(feature = "failpoints")]
pub use fault::arm_fail_points;
#[doc(hidden)]
pub use fault::sabotaged;
pub use kafka::{AppendAcks, KafkaConfig, KafkaLog};
pub use log::{Log, NewRecord, Polled, Reader};
pub use outcome::{Outcome, Receipts, RefusalCause};
pub use runner::{Progress, RunOptions, Status};
pub use sink::Sink;
pub use stage::{Stage, StageError};
pub use step::Step;
