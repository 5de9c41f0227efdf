//! Servers and processes for tests: real Apache Kafka, Redis and PostgreSQL on free ports, and the `millrace` binary
//! under test, each behind a guard that ends it when dropped.
//!
//! Also here: a TCP proxy that injects network faults, an HTTP client, a browser, an issuer of tokens, an authority of
//! certificates, checks against the OpenAPI documents, unique names and scratch folders. Nothing here depends on what Millrace counts or stores.
//!
//! Two ways to a server. [`kafka`], [`redis`] and [`postgres`] return the address of a server that all tests of the run
//! share: the one of an environment variable (`make test` sets it), else one started per test binary. [`Kafka::start`],
//! [`Redis::start`] and [`Postgres::start`] start a server for one test, to kill and restart; each has a variant with
//! TLS and a certificate of an [`Authority`].
//!
//! If a server is unavailable, a test prints `NOT RUN: …`; with `CI` set it fails. `MILLRACE_TEST_SERVERS=none` starts
//! none. A child never outlives the test process, however that ends: a watchdog shell waits until the pipe from it closes.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod api_document;
mod authority;
mod brokers;
mod browser;
mod certificates;
mod child;
mod directories;
mod http;
mod issuer;
mod kafka;
mod postgres;
mod proxy;
mod redis;
mod secure_kafka;
mod service;
mod shared;
mod wait;

pub use api_document::{ApiDocument, Exchange};
pub use authority::{Authority, Certificate, TlsStream};
pub use brokers::Brokers;
pub use browser::Browser;
pub use certificates::{CertificateFault, ServerCertificate};
pub use child::Child;
pub use directories::{repository, scratch_dir, target_dir};
pub use http::{AsyncConnection, Connection, Response, http, http_get, https, request};
pub use issuer::{SigningKey, jwk_set};
pub use kafka::Kafka;
pub use postgres::Postgres;
pub use proxy::{Link, Proxy};
pub use redis::Redis;
pub use secure_kafka::SecureKafka;
pub use service::{Service, millrace_bin};
pub use shared::{kafka, not_run, postgres, redis};
pub use wait::{free_port, unique, wait_until};
