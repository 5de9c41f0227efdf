//! `millrace export`: the counts of a span of time, as CSV, JSON or NDJSON.
//!
//! The service answers for a bounded number of hours at once, so a long span is asked for in pieces ([`span`]), each read
//! whole ([`fetch`]) and then written ([`rows`]), as the service itself would write the span if it took it at once. Nothing
//! is added up here but the totals of the pieces.

mod fetch;
mod output;
mod rows;
mod run;
mod span;
mod stop;

pub(crate) use fetch::Source;
pub(crate) use rows::Format;
pub(crate) use run::{Plan, run};
pub(crate) use span::{Step, time};
pub(crate) use stop::Stop;
