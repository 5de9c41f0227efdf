//! The processor: events in, hourly counts out, exactly once.
//!
//! [`Counting`] is the pure part: what is counted, how it is taken back, how it is restored. It knows neither Kafka nor a
//! clock. [`run`] hands it to the log, which owns polling, partitions, transactions and restore. Records come from
//! `analytics.events`; counts go to `analytics.hourly`, changes of the state to `analytics.state`.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod counting;
mod hours;
mod metric;
mod run;

pub use counting::{Counting, PartitionState, Undo};
pub use metric::describe_metrics;
pub use run::{Config, run};
