//! Looking into the log: what `topics` and `tail` show, on either engine.
//!
//! Kafka is asked directly. The embedded engine's directory belongs to one process, so a running one answers for it on
//! its admin listener ([`server`]), and the tools open the directory themselves only when none runs ([`source`]).

mod decode;
mod remote;
mod server;
mod source;
mod tail;
mod topics;

pub(crate) use decode::Line;
pub(crate) use remote::{Remote, RemoteError};
pub(crate) use server::router;
pub(crate) use source::Source;
pub(crate) use tail::{From, TailRequest};
pub(crate) use topics::{TopicLine, declared};
