//! `millrace load`: sends events over many connections, then checks the three numbers of every hour.
//!
//! The events are a pure function of the seed ([`generator`]); the [`oracle`] computes the expected numbers and shares no code
//! with the processor, not even its arithmetic of hours. [`sender`] sends and sorts outcomes as the API defines them:
//! acknowledged, rejected, unknown. With ids an event counts once, however often it is sent. Nothing here depends on how
//! events are counted.

mod duplicate;
mod exchange;
mod generator;
mod latency;
mod oracle;
mod plan;
mod progress;
mod render;
mod report;
mod run;
mod sender;
mod tally;
mod verify;

pub(crate) use generator::{Shape, Times};
pub(crate) use plan::Plan;
pub(crate) use run::run;
