//! `millrace export`: the counts of a time range, as CSV, JSON or NDJSON.
//!
//! A request has a bounded number of hours, so a long range is split into pieces ([`span`]); each is read completely ([`fetch`])
//! and then written ([`rows`]), as the service itself would write the whole range. Only the totals of the pieces are added up.

mod fetch;
mod output;
mod rows;
mod run;
mod span;
mod stop;

pub(crate) use fetch::Source;
pub(crate) use rows::Format;
pub(crate) use run::{Plan, run};
pub(crate) use span::Step;
pub(crate) use stop::Stop;
