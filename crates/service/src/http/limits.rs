//! Every bound of the HTTP server, in one table.

use millrace_base::{Bounds, Size, Span, Violation};
use serde::Deserialize;

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
    /// Longest time without progress of a response, because the client does not read.
    pub write_timeout: Span,
    /// From the end of the request to the beginning of the response.
    pub handler_timeout: Span,
    /// How long requests under way may take to finish after a stop.
    pub drain_timeout: Span,
    /// Request line and header fields together.
    pub max_head_bytes: Size,
    /// Number of header fields.
    pub max_headers: usize,
    /// The request target.
    pub max_uri_bytes: Size,
    /// A body as it is on the wire.
    pub max_body_bytes: Size,
    /// A body after decompression and conversion to UTF-8.
    pub max_inflated_bytes: Size,
    /// Open connections.
    pub max_connections: usize,
    /// Open connections of one peer address; 0 for no bound (all clients share an address behind a balancer).
    pub max_connections_per_ip: usize,
    /// Requests under way without a body. Those with a body are bounded by the memory of their bodies.
    pub max_in_flight: usize,
    /// Requests a second of one peer address; 0 for no bound. Bursts of as many pass.
    pub max_request_rate_per_ip: u32,
    /// Concurrent HTTP/2 streams of a connection.
    pub h2_max_streams: u32,
    /// HTTP/2 streams that a client may reset before they are accepted.
    pub h2_max_pending_resets: usize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            head_timeout: Span::from_secs(10),
            body_timeout: Span::from_secs(30),
            body_idle_timeout: Span::from_secs(10),
            idle_timeout: Span::from_secs(60),
            write_timeout: Span::from_secs(10),
            handler_timeout: Span::from_secs(10),
            drain_timeout: Span::from_secs(10),
            max_head_bytes: Size(16 << 10),
            max_headers: 64,
            max_uri_bytes: Size(8 << 10),
            max_body_bytes: Size(1 << 20),
            max_inflated_bytes: Size(4 << 20),
            max_connections: 16_384,
            max_connections_per_ip: 0,
            max_in_flight: 16_384,
            max_request_rate_per_ip: 0,
            h2_max_streams: 100,
            h2_max_pending_resets: 20,
        }
    }
}

impl HttpLimits {
    /// Every setting outside its bounds.
    pub fn validate(&self) -> Vec<Violation> {
        let timeout = Span::from_millis(1)..=Span::from_secs(86_400);
        let mut bounds = Bounds::new();
        bounds
            .range("head_timeout", &self.head_timeout, &timeout)
            .range("body_timeout", &self.body_timeout, &timeout)
            .range("body_idle_timeout", &self.body_idle_timeout, &timeout)
            .range("idle_timeout", &self.idle_timeout, &timeout)
            .range("write_timeout", &self.write_timeout, &timeout)
            .range("handler_timeout", &self.handler_timeout, &timeout)
            .range("drain_timeout", &self.drain_timeout, &timeout)
            .range("max_head_bytes", &self.max_head_bytes, &(Size::from_kib(1)..=Size::from_kib(256)))
            .range("max_headers", &self.max_headers, &(1..=256))
            .range("max_uri_bytes", &self.max_uri_bytes, &(Size(256)..=self.max_head_bytes))
            .range("max_body_bytes", &self.max_body_bytes, &(Size(1)..=Size::from_gib(1)))
            .range("max_inflated_bytes", &self.max_inflated_bytes, &(self.max_body_bytes..=Size::from_gib(4)))
            .check(self.max_connections > 0, "max_connections", "1..")
            .check(self.max_in_flight > 0, "max_in_flight", "1..")
            .check(self.h2_max_streams > 0, "h2_max_streams", "1..");
        bounds.into_violations()
    }

    /// The longest request target.
    pub(super) fn max_target(&self) -> usize {
        self.max_uri_bytes.as_usize()
    }

    /// The longest head.
    pub(super) fn head_limit(&self) -> usize {
        self.max_head_bytes.as_usize()
    }

    /// hyper's buffers: larger than a head, so that a body needs few reads.
    pub(super) fn buffer_limit(&self) -> usize {
        self.head_limit().saturating_mul(2).max(64 << 10)
    }
}
