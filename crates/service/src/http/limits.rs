//! Every bound of the HTTP server, in one table.

use std::time::Duration;

use serde::Deserialize;

use crate::config::{Size, Span};

/// Bounds of one listener.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpLimits {
    /// From the first byte of a head to its end; also from accepting a connection to its first byte.
    pub head_timeout: Span,
    /// From the end of the head to the end of the body.
    pub body_timeout: Span,
    /// Between two pieces of a body.
    pub body_idle_timeout: Span,
    /// Between two requests on one connection.
    pub idle_timeout: Span,
    /// How long a client may take no byte of an answer.
    pub write_timeout: Span,
    /// From the end of the request to the beginning of the answer.
    pub handler_timeout: Span,
    /// How long requests under way may take to finish once the server is to stop.
    pub drain_timeout: Span,
    /// Request line and header fields together.
    pub head_bytes: Size,
    /// Number of header fields.
    pub header_count: usize,
    /// The request target.
    pub uri_bytes: Size,
    /// A body as it is on the wire.
    pub body_bytes: Size,
    /// A body after decompression.
    pub inflated_bytes: Size,
    /// Open connections.
    pub connections: usize,
    /// Open connections of one peer address; 0 for no bound (all clients share an address behind a balancer).
    pub connections_per_ip: usize,
    /// Requests without a body being answered. Those with one are bounded by what their bodies hold.
    pub in_flight: usize,
    /// Requests a second of one peer address; 0 for no bound. Bursts of as many pass.
    pub requests_per_ip: u32,
    /// Concurrent HTTP/2 streams of a connection.
    pub h2_streams: u32,
    /// HTTP/2 streams a client may reset before they were accepted.
    pub h2_resets: usize,
}

const fn seconds(n: u64) -> Span {
    Span(Duration::from_secs(n))
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            head_timeout: seconds(10),
            body_timeout: seconds(30),
            body_idle_timeout: seconds(10),
            idle_timeout: seconds(60),
            write_timeout: seconds(10),
            handler_timeout: seconds(10),
            drain_timeout: seconds(10),
            head_bytes: Size(16 << 10),
            header_count: 64,
            uri_bytes: Size(8 << 10),
            body_bytes: Size(1 << 20),
            inflated_bytes: Size(4 << 20),
            connections: 16_384,
            connections_per_ip: 0,
            in_flight: 16_384,
            requests_per_ip: 0,
            h2_streams: 100,
            h2_resets: 20,
        }
    }
}

impl HttpLimits {
    /// What is wrong with the settings: keys below their section, and what is allowed.
    pub fn validate(&self) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        let mut check = |good: bool, key: &str, allowed: &str| {
            if !good {
                wrong.push((key.to_owned(), allowed.to_owned()));
            }
        };
        check(self.connections > 0, "connections", "must be at least 1");
        check(self.in_flight > 0, "in_flight", "must be at least 1");
        check((1..=256).contains(&self.header_count), "header_count", "must be 1 to 256");
        check((1 << 10..=256 << 10).contains(&self.head_bytes.0), "head_bytes", "must be 1KiB to 256KiB");
        check((256..=self.head_bytes.0).contains(&self.uri_bytes.0), "uri_bytes", "must be 256B to head_bytes");
        check(self.body_bytes.0 <= 1 << 30, "body_bytes", "must be at most 1GiB");
        let inflated = self.body_bytes.0..=4 << 30;
        check(inflated.contains(&self.inflated_bytes.0), "inflated_bytes", "must be body_bytes to 4GiB");
        check(self.h2_streams > 0, "h2_streams", "must be at least 1");
        wrong
    }

    /// The longest request target.
    pub(super) fn max_target(&self) -> usize {
        usize::try_from(self.uri_bytes.0).unwrap_or(usize::MAX)
    }

    /// The longest head.
    pub(super) fn head_limit(&self) -> usize {
        usize::try_from(self.head_bytes.0).unwrap_or(usize::MAX)
    }

    /// hyper's buffers: larger than a head, so that a body needs few reads.
    pub(super) fn buffer_limit(&self) -> usize {
        self.head_limit().saturating_mul(2).max(64 << 10)
    }
}
