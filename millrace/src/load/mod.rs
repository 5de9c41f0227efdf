//! `millrace load`: sends events from many connections and says whether every hour's three numbers are right.
//!
//! What is sent is a pure function of the seed ([`generator`]); what must come out is kept by an [`oracle`] that shares no
//! code with the processor, not even its arithmetic of hours. Outcomes are sorted as the API means them ([`answer`]):
//! acknowledged, refused, unknown. With ids an event is one event however often it is sent, and counts once. Nothing here knows how events are counted.

mod answer;
mod client;
mod exchange;
mod generator;
mod latency;
mod oracle;
mod progress;
mod render;
mod report;
mod run;
mod sender;
mod target;
mod twin;
mod verify;

pub(crate) use answer::{Verdict, of_item, of_request};
pub(crate) use client::{Connection, Lost};
pub(crate) use generator::Shape;
pub(crate) use run::{Plan, run};
pub(crate) use target::Target;
