//! The listener of TCP intake.

use std::net::IpAddr;
use std::sync::Arc;

use metrics::counter;
use millrace_contracts::metric;
use millrace_log::Log;
use millrace_service::ServiceContext;
use millrace_service::net::{
    Connection as _, ConnectionLimits, ListenerMetrics, Order, Protocol, Rejection, Socket, serve,
};
use tokio::net::{TcpListener, TcpStream};

use super::admission::Admission;
use super::config::TcpConfig;
use super::connection::{self, next_order};
use super::handle::TcpConnection;
use super::intake::TcpIntake;
use super::lag;

/// Takes messages over TCP on `listener` until the stop, and until every frame that was read is answered.
pub async fn run(config: TcpConfig, listener: TcpListener, log: Log, context: ServiceContext) {
    let limits = ConnectionLimits {
        max_connections: config.limits.max_connections,
        max_connections_per_ip: config.limits.max_connections_per_ip,
        drain_timeout: config.limits.drain_timeout.0,
    };
    let stop = context.stop.clone();
    let intake = Arc::new(TcpIntake::new(config, log, context));
    tokio::spawn(stop.child_token().run_until_cancelled_owned(lag::watch(intake.clone())));
    serve(listener, intake, limits, stop).await;
}

impl TcpIntake {
    /// The connection as its protocol begins, and the address of its client: behind a PROXY header and the handshake of TLS, if
    /// the listener has them. `None` if the client does not make them in time.
    async fn begin(&self, mut stream: TcpStream, peer: IpAddr) -> Option<(Socket, IpAddr)> {
        let client = match self.proxies.accept(&mut stream, peer).await {
            Ok(client) => client,
            Err(error) => {
                counter!(metric::TCP_REFUSED.name, "reason" => "proxy").increment(1);
                tracing::debug!(%error, %peer, "no PROXY header of a trusted proxy");
                return None;
            }
        };
        let socket = match &self.tls {
            None => Socket::Plain(stream),
            Some(tls) => tls.accept(stream).await.ok()?,
        };
        Some((socket, client))
    }
}

impl Protocol for TcpIntake {
    type Connection = TcpConnection;

    fn metrics(&self) -> ListenerMetrics {
        ListenerMetrics { connections: metric::TCP_CONNECTIONS.name, refused: metric::TCP_REFUSED.name }
    }

    fn open(&self) -> Arc<TcpConnection> {
        Arc::new(TcpConnection::new())
    }

    async fn drive(self: Arc<Self>, stream: TcpStream, peer: IpAddr, connection: Arc<TcpConnection>) {
        let begun = tokio::select! {
            biased;
            begun = self.begin(stream, peer) => begun,
            // Nothing was read that would have to be answered.
            _ = next_order(connection.order(), Order::Run) => return,
        };
        let Some((socket, client)) = begun else { return };
        let admission = Admission::new(self.auth.clone(), client, socket.certificate());
        connection::drive(socket, admission, &self, connection).await;
    }

    fn reject(&self, stream: &TcpStream, _rejection: Rejection) {
        // Bytes in clear are no answer to a client that waits for a handshake.
        if self.tls.is_none() {
            let _ = stream.try_write(b"NACK 0 429 too-many-connections\n");
        }
    }
}
