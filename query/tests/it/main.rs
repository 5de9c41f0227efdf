//! The query service over TCP, on a free port, with fake read models or real ones.
#![allow(clippy::unwrap_used, reason = "tests")]

mod analytics;
mod current;
mod embedded;
mod errors;
mod freshness;
mod harness;
mod live;
mod range;
mod registry;
mod stores;
mod tiers;
