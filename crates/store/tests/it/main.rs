//! The stores against real servers. Servers that tests break are of their own; the others are shared by the run.

#![allow(clippy::unwrap_used, reason = "tests")]

mod conformance;
mod embedded;
mod older;
mod postgres;
mod redis_faults;
mod redis_heals;
mod redis_live;
mod reference;
mod support;
