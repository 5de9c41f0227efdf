//! Settings of the write side.

use std::net::{Ipv4Addr, SocketAddr};

use millrace_base::{Bounds, Size, Span, Violation};
use millrace_contracts::EventWindow;
use millrace_service::http::{HttpLimits, OtherSide};
use serde::Deserialize;

use crate::tcp::TcpConfig;
use crate::{Durability, TopicsConfig};

/// Settings of the write side.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address of the public listener.
    pub listen: SocketAddr,
    /// Whether connections to `listen` begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Address of the admin listener: health and metrics.
    pub admin: SocketAddr,
    /// The URL of the read side as browsers reach it.
    pub query_url: OtherSide,
    /// Most items of a batch.
    pub max_batch_items: usize,
    /// Memory that the bodies of all batches in flight share.
    pub max_body_memory: Size,
    /// What a response waits for.
    pub durability: Durability,
    /// Whether a request may select [`Durability::Cached`].
    pub allow_respond_async: bool,
    /// Bounds of the HTTP server.
    pub limits: HttpLimits,
    /// Intake over TCP.
    pub tcp: TcpConfig,
    /// The accepted timestamps: section `[analytics]`, which the processor reads, too.
    #[serde(skip)]
    pub event_window: EventWindow,
    /// Topics: section `[topics]`.
    #[serde(skip)]
    pub topics: TopicsConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 8081).into(),
            proxy_protocol: false,
            admin: (Ipv4Addr::LOCALHOST, 9081).into(),
            query_url: OtherSide::default(),
            max_batch_items: 1_000,
            max_body_memory: Size::from_mib(256),
            durability: Durability::Replicated,
            allow_respond_async: false,
            limits: HttpLimits {
                // Longer than the log takes to report an unknown outcome, and than the longest long poll.
                handler_timeout: Span::from_secs(40),
                // Three times the peak of a small machine: beyond it, waiting gains nothing.
                max_in_flight: 4_096,
                ..HttpLimits::default()
            },
            tcp: TcpConfig::default(),
            event_window: EventWindow::default(),
            topics: TopicsConfig::default(),
        }
    }
}

impl Config {
    /// Every setting outside its bounds.
    pub fn validate(&self) -> Vec<Violation> {
        // The largest body has room: inflated, and beside that converted to UTF-8. What each body takes at its begin is less.
        let largest = Size(self.limits.max_inflated_bytes.0.saturating_mul(2).saturating_add(32 << 10));
        let body_memory = largest..=Size::from_gib(1_024);
        let two_addresses = self.listen != self.admin || self.listen.port() == 0;
        let mut bounds = Bounds::new();
        bounds
            .section("limits", self.limits.validate())
            .section("tcp", self.tcp.validate())
            .range("max_batch_items", &self.max_batch_items, &(1..=100_000))
            .check(
                body_memory.contains(&self.max_body_memory),
                "max_body_memory",
                "2 * command.limits.max_inflated_bytes + 32KiB..=1024GiB",
            )
            .check(self.query_url.is_valid(), "query_url", "empty, or an http or https URL of at most 2048 characters")
            .check(two_addresses, "admin", "another address than command.listen");
        bounds.into_violations()
    }
}
