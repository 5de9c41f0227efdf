//! The materializer between a real log and real stores.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod index;
mod refill;
mod run;
mod sink;
mod slow;
mod stack;
