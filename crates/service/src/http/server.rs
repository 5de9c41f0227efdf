//! Serving HTTP on a listener.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use axum::Router;
use millrace_contracts::{Code, Refusal, metric};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::connection::{Http, drive, http1_builder, http2_builder};
use super::exchange::Exchange;
use super::guard::Guard;
use super::problem::{Problem, RETRY, spread_retry};
use super::stream::Deliveries;
use super::{Hosts, HttpLimits};
use crate::net::{self, ConnectionLimits, ListenerMetrics, Protocol, Proxies, RateLimit, Rejection, Tls};

/// Serves `router` on `listener` until `stop` is canceled; then closes idle connections, lets requests under way finish
/// within [`HttpLimits::drain_timeout`], and cuts what is left.
pub async fn serve(listener: TcpListener, router: Router, limits: HttpLimits, stop: CancellationToken) {
    serve_with(listener, router, limits, Edge::default(), stop).await;
}

/// As [`serve`], for requests to these hosts.
pub async fn serve_hosts(
    listener: TcpListener,
    router: Router,
    limits: HttpLimits,
    hosts: Hosts,
    stop: CancellationToken,
) {
    serve_with(listener, router, limits, Edge { hosts, ..Edge::default() }, stop).await;
}

/// As [`serve_hosts`], encrypted if there is a certificate.
pub async fn serve_encrypted(
    listener: TcpListener,
    router: Router,
    limits: HttpLimits,
    hosts: Hosts,
    tls: Option<Tls>,
    stop: CancellationToken,
) {
    serve_with(listener, router, limits, Edge { tls, hosts, ..Edge::default() }, stop).await;
}

/// What stands between the clients of a listener and its router.
#[derive(Default)]
pub(crate) struct Edge {
    /// The certificate, if connections are encrypted.
    pub(crate) tls: Option<Tls>,
    /// The proxies in front.
    pub(crate) proxies: Proxies,
    /// The hosts that the listener serves.
    pub(crate) hosts: Hosts,
}

/// As [`serve`], with an edge.
pub(crate) async fn serve_with(
    listener: TcpListener,
    router: Router,
    limits: HttpLimits,
    Edge { tls, proxies, hosts }: Edge,
    stop: CancellationToken,
) {
    let connections = ConnectionLimits {
        max_connections: limits.max_connections,
        max_connections_per_ip: limits.max_connections_per_ip,
        drain_timeout: limits.drain_timeout.0,
    };
    let deliveries = Deliveries::new(limits.max_in_flight);
    let http = Http {
        tls,
        http1: http1_builder(&limits),
        http2: http2_builder(&limits, deliveries.clone()),
        exchange: Exchange {
            router: router.with_state(()),
            proxies,
            rate_limit: RateLimit::new(limits.max_request_rate_per_ip),
            in_flight: AtomicUsize::new(0),
            deliveries,
            limits,
            hosts,
        },
    };
    net::serve(listener, Arc::new(http), connections, stop).await;
}

impl Protocol for Http {
    type Connection = Guard;

    fn metrics(&self) -> ListenerMetrics {
        ListenerMetrics { connections: metric::HTTP_CONNECTIONS.name, refused: metric::HTTP_REFUSED.name }
    }

    fn open(&self) -> Arc<Guard> {
        Arc::new(Guard::new())
    }

    fn drive(
        self: Arc<Self>,
        stream: TcpStream,
        peer: IpAddr,
        guard: Arc<Guard>,
    ) -> impl Future<Output = ()> + Send + 'static {
        drive(self, stream, peer, guard)
    }

    fn reject(&self, stream: &TcpStream, rejection: Rejection) {
        // Bytes in clear are no answer to a client that waits for a handshake.
        if self.tls.is_some() {
            return;
        }
        let detail = match rejection {
            Rejection::Total => "too many connections",
            Rejection::PerIp => "too many connections from this address",
        };
        let refusal = Refusal::new(Code::Overloaded, detail).retry_after(spread_retry(RETRY));
        let _ = stream.try_write(&Problem::from(refusal).into_http1());
    }

    fn housekeep(&self) {
        self.exchange.rate_limit.iter().for_each(RateLimit::evict_idle);
    }
}
