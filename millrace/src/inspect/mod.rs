//! Inspection of the log: `topics` and `tail`, on either engine.
//!
//! With Kafka the tools read the log directly. The embedded directory belongs to one process, so a running one serves it on its
//! admin listener ([`server`]), and the tools open the directory themselves only if none runs ([`source`]).

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
