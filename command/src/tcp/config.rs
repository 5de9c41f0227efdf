//! Settings of the TCP listener.

use std::net::{Ipv4Addr, SocketAddr};

use millrace_base::{Bounds, Size, Span, Violation};
use serde::Deserialize;

use super::reply::Announced;
use super::session::SessionLimits;

/// Settings of the TCP listener. `millrace/default.toml` documents each.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TcpConfig {
    /// Whether messages are taken over TCP.
    pub enabled: bool,
    /// Address of the listener.
    pub listen: SocketAddr,
    /// Whether connections begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Most bytes of a message.
    pub max_message_bytes: Size,
    /// Names of the journals that intake waits for when they lag.
    pub journals: Vec<String>,
    /// Bounds of connections.
    pub limits: TcpLimits,
}

/// Bounds of the TCP listener.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TcpLimits {
    /// Open connections.
    pub max_connections: usize,
    /// Open connections of one address; 0 for no bound.
    pub max_connections_per_ip: usize,
    /// Frames of a connection without an answer; then reading stops.
    pub max_in_flight: usize,
    /// Payload bytes of a connection under way; then reading stops.
    pub max_in_flight_bytes: Size,
    /// Replies that a connection does not take; then reading stops.
    pub max_reply_bytes: Size,
    /// How long a connection may be idle.
    pub idle_timeout: Span,
    /// How long a frame may take to arrive.
    pub frame_timeout: Span,
    /// How long a connection may take no replies.
    pub write_timeout: Span,
    /// How long connections may take to finish at shutdown.
    pub drain_timeout: Span,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: (Ipv4Addr::LOCALHOST, 8084).into(),
            proxy_protocol: false,
            max_message_bytes: Size(256),
            journals: vec!["main".into()],
            limits: TcpLimits::default(),
        }
    }
}

impl Default for TcpLimits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_connections_per_ip: 0,
            max_in_flight: 1_024,
            max_in_flight_bytes: Size::from_kib(256),
            max_reply_bytes: Size::from_kib(256),
            idle_timeout: Span::from_secs(60),
            frame_timeout: Span::from_secs(10),
            write_timeout: Span::from_secs(10),
            drain_timeout: Span::from_secs(10),
        }
    }
}

impl TcpConfig {
    /// Settings outside their bounds.
    pub fn validate(&self) -> Vec<Violation> {
        let mut bounds = Bounds::new();
        bounds.range("max_message_bytes", &self.max_message_bytes, &(Size(1)..=Size::from_mib(1)));
        let mut limits = Bounds::new();
        let TcpLimits { max_connections, max_in_flight, .. } = self.limits;
        let kib = Size::from_kib(1)..=Size::from_mib(64);
        let (second, day) = (Span::from_secs(1), Span::from_secs(86_400));
        limits
            .range("max_connections", &max_connections, &(1..=1_000_000))
            .range("max_in_flight", &max_in_flight, &(1..=65_536))
            .range("max_in_flight_bytes", &self.limits.max_in_flight_bytes, &kib)
            .range("max_reply_bytes", &self.limits.max_reply_bytes, &kib)
            .range("idle_timeout", &self.limits.idle_timeout, &(second..=day))
            .range("frame_timeout", &self.limits.frame_timeout, &(second..=day))
            .range("write_timeout", &self.limits.write_timeout, &(second..=day))
            .range("drain_timeout", &self.limits.drain_timeout, &(Span::from_millis(1)..=Span::from_secs(600)));
        bounds.section("limits", limits.into_violations());
        bounds.into_violations()
    }

    pub(crate) fn session_limits(&self) -> SessionLimits {
        let bytes = |size: Size| usize::try_from(size.0).unwrap_or(usize::MAX);
        SessionLimits {
            announced: Announced {
                max_message: bytes(self.max_message_bytes),
                window: self.limits.max_in_flight,
                idle_seconds: self.limits.idle_timeout.0.as_secs(),
            },
            window_bytes: bytes(self.limits.max_in_flight_bytes),
        }
    }
}
