//! The stores against real servers. A test that breaks its server starts its own; the other tests share one.

#![allow(clippy::unwrap_used, reason = "tests")]

mod conformance;
mod embedded;
mod encrypted;
mod index;
mod postgres;
mod redis_faults;
mod redis_heals;
mod redis_live;
mod reference;
mod refill;
mod support;
