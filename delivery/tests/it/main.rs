//! Coordinators over a real log, called directly.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod consent;
mod dropped;
mod explain;
mod fixture;
mod leases;
mod messages;
mod sample;
mod schedule;
