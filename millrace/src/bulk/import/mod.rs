//! `millrace import`: every event of a file into the log once, however often the import is killed.
//!
//! The way of a line: [`lines`] cuts the input, [`records`] makes events of its lines ([`ndjson`], [`csv`], checked by
//! [`event`]), [`batch`] packs them with ids made of the file's content and the line ([`identity`]), [`sender`] brings a
//! batch to its end, and [`ledger`] writes the [`checkpoint`] once everything before it is settled. [`run`] ties them
//! together, [`dry`] only looks. What the service says of an item decides; nothing is judged here but what cannot be sent.

mod batch;
mod checkpoint;
mod csv;
mod dry;
mod event;
mod identity;
mod ledger;
mod lines;
mod ndjson;
mod records;
mod reject;
mod report;
mod run;
mod sender;
mod source;
mod stop;

pub(crate) use dry::look;
pub(crate) use records::Format;
pub(crate) use report::Report;
pub(crate) use run::{Plan, run};
pub(crate) use source::Input;
pub(crate) use stop::Stop;
