//! Servers and processes for tests: real Apache Kafka, Redis and PostgreSQL on free ports, and the `millrace` binary
//! under test, each behind a guard that ends it when dropped.
//!
//! What lives here: starting, killing, freezing and restarting child processes; finding out that they are ready; a proxy
//! that breaks a link between two of them; random names and folders. What does not: anything that knows what Millrace counts or stores.
//!
//! Two ways to a server. [`kafka`], [`redis`] and [`postgres`] give the address of one that all tests of the run share:
//! the one that an environment variable names (`make test` sets them), else one started here, once per test binary.
//! [`Kafka::start`], [`Redis::start`] and [`Postgres::start`] give a server of the test's own, to kill and restart.
//!
//! A server that cannot be had is said loudly, `NOT RUN: …`; with `CI` set it is a failure.
//! `MILLRACE_TEST_SERVERS=none` has none started. A child never outlives the
//! test process, however that ends: a small watchdog shell waits for the pipe from it to close.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod api_document;
mod brokers;
mod browser;
mod child;
mod directories;
mod http;
mod kafka;
mod postgres;
mod proxy;
mod redis;
mod service;
mod shared;
mod wait;

pub use api_document::{ApiDocument, Exchange};
pub use brokers::Brokers;
pub use browser::Browser;
pub use child::Child;
pub use directories::{repository, scratch_dir, target_dir};
pub use http::{AsyncConnection, Connection, Response, http, http_get, request};
pub use kafka::Kafka;
pub use postgres::Postgres;
pub use proxy::{Link, Proxy};
pub use redis::Redis;
pub use service::{Service, millrace_bin};
pub use shared::{kafka, not_run, postgres, redis};
pub use wait::{free_port, unique, wait_until};
