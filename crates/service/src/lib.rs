//! What every service of Millrace shares: the HTTP server with its limits, problem documents, OpenAPI, health, the admin
//! listener, configuration, telemetry, shutdown and the supervisor.
//!
//! A request comes in through [`http::serve`] and goes to the service's own router; what ends badly goes out as a
//! [`Problem`]. What is counted, stored or read is not this crate's business, and it knows no log and no store.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

pub mod admin;
mod codes;
pub mod config;
pub mod health;
pub mod http;
pub mod openapi;
mod problem;
pub mod shutdown;
pub mod supervisor;
pub mod telemetry;
mod text;

pub use codes::status_of;
pub use problem::Problem;
pub use text::shown;
