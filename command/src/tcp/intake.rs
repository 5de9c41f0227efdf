//! What all connections of TCP intake share.

use std::sync::atomic::{AtomicBool, Ordering};

use millrace_contracts::Topic;
use millrace_log::Log;
use millrace_service::ServiceContext;
use millrace_service::auth::Authenticator;
use millrace_service::net::{Proxies, Tls};

use super::config::TcpConfig;
use super::metrics::TcpMetrics;

/// What the connections share.
pub(crate) struct TcpIntake {
    pub(crate) config: TcpConfig,
    pub(crate) log: Log,
    pub(crate) partitions: u32,
    pub(crate) metrics: TcpMetrics,
    pub(crate) auth: Authenticator,
    /// The certificate, if connections are encrypted.
    pub(crate) tls: Option<Tls>,
    pub(crate) proxies: Proxies,
    lagging: AtomicBool,
}

impl TcpIntake {
    pub(crate) fn new(config: TcpConfig, log: Log, context: ServiceContext) -> Self {
        let ServiceContext { auth, tls, proxies, .. } = context.with_proxy_protocol(config.proxy_protocol);
        let (partitions, metrics) = (log.partitions(Topic::INTAKE), TcpMetrics::new());
        let (tls, lagging) = (tls.map(Tls::for_intake), AtomicBool::new(false));
        Self { config, log, partitions, metrics, auth, tls, proxies, lagging }
    }

    /// Whether a journal is so far behind that nothing more is taken.
    pub(crate) fn is_lagging(&self) -> bool {
        self.lagging.load(Ordering::Relaxed)
    }

    pub(crate) fn set_lagging(&self, lagging: bool) {
        self.lagging.store(lagging, Ordering::Relaxed);
    }
}
