//! The accept loop.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connections::{Connection, ConnectionLimits, Connections, Order, Rejection};
use super::files::FileBudget;

/// Pause after an error that another attempt would only repeat, such as no free file descriptor.
const PAUSE: Duration = Duration::from_millis(50);
/// Between two calls of [`Protocol::housekeep`].
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(10);

/// A protocol over TCP.
pub trait Protocol: Send + Sync + 'static {
    /// What the listener and the task of a connection share.
    type Connection: Connection;

    /// The names of the listener's metrics.
    fn metrics(&self) -> ListenerMetrics;

    /// The shared state of a new connection.
    fn open(&self) -> Arc<Self::Connection>;

    /// Serves a connection to its end.
    fn drive(
        self: Arc<Self>,
        stream: TcpStream,
        peer: IpAddr,
        connection: Arc<Self::Connection>,
    ) -> impl Future<Output = ()> + Send + 'static;

    /// Answers a connection that is not served, if that needs no waiting. It is closed then.
    fn reject(&self, stream: &TcpStream, rejection: Rejection);

    /// Called every ten seconds.
    fn housekeep(&self) {}
}

/// The names of a listener's metrics.
#[derive(Debug, Clone, Copy)]
pub struct ListenerMetrics {
    /// A gauge: open connections.
    pub connections: &'static str,
    /// A counter with the label `reason`: connections that were not served.
    pub refused: &'static str,
}

/// Serves `protocol` on `listener` until `stop` is canceled. Then closes idle connections, lets the others finish within
/// the drain timeout, and cuts what is left.
///
/// An error while accepting is logged, and accepting continues after a pause.
pub async fn serve<P: Protocol>(
    listener: TcpListener,
    protocol: Arc<P>,
    limits: ConnectionLimits,
    stop: CancellationToken,
) {
    let metrics = protocol.metrics();
    let (files, gauge) = (FileBudget::of_process(), gauge!(metrics.connections));
    let connections = Connections::new(limits.max_connections, limits.max_connections_per_ip, files, gauge);
    let server = Server { connections, tasks: TaskTracker::new(), protocol, metrics };
    let mut housekeeping = tokio::time::interval(HOUSEKEEPING_INTERVAL);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => server.start(stream, peer),
                Err(error) => server.pause_after(&error).await,
            },
            _ = housekeeping.tick() => server.protocol.housekeep(),
        }
    }
    drop(listener);
    server.drain(limits.drain_timeout).await;
}

struct Server<P: Protocol> {
    connections: Arc<Connections<P::Connection>>,
    tasks: TaskTracker,
    protocol: Arc<P>,
    metrics: ListenerMetrics,
}

impl<P: Protocol> Server<P> {
    fn start(&self, stream: TcpStream, peer: SocketAddr) {
        let connection = self.protocol.open();
        let permit = match self.connections.admit(peer.ip(), connection.clone()) {
            Ok(permit) => permit,
            Err(rejection) => return self.reject(&stream, rejection),
        };
        // An answer is one write; waiting for more to send with it only adds delay.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let task = self.protocol.clone().drive(stream, peer.ip(), connection);
        self.tasks.spawn(async move {
            task.await;
            drop(permit);
        });
    }

    fn reject(&self, stream: &TcpStream, rejection: Rejection) {
        let reason = match rejection {
            Rejection::Total => "total",
            Rejection::PerIp => "per-ip",
        };
        counter!(self.metrics.refused, "reason" => reason).increment(1);
        self.protocol.reject(stream, rejection);
    }

    async fn pause_after(&self, error: &io::Error) {
        // These concern one connection that has ended already.
        if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
            return;
        }
        counter!(self.metrics.refused, "reason" => "accept").increment(1);
        tracing::warn!(%error, "cannot accept connections; retrying");
        tokio::time::sleep(PAUSE).await;
    }

    async fn drain(self, timeout: Duration) {
        self.tasks.close();
        self.connections.order_all(Order::Drain);
        if tokio::time::timeout(timeout, self.tasks.wait()).await.is_err() {
            tracing::warn!(connections = self.tasks.len(), "connections exceeded the drain timeout and are cut");
            self.connections.order_all(Order::Cut);
            self.tasks.wait().await;
        }
    }
}
