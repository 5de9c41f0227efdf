//! The binary from the outside: `up` on the embedded engine, and the tools beside it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod audit;
mod auth;
mod auth_tools;
mod bulk;
mod certificates;
mod cluster;
mod documents;
mod durability;
mod faults;
mod freshness;
mod hostile;
mod jwt;
mod kafka;
mod legacy;
mod limits;
mod load;
mod memory;
mod messaging;
mod metrics;
mod openapi;
mod ownership;
mod page;
mod pictures;
mod push;
mod run;
mod scale;
mod secrets;
mod settings;
mod tcp;
mod tools;
mod topics;
mod topics_page;
mod up;
mod views;
