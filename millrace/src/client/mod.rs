//! The HTTP/1.1 client of the tools: load, import, export, and whatever sends requests to a running process.
//!
//! A request goes in as an [`http::Request`] with a path, a [`Response`] comes out, or an [`ExchangeError`] that states whether
//! the service may have processed the request. What a response means for an event is in [`verdict`].

mod connection;
mod key;
mod response;
mod server;
mod target;
pub(crate) mod verdict;

pub(crate) use connection::{Connection, ExchangeError, Request};
pub(crate) use key::{KeySource, first_line};
pub(crate) use response::Response;
pub(crate) use server::Server;
pub(crate) use target::{Access, Target, reachable};
pub(crate) use verdict::Verdict;
