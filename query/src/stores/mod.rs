//! The read models behind one port: which of them answers, what an answer may be, and when Redis is refilled.

mod follow;
mod freshness;
mod high_water;
pub(crate) mod port;
pub(crate) mod position;
pub(crate) mod refill;
pub(crate) mod tiers;
mod wait;
