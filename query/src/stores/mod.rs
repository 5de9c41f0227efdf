//! The read models behind one port: which of them answers, what an answer may be, and when Redis is refilled.

mod high_water;
pub(crate) mod port;
pub(crate) mod refill;
pub(crate) mod tiers;
