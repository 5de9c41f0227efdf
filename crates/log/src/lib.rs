//! The log port and its two engines, `kafka` and `embedded`.
//!
//! Records enter by [`Log::append`] and leave by a [`Reader`], a [`Stage`] (records in; outputs, state changes and
//! input positions out in one atomic step) or a [`Sink`] (a read model that stores its own position). Both engines give
//! the same guarantees; one conformance suite (`tests/it`) checks both.
//!
//! This crate does not interpret records, except for the two kinds that the runner itself writes into a stage's topic
//! of changes ([`RunnerKey`]). Read models are in `millrace-store`, the counting in `millrace-processor`.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod admin;
mod batch;
mod embedded;
mod error;
mod fault;
#[cfg(test)]
mod isolation_tests;
mod kafka;
mod key;
mod log;
mod metric;
mod outcome;
mod producers;
mod progress;
mod restore;
mod restoring;
mod resume;
mod runner;
mod sink;
mod stage;
mod step;
mod topics;
mod worker;

pub use admin::{PartitionInfo, TopicInfo};
pub use batch::{Batch, Fetched, Limits, PollOutcome, Record};
pub use embedded::{EmbeddedConfig, EmbeddedLog};
pub use error::{Failure, LogError};
#[cfg(feature = "failpoints")]
pub use fault::arm_fail_points;
#[doc(hidden)]
pub use fault::{point, sabotaged};
pub use kafka::{AppendAcks, KafkaConfig, KafkaLog, Properties};
pub use key::RunnerKey;
pub use log::{Log, NewRecord, Reader};
pub use outcome::{Outcome, Receipts, RefusalCause};
pub use runner::{Progress, RunOptions, Status};
pub use sink::{GroupPosition, Sink, SinkCopy};
pub use stage::{Stage, StageError};
pub use step::Step;
