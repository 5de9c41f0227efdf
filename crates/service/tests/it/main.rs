//! Black-box tests of what services share.
#![allow(clippy::unwrap_used, reason = "tests")]

mod audit;
mod config;
mod dropped;
mod edge;
mod host;
mod http2;
mod jwks;
mod server;
mod tls;
mod unread;
