//! Black-box tests of the write side: real TCP, the embedded engine as the log.
#![allow(clippy::unwrap_used, reason = "tests")]

mod accepted;
mod batch;
mod catalogue;
mod codings;
mod durability;
mod formats;
mod harness;
mod ids;
mod overload;
mod single;
mod slow;
