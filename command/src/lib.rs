//! The command service, the write side: takes events over HTTP, validates them, appends them to the log, and answers when
//! they are durable.
//!
//! An event comes in as a query string or as an item of a body (`analytics`) and goes out as a record of
//! `analytics.events` (`intake`). The answer is 204 only after the log's report; what a 202 waits for is in
//! `intake/durability`. Messages come in over TCP (`tcp`) and go out as records of `intake`. `topics` has the routes of
//! topics and subscriptions: publishes go out as records of `messages`, all else to a coordinator. Nothing is counted or
//! read here.
//! `page` is for people: topics and their subscriptions in a browser, beside the API that it uses.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod analytics;
mod app;
mod config;
mod intake;
mod log_id;
mod metrics;
mod page;
mod router;
pub mod tcp;
mod topics;

pub use config::Config;
pub use intake::Durability;
pub use router::{router, run};
pub use topics::{Forwarder, LegacyConfig, NoCoordinator, TopicsConfig};
