//! The accept loop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto::Builder;
use metrics::counter;
use millrace_contracts::{Code, metric};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{builder, drive};
use super::connections::{Connections, Refused};
use super::exchange::Exchange;
use super::guard::{Guard, Order};
use super::rate::{FORGET_EVERY, PerIp};
use super::{HttpLimits, files};
use crate::Problem;

/// How long accepting rests after an error that another attempt would only repeat, such as no free descriptor.
const REST: Duration = Duration::from_millis(50);

struct Server {
    connections: Arc<Connections>,
    builder: Arc<Builder<TokioExecutor>>,
    exchange: Arc<Exchange>,
    tasks: TaskTracker,
}

/// Serves `router` on `listener` until `stop` is cancelled; then closes idle connections, lets requests under way finish
/// within [`HttpLimits::drain_timeout`], and cuts what is left.
///
/// # Errors
/// None at present: an error of accepting is logged and tried again after a pause.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: HttpLimits,
    stop: CancellationToken,
) -> io::Result<()> {
    let connections = files::room_for(limits.connections);
    let server = Server {
        connections: Arc::new(Connections::new(connections, limits.connections_per_ip)),
        builder: Arc::new(builder(&limits)),
        tasks: TaskTracker::new(),
        exchange: Arc::new(Exchange {
            router: router.with_state(()),
            rate: PerIp::new(limits.requests_per_ip),
            in_flight: Arc::default(),
            limits,
        }),
    };
    let mut forget = tokio::time::interval(FORGET_EVERY);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => server.take(stream, peer),
                Err(error) => rest_after(&error).await,
            },
            _ = forget.tick() => server.exchange.rate.iter().for_each(PerIp::forget),
        }
    }
    drop(listener);
    server.drain().await;
    Ok(())
}

async fn rest_after(error: &io::Error) {
    // These concern one connection that is gone already.
    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        return;
    }
    counter!(metric::HTTP_REFUSED.name, "reason" => "accept").increment(1);
    tracing::warn!(%error, "cannot accept connections; trying again");
    tokio::time::sleep(REST).await;
}

impl Server {
    fn take(&self, stream: TcpStream, peer: SocketAddr) {
        let guard = Arc::new(Guard::new());
        let seat = match self.connections.seat(peer.ip(), guard.clone()) {
            Ok(seat) => seat,
            Err(why) => return refuse(&stream, why),
        };
        // An answer is one write; waiting for more to send with it only adds delay.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let (builder, exchange) = (self.builder.clone(), self.exchange.clone());
        self.tasks.spawn(async move {
            drive(stream, guard, builder, exchange, peer.ip()).await;
            drop(seat);
        });
    }

    async fn drain(self) {
        self.tasks.close();
        self.connections.order_all(Order::Drain);
        if tokio::time::timeout(self.exchange.limits.drain_timeout.0, self.tasks.wait()).await.is_err() {
            tracing::warn!(connections = self.tasks.len(), "requests still under way after the drain time are cut");
            self.connections.order_all(Order::Cut);
            self.tasks.wait().await;
        }
    }
}

/// Answers 503 if that needs no waiting, and closes.
fn refuse(stream: &TcpStream, why: Refused) {
    let (reason, detail) = match why {
        Refused::Total => ("total", "too many connections"),
        Refused::PerIp => ("per-ip", "too many connections from this address"),
    };
    counter!(metric::HTTP_REFUSED.name, "reason" => reason).increment(1);
    let _ = stream.try_write(&Problem::new(Code::Overloaded, detail).retry_spread(super::RETRY).into_http1());
}
