//! Settings of the write side.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use millrace_service::config::{Size, Span};
use millrace_service::http::HttpLimits;
use serde::Deserialize;

use crate::Durability;

/// Settings of the write side.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where events come in.
    pub listen: SocketAddr,
    /// Where health and metrics are shown.
    pub admin: SocketAddr,
    /// How far ahead of our clock an event's timestamp may be.
    pub future_tolerance: Span,
    /// The earliest timestamp accepted, ms since the epoch.
    pub accept_from_ms: u64,
    /// Most items of a batch.
    pub batch_items: usize,
    /// The memory that the bodies of all batches under way share.
    pub body_memory: Size,
    /// What an answer waits for.
    pub durability: Durability,
    /// Whether a request may ask for [`Durability::Cached`].
    pub respond_async: bool,
    /// Bounds of the HTTP server.
    pub limits: HttpLimits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 8081).into(),
            admin: (Ipv4Addr::LOCALHOST, 9081).into(),
            future_tolerance: Span(Duration::from_mins(5)),
            accept_from_ms: 0,
            batch_items: 1_000,
            body_memory: Size(256 << 20),
            durability: Durability::Replicated,
            respond_async: false,
            limits: HttpLimits {
                // Longer than the log takes to say that it does not know.
                handler_timeout: Span(Duration::from_secs(20)),
                // Three times what is under way at the peak of a small machine: beyond it waiting gains nothing.
                in_flight: 4_096,
                ..HttpLimits::default()
            },
        }
    }
}

impl Config {
    /// What is wrong with the settings: keys below their section, and what is allowed.
    pub fn validate(&self) -> Vec<(String, String)> {
        let mut wrong: Vec<_> =
            self.limits.validate().into_iter().map(|(key, allowed)| (format!("limits.{key}"), allowed)).collect();
        if !(1..=100_000).contains(&self.batch_items) {
            wrong.push(("batch_items".into(), "must be 1 to 100000".into()));
        }
        if !(self.limits.inflated_bytes.0..=1 << 40).contains(&self.body_memory.0) {
            wrong.push(("body_memory".into(), "must be limits.inflated_bytes to 1024GiB".into()));
        }
        if self.future_tolerance.0 > Duration::from_hours(366 * 24) {
            wrong.push(("future_tolerance".into(), "must be at most 366d".into()));
        }
        if i64::try_from(self.accept_from_ms).is_err() {
            wrong.push(("accept_from_ms".into(), "must be ms since the epoch".into()));
        }
        if self.listen == self.admin && self.listen.port() != 0 {
            wrong.push(("admin".into(), "must be another address than listen".into()));
        }
        wrong
    }
}
