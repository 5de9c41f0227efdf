//! The materializer: projects `analytics.hourly` into the read models, Redis and the archive.
//!
//! A datum comes in as a batch of records of one partition, is folded to the newest count of each hour (`fold`), and goes
//! out as one write of counts and position to a store ([`HourlySink`]). [`run`] hands one sink for each store to the log,
//! which owns polling and partitions. The stores are independent: one that is away holds back nobody but itself.
//!
//! Beside the projections, `refill` reads `analytics.refill`: a reader found an older hour in the archive only, and it is put
//! into Redis for a while.
//!
//! How a store keeps its promise is `millrace-store`'s business; nothing is counted here, and nothing is true here that is
//! not in the log: any store may be emptied and is built again.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod config;
mod fold;
pub mod journal;
mod projection;
mod refill;
mod run;
mod sink;
mod standing;

pub use config::Config;
pub use run::{Views, run};
pub use sink::HourlySink;
pub use standing::Standing;
