//! Settings of the coordinators.

use std::net::{Ipv4Addr, SocketAddr};

use millrace_base::{Bounds, Size, Violation};
use millrace_service::http::HttpLimits;
use serde::Deserialize;

use crate::CoordinatorConfig;

/// Settings of the coordinators.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where front ends in other processes bring their calls.
    pub listen: SocketAddr,
    /// Health and metrics.
    pub admin: SocketAddr,
    /// The address that other processes use to reach `listen`; empty: `listen` itself.
    pub url: String,
    /// Most bytes of the newest messages in memory, for each partition.
    pub ring_size: Size,
    /// Most leases of a subscription.
    pub max_leases: usize,
    /// Most requests that wait for messages.
    pub max_polls: usize,
    /// Bounds of the internal listener.
    pub limits: HttpLimits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 8085).into(),
            admin: (Ipv4Addr::LOCALHOST, 9085).into(),
            url: String::new(),
            ring_size: Size::from_mib(64),
            max_leases: 100_000,
            max_polls: 2_000,
            limits: HttpLimits {
                max_body_bytes: Size::from_mib(2),
                max_inflated_bytes: Size::from_mib(2),
                handler_timeout: millrace_base::Span::from_secs(60),
                ..HttpLimits::default()
            },
        }
    }
}

/// Largest page of a pull in bytes.
const MAX_PAGE_BYTES: usize = 10 << 20;

impl Config {
    /// Settings outside their bounds.
    pub fn validate(&self) -> Vec<Violation> {
        let mut bounds = Bounds::new();
        bounds
            .range("ring_size", &self.ring_size, &(Size::from_mib(1)..=Size::from_gib(64)))
            .range("max_leases", &self.max_leases, &(1..=10_000_000))
            .range("max_polls", &self.max_polls, &(1..=1_000_000))
            .section("limits", self.limits.validate());
        bounds.into_violations()
    }

    /// What the coordinators need of it; `reachable`: whether other processes bring calls.
    pub fn coordinators(&self, reachable: bool) -> CoordinatorConfig {
        let url = match (reachable, &*self.url) {
            (false, _) => String::new(),
            (true, "") => format!("http://{}", self.listen),
            (true, url) => url.trim_end_matches('/').to_owned(),
        };
        CoordinatorConfig {
            url,
            ring_bytes: usize::try_from(self.ring_size.0).unwrap_or(usize::MAX),
            max_page_bytes: MAX_PAGE_BYTES,
            max_leases: self.max_leases,
            max_polls: self.max_polls,
        }
    }
}
