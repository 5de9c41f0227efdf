//! Drives one connection: hyper, the orders of the server and the clock, in one future.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use metrics::counter;
use millrace_contracts::metric;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::HttpLimits;
use super::exchange::{Exchange, Peer};
use super::guard::{Fault, Guard, Order, Verdict};
use super::io::Io;

/// hyper's builder with our bounds. Its own head time-out stays off: the guard has one that also covers the bytes before
/// the protocol is known, and answers 408.
pub(super) fn builder(limits: &HttpLimits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        // A client that has said all and closed its side still gets its answer.
        .half_close(true)
        .max_headers(limits.header_count * 2)
        .max_buf_size(limits.buffer_limit())
        .writev(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_streams)
        .max_header_list_size(u32::try_from(limits.head_bytes.0).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(limits.h2_resets)
        .max_local_error_reset_streams(limits.h2_resets)
        .keep_alive_interval(limits.idle_timeout.0 / 2)
        .keep_alive_timeout(limits.write_timeout.0);
    builder
}

/// Serves a connection to its end.
pub(super) async fn drive(
    stream: TcpStream,
    guard: Arc<Guard>,
    builder: Arc<Builder<TokioExecutor>>,
    exchange: Arc<Exchange>,
    peer: Peer,
) {
    let limits = exchange.limits.clone();
    let io = TokioIo::new(Io::new(stream, guard.clone(), limits.head_limit()));
    let service = {
        let guard = guard.clone();
        service_fn(move |request| {
            let (exchange, guard) = (exchange.clone(), guard.clone());
            async move { Ok::<_, std::convert::Infallible>(exchange.answer(request, guard, peer).await) }
        })
    };
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut tick = pin!(sleep_until(Instant::now()));
    let mut draining = false;
    poll_fn(|cx| {
        guard.waker.register(cx.waker());
        match guard.ordered() {
            Order::Run => {}
            Order::Drain if draining => {}
            Order::Drain => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            Order::Cut => return Poll::Ready(()),
        }
        if connection.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        while tick.as_mut().poll(cx).is_ready() {
            match guard.verdict(&limits) {
                Verdict::Fine(until) => tick.as_mut().reset(until),
                Verdict::Close(reason) => {
                    counter!(metric::HTTP_CUT.name, "reason" => reason).increment(1);
                    return Poll::Ready(());
                }
                Verdict::SlowHead => {
                    counter!(metric::HTTP_CUT.name, "reason" => "head").increment(1);
                    // hyper reads the end we make up, answers, and is done; whether the client takes the answer or not.
                    guard.set_fault(Fault::Slow);
                    let _ = connection.as_mut().poll(cx);
                    return Poll::Ready(());
                }
            }
        }
        Poll::Pending
    })
    .await;
}
