//! Drives one connection: version detection, hyper, the orders of the server and the timeouts, in one future.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::counter;
use millrace_contracts::metric;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::HttpLimits;
use super::exchange::Exchange;
use super::guard::{Guard, Verdict};
use super::io::{Io, Version};
use super::stream::{Deliveries, StreamExecutor};
use crate::net::{Connection, Order, Socket, Tls};

/// HTTP/1.1 and HTTP/2 for one router.
pub(super) struct Http {
    pub(super) exchange: Exchange,
    pub(super) tls: Option<Tls>,
    pub(super) http1: http1::Builder,
    pub(super) http2: http2::Builder<StreamExecutor>,
}

/// hyper's HTTP/1 with our bounds.
///
/// Its header timeout stays off: it also runs while a connection is idle, for which there is a longer timeout, and it
/// closes without an answer. The guard has a timeout of heads alone, which ends in 408.
pub(super) fn http1_builder(limits: &HttpLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        // A client that closes its side after the request still gets its answer.
        .half_close(true)
        .max_headers(limits.max_headers * 2)
        .max_header_size(limits.head_limit())
        .max_buf_size(limits.buffer_limit())
        .writev(false);
    builder
}

/// hyper's HTTP/2 with our bounds.
pub(super) fn http2_builder(limits: &HttpLimits, deliveries: Deliveries) -> http2::Builder<StreamExecutor> {
    let mut builder = http2::Builder::new(StreamExecutor::new(limits, deliveries));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_max_streams)
        .max_header_list_size(u32::try_from(limits.max_head_bytes.0).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(limits.h2_max_pending_resets)
        .max_local_error_reset_streams(limits.h2_max_pending_resets)
        .keep_alive_interval(limits.idle_timeout.0 / 2)
        .keep_alive_timeout(limits.write_timeout.0);
    builder
}

/// Serves a connection to its end.
pub(super) async fn drive(http: Arc<Http>, stream: TcpStream, peer: IpAddr, guard: Arc<Guard>) {
    supervise(&http, stream, peer, &guard).await;
    if let Some(lingering) = guard.take_lingering() {
        lingering.finish(guard.order()).await;
    }
}

/// Serves a connection within its timeouts.
async fn supervise(http: &Arc<Http>, stream: TcpStream, peer: IpAddr, guard: &Arc<Guard>) {
    let limits = &http.exchange.limits;
    let mut served = pin!(serve(http, stream, peer, guard));
    let mut tick = pin!(sleep_until(Instant::now()));
    poll_fn(|cx| {
        if guard.order().get(cx.waker()) == Order::Cut || served.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        while tick.as_mut().poll(cx).is_ready() {
            let reason = match guard.verdict(limits) {
                Verdict::Fine(until) => {
                    tick.as_mut().reset(until);
                    continue;
                }
                Verdict::Close(reason) => reason,
                Verdict::SlowHead => {
                    // The socket sends the 408 when the connection lets go of it.
                    guard.time_out_head();
                    "head"
                }
            };
            counter!(metric::HTTP_TIMEOUTS.name, "reason" => reason).increment(1);
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
}

async fn serve(http: &Arc<Http>, mut stream: TcpStream, peer: IpAddr, guard: &Arc<Guard>) {
    let peer = match unless_drained(guard, http.exchange.proxies.accept(&mut stream, peer)).await {
        None => return,
        Some(Ok(client)) => client,
        Some(Err(error)) => {
            counter!(metric::HTTP_REFUSED.name, "reason" => "proxy").increment(1);
            tracing::debug!(%error, %peer, "no PROXY header of a trusted proxy");
            return;
        }
    };
    let socket = match &http.tls {
        None => Socket::Plain(stream),
        Some(tls) => {
            let Some(Ok(encrypted)) = unless_drained(guard, tls.accept(stream)).await else { return };
            encrypted
        }
    };
    let certificate = socket.certificate().map(Arc::new);
    let mut io = Io::new(socket, guard.clone(), http.exchange.limits.max_target());
    let detected = unless_drained(guard, poll_fn(|cx| io.poll_version(cx)));
    let Some(Ok(version)) = detected.await else { return };
    let identified = |mut request: Request<Incoming>| {
        if let Some(certificate) = &certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        request
    };
    match version {
        Version::Http1 => {
            // Borrows: connections share the server's count of references, and would contend for it with each request.
            let service = service_fn(|request| {
                let (request, guard) = (identified(request), guard.clone());
                async move { Ok::<_, Infallible>(http.exchange.answer(request, guard, peer).await) }
            });
            let connection = pin!(http.http1.serve_connection(TokioIo::new(io), service));
            until_drained(connection, guard, http1::Connection::graceful_shutdown).await;
        }
        Version::Http2 => {
            let service = service_fn(|request| {
                let (request, http, guard) = (identified(request), http.clone(), guard.clone());
                async move { Ok::<_, Infallible>(http.exchange.answer(request, guard, peer).await) }
            });
            let connection = pin!(http.http2.serve_connection(TokioIo::new(io), service));
            until_drained(connection, guard, http2::Connection::graceful_shutdown).await;
        }
    }
}

/// Polls what comes before the first request to its end. `None` if the server drains meanwhile: without a whole request there is
/// nothing to finish.
async fn unless_drained<T>(guard: &Guard, before: impl Future<Output = T>) -> Option<T> {
    let mut before = pin!(before);
    poll_fn(|cx| match guard.order().get(cx.waker()) {
        Order::Run => before.as_mut().poll(cx).map(Some),
        Order::Drain | Order::Cut => Poll::Ready(None),
    })
    .await
}

/// Polls a connection to its end, and shuts it down gracefully when the server drains. Its error is of no use: the
/// client has its answer, or is gone.
async fn until_drained<C: Future>(mut connection: Pin<&mut C>, guard: &Guard, drain: impl Fn(Pin<&mut C>)) {
    let mut draining = false;
    poll_fn(|cx: &mut Context<'_>| {
        if !draining && guard.order().get(cx.waker()) != Order::Run {
            draining = true;
            drain(connection.as_mut());
        }
        connection.as_mut().poll(cx).map(drop)
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_ends_what_comes_before_the_first_request() {
        let guard = Guard::new();
        assert_eq!(unless_drained(&guard, std::future::ready(1)).await, Some(1));
        // Such as the handshake of a client that sends nothing.
        let waiting = unless_drained(&guard, std::future::pending::<()>());
        let drain = async { guard.order().set(Order::Drain) };
        assert_eq!(tokio::join!(waiting, drain).0, None);
    }
}
