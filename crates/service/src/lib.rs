//! What every service of Millrace shares: listeners and their bounds, the HTTP server, problem documents, OpenAPI, health,
//! authentication, the admin listener, configuration, telemetry, shutdown and the supervisor.
//!
//! A connection comes in through [`net::serve`], a request through [`http::serve`], which passes it to the service's own
//! router; refusals go out as [`Problem`]. This crate depends on no log and on no store.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

pub mod admin;
mod agreed;
pub mod audit;
pub mod auth;
pub mod breaker;
pub mod config;
pub mod cors;
pub mod csv;
mod files;
pub mod health;
pub mod http;
pub mod net;
pub mod openapi;
mod run;
pub mod shutdown;
pub mod supervisor;
pub mod telemetry;
mod text;

pub use agreed::export_agreed_settings;
pub use files::{FileError, read_private};
pub use http::{Problem, spread_retry, status_of};
pub use run::ServiceContext;
pub use text::shown;
