//! What every crate of Millrace may use: the wall clock, durations and sizes as text, bounds of settings, limits that
//! several services must agree on, backoff.
//!
//! Nothing here does I/O, and nothing here knows the log, HTTP or what is counted. A type belongs here only if two crates
//! that may not depend on each other need it.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod backoff;
pub mod bounds;
mod clock;
pub mod limits;
mod units;

pub use backoff::Backoff;
pub use bounds::{Bounds, Violation};
pub use clock::Clock;
pub use units::{Size, Span};
