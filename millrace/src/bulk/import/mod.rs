//! `millrace import`: sends every event of a file once, however often the import is killed.
//!
//! The path of a line: [`lines`] splits the input, [`records`] parses events ([`ndjson`] or CSV, validated by [`event`]),
//! [`batch`] renders them with ids derived from the file's content and the line ([`identity`]), [`sender`] sends a batch until
//! every event has a final outcome, and [`ledger`] saves the [`checkpoint`], which names the log ([`destination`]). [`run`]
//! connects them, [`dry`] only checks. The service decides on an event; an import itself rejects only lines that cannot be
//! sent.

mod batch;
mod checkpoint;
mod destination;
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

pub(crate) use dry::dry_run;
pub(crate) use records::Format;
pub(crate) use report::Report;
pub(crate) use run::{Plan, run};
pub(crate) use source::Input;
pub(crate) use stop::Stop;
