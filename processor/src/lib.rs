//! The processor: consumes events, produces hourly counts, exactly once.
//!
//! [`Counting`] is the pure part: it counts, undoes an aborted step and restores its state, without Kafka and without a
//! clock. [`run`] passes it to the log, which owns polling, partitions, transactions and restore. Records come from
//! `analytics.events`; counts go to `analytics.hourly`, quarantined records to `analytics.late`, changes of the state to
//! `analytics.state`.
//!
//! Every decision that affects a count (which event is a duplicate, when a sketch replaces a set) is a function of the log
//! alone. Where the users are (memory or disk) and how they are written (deltas or snapshots) affects no count.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod bounds;
mod changelog;
mod config;
mod counter;
mod counting;
mod dedup;
mod disagreement;
mod hour;
pub mod intake;
mod partition;
mod partition_hasher;
mod quarantine;
mod registers;
mod run;
mod scratch;
mod sorted_run;
mod stats;
mod usage;
mod user_set;
mod users;

pub use bounds::CountingBounds;
pub use config::Config;
pub use counting::{Counting, Undo};
pub use partition::PartitionState;
pub use run::run;
pub use stats::StepStats;
