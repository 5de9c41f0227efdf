//! The listener of TCP intake.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millrace_contracts::{Topic, metric};
use millrace_log::Log;
use millrace_service::net::{ConnectionLimits, ListenerMetrics, Protocol, Rejection, serve};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::config::TcpConfig;
use super::connection::{self, TcpConnection};
use super::lag;
use super::metrics::TcpMetrics;

/// What the connections share.
pub(crate) struct TcpIntake {
    pub(crate) config: TcpConfig,
    pub(crate) log: Log,
    pub(crate) partitions: u32,
    pub(crate) metrics: TcpMetrics,
    lagging: AtomicBool,
}

impl TcpIntake {
    /// Whether a journal is so far behind that nothing more is taken.
    pub(crate) fn is_lagging(&self) -> bool {
        self.lagging.load(Ordering::Relaxed)
    }

    pub(crate) fn set_lagging(&self, lagging: bool) {
        self.lagging.store(lagging, Ordering::Relaxed);
    }
}

/// Takes messages over TCP on `listener` until `stop` is canceled and every frame that was read is answered.
pub async fn run(config: TcpConfig, listener: TcpListener, log: Log, stop: CancellationToken) {
    let limits = ConnectionLimits {
        max_connections: config.limits.max_connections,
        max_connections_per_ip: config.limits.max_connections_per_ip,
        drain_timeout: config.limits.drain_timeout.0,
    };
    let partitions = log.partitions(Topic::INTAKE);
    let lagging = AtomicBool::new(false);
    let intake = Arc::new(TcpIntake { config, log, partitions, metrics: TcpMetrics::new(), lagging });
    tokio::spawn(stop.child_token().run_until_cancelled_owned(lag::watch(intake.clone())));
    serve(listener, intake, limits, stop).await;
}

impl Protocol for TcpIntake {
    type Connection = TcpConnection;

    fn metrics(&self) -> ListenerMetrics {
        ListenerMetrics { connections: metric::TCP_CONNECTIONS.name, refused: metric::TCP_REFUSED.name }
    }

    fn open(&self) -> Arc<TcpConnection> {
        Arc::new(TcpConnection::new())
    }

    async fn drive(self: Arc<Self>, stream: TcpStream, _peer: IpAddr, connection: Arc<TcpConnection>) {
        connection::drive(stream, &self, connection).await;
    }

    fn reject(&self, stream: &TcpStream, _rejection: Rejection) {
        let _ = stream.try_write(b"NACK 0 429 too-many-connections\n");
    }
}
