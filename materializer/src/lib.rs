//! The materializer: projects `analytics.hourly` into the read models, Redis and the archive.
//!
//! A batch of records of one partition is folded to the newest count of each hour (`fold`), and written to a store together
//! with the position ([`HourlySink`]). [`run`] passes one sink per store to the log, which owns polling and partitions. The
//! stores are independent: an unavailable store delays only itself.
//!
//! In addition, `refill` reads `analytics.refill`: requests of readers that found an older hour in the archive only, to fill
//! it into Redis for a while.
//!
//! `index` writes where in `messages` the messages of each API topic are, for subscriptions that lag.
//!
//! [`journal`] writes the journal file of TCP intake.
//!
//! `millrace-store` implements the stores. This crate counts nothing and owns no data: any store may be emptied, and the log
//! rebuilds it.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod config;
mod fold;
mod index;
pub mod journal;
mod pace;
mod probe;
mod projection;
mod refill;
mod run;
mod sink;

pub use config::Config;
pub use probe::ConfirmedPositions;
pub use run::{Views, run};
pub use sink::{HourlySink, remedy};
