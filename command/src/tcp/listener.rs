//! The listener of TCP intake.

use std::net::IpAddr;
use std::sync::Arc;

use millrace_contracts::metric;
use millrace_log::Log;
use millrace_service::auth::Authenticator;
use millrace_service::net::{ConnectionLimits, ListenerMetrics, Protocol, Proxies, Rejection, serve};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::config::TcpConfig;
use super::connection;
use super::handle::TcpConnection;
use super::intake::TcpIntake;
use super::lag;

/// Takes messages over TCP on `listener` until `stop` is canceled and every frame that was read is answered.
pub async fn run(
    config: TcpConfig,
    listener: TcpListener,
    log: Log,
    auth: Authenticator,
    proxies: Proxies,
    stop: CancellationToken,
) {
    let limits = ConnectionLimits {
        max_connections: config.limits.max_connections,
        max_connections_per_ip: config.limits.max_connections_per_ip,
        drain_timeout: config.limits.drain_timeout.0,
    };
    let intake = Arc::new(TcpIntake::new(config, log, auth, proxies));
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

    async fn drive(self: Arc<Self>, mut stream: TcpStream, peer: IpAddr, connection: Arc<TcpConnection>) {
        match self.proxies.accept(&mut stream, peer).await {
            Ok(client) => connection::drive(stream, client, &self, connection).await,
            Err(error) => {
                metrics::counter!(metric::TCP_REFUSED.name, "reason" => "proxy").increment(1);
                tracing::debug!(%error, %peer, "no PROXY header of a trusted proxy");
            }
        }
    }

    fn reject(&self, stream: &TcpStream, _rejection: Rejection) {
        let _ = stream.try_write(b"NACK 0 429 too-many-connections\n");
    }
}
