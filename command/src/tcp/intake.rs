//! What all connections of TCP intake share.

use std::sync::atomic::{AtomicBool, Ordering};

use millrace_contracts::Topic;
use millrace_log::Log;
use millrace_service::auth::Authenticator;
use millrace_service::net::Proxies;

use super::config::TcpConfig;
use super::metrics::TcpMetrics;

/// What the connections share.
pub(crate) struct TcpIntake {
    pub(crate) config: TcpConfig,
    pub(crate) log: Log,
    pub(crate) partitions: u32,
    pub(crate) metrics: TcpMetrics,
    pub(crate) auth: Authenticator,
    pub(crate) proxies: Proxies,
    lagging: AtomicBool,
}

impl TcpIntake {
    pub(crate) fn new(config: TcpConfig, log: Log, auth: Authenticator, proxies: Proxies) -> Self {
        let proxies = proxies.with_protocol(config.proxy_protocol);
        let partitions = log.partitions(Topic::INTAKE);
        Self { config, log, partitions, metrics: TcpMetrics::new(), auth, proxies, lagging: AtomicBool::new(false) }
    }

    /// Whether a journal is so far behind that nothing more is taken.
    pub(crate) fn is_lagging(&self) -> bool {
        self.lagging.load(Ordering::Relaxed)
    }

    pub(crate) fn set_lagging(&self, lagging: bool) {
        self.lagging.store(lagging, Ordering::Relaxed);
    }
}
