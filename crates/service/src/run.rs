//! Running a service: what all services do from their start to the end of their drain.

use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::auth::Authenticator;
use crate::cors::Cors;
use crate::health::Health;
use crate::http::{self, Edge, Hosts, HttpLimits};
use crate::net::{Proxies, Tls};

/// Interval of readiness probes.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// What a service shares with its process.
#[derive(Debug, Clone)]
pub struct ServiceContext {
    /// The health of the process.
    pub health: Health,
    /// Canceled when the process stops.
    pub stop: CancellationToken,
    /// Who may do what.
    pub auth: Authenticator,
    /// The certificate of public listeners, if they encrypt.
    pub tls: Option<Tls>,
    /// The proxies in front of public listeners.
    pub proxies: Proxies,
    /// The origins whose pages may use the routes of events and counts.
    pub cors: Cors,
}

impl ServiceContext {
    /// For a listener whose connections all begin with a PROXY header, or none does.
    #[must_use]
    pub fn with_proxy_protocol(self, protocol: bool) -> Self {
        Self { proxies: self.proxies.with_protocol(protocol), ..self }
    }

    /// Serves HTTP behind authentication until the stop, then drains. Meanwhile `probe` runs every second, to keep the
    /// readiness of the service's components current. After the stop readiness is false before the listener closes.
    pub async fn serve_http<F: Future<Output = ()> + Send + 'static>(
        self,
        listener: TcpListener,
        router: Router,
        limits: HttpLimits,
        probe: impl FnMut() -> F + Send + 'static,
    ) {
        let Self { health, stop, auth, tls, proxies, cors } = self;
        // A listener without an address is closed.
        let hosts = listener.local_addr().map_or(Hosts::Any, |address| auth.hosts(address.ip()));
        let edge = Edge { tls, proxies, hosts };
        let router = cors.around(auth.protect(router));
        // However this ends, the probes end with it.
        let probing = stop.child_token();
        let _end = probing.clone().drop_guard();
        tokio::spawn(keep_current(health, probing, probe));
        http::serve_with(listener, router, limits, edge, stop).await;
    }
}

async fn keep_current<F: Future<Output = ()>>(health: Health, stop: CancellationToken, mut probe: impl FnMut() -> F) {
    let probes = async {
        let mut interval = tokio::time::interval(PROBE_INTERVAL);
        loop {
            interval.tick().await;
            probe().await;
        }
    };
    let _ended: Option<()> = stop.run_until_cancelled(probes).await;
    health.drain();
}
