//! The query service as its clients see it: over TCP, on a port of its own, with read models that do as they are told.
#![allow(clippy::unwrap_used, reason = "tests")]

mod analytics;
mod current;
mod embedded;
mod errors;
mod harness;
mod live;
mod range;
mod registry;
mod stores;
mod tiers;
