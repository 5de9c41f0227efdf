//! Topics, subscriptions and messages through the API of the write side: the tools `topic`, `subscription`, `publish` and
//! `consume`.

mod consume;
mod message;
mod path;
mod service;
mod table;

pub(crate) use consume::Consumer;
pub(crate) use path::{Path, encoded};
pub(crate) use service::{Answer, Call, Failure, Service};
pub(crate) use table::{members, table};
