//! The processor: events in, hourly counts out, exactly once.
//!
//! [`Counting`] is the pure part: what is counted, how it is taken back, how it is restored. It knows neither Kafka nor a
//! clock. [`run`] hands it to the log, which owns polling, partitions, transactions and restore. Records come from
//! `analytics.events`; counts go to `analytics.hourly`, what is not counted to `analytics.late`, changes of the state to
//! `analytics.state`.
//!
//! Every decision that shows in an answer (what is a duplicate, when a set becomes a sketch) is a function of the log
//! alone. Where users are kept (memory or disk) and how they are written (deltas or snapshots) shows in none.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod config;
mod counting;
mod hours;
mod ids;
mod kept;
mod memory;
mod park;
mod partition;
mod run;
mod scratch;
mod set;
mod sketch;
mod sorted;
mod users;

pub use config::{Bounds, Config};
pub use counting::{Counting, Told, Undo};
pub use partition::PartitionState;
pub use run::run;
