//! The write side: events in over HTTP, validated, appended to the log, answered when they are durable.
//!
//! A datum comes in as a query string (`single`, `pixel`) or as an item of a body (`batch`, `item`), becomes an event in
//! `event`, with an id of its client if it has one (`ids`), and goes out as a record of `analytics.events` in `append`. 204
//! is said only after the log's report; what a 202 waits for is in `durability`. Nothing is counted or read here.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod append;
mod batch;
mod clock;
mod config;
mod durability;
mod event;
mod ids;
mod item;
mod metrics;
mod openapi;
mod pixel;
mod query;
mod router;
mod single;

pub use clock::{Clock, system_clock};
pub use config::Config;
pub use durability::Durability;
pub use router::{Error, router, run};
