//! One request and its answer: bounds before the router, problems after it.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use ::http::header::{ALLOW, CONNECTION, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use ::http::{HeaderValue, Request, StatusCode, Version};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use millrace_contracts::Code;
use tower::Service;
use uuid::Uuid;

use super::HttpLimits;
use super::guard::Guard;
use super::rate::PerIp;
use crate::Problem;
use crate::codes::code_of;
use crate::problem::REQUEST_ID;

/// The peer's address. Forwarding headers are not believed.
pub(super) type Peer = IpAddr;

/// What all requests of a listener share.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) router: Router,
    pub(super) limits: HttpLimits,
    pub(super) in_flight: Arc<AtomicUsize>,
    pub(super) rate: Option<PerIp>,
}

/// A request under way: until its answer's body is handed over or dropped.
struct Ticket {
    guard: Arc<Guard>,
    /// Not while it waits to be looked at, and not with a body.
    in_flight: Option<Arc<AtomicUsize>>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(in_flight) = &self.in_flight {
            in_flight.fetch_sub(1, Ordering::Relaxed);
        }
        self.guard.end();
    }
}

/// An answer's body that keeps its request under way.
pub(super) struct Tracked {
    body: Body,
    _ticket: Ticket,
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Exchange {
    pub(super) async fn answer(&self, request: Request<Incoming>, guard: Arc<Guard>, peer: Peer) -> Response<Tracked> {
        let version = request.version();
        guard.begin(version == Version::HTTP_2);
        let mut ticket = Ticket { guard, in_flight: None };
        if let Some(left) = ticket.guard.too_soon() {
            tokio::time::sleep(left).await;
        }
        // Requests with bodies have bounds of their own, in bytes; counted here, a few slow ones would shut everybody out.
        let mut room = true;
        if request.body().is_end_stream() {
            room = self.in_flight.fetch_add(1, Ordering::Relaxed) < self.limits.in_flight;
            ticket.in_flight = Some(self.in_flight.clone());
        }
        // Closing with an unread body sends a reset, and the client would lose an answer it must not lose.
        if !request.body().is_end_stream() && version != Version::HTTP_2 {
            ticket.guard.linger();
        }
        let mut response = match self.admit(&request, room, peer) {
            Ok(()) => self.handle(request).await,
            Err(problem) => problem.into_response(),
        };
        let status = response.status();
        if status != StatusCode::NO_CONTENT {
            response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
                ticket.guard.sent_away();
            }
            if status.is_client_error() || status.is_server_error() {
                response = as_problem(response);
                // Part of the request may still be on its way, and nobody is going to read it.
                let cut_short = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE);
                if cut_short && version != Version::HTTP_2 {
                    ticket.guard.linger();
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
            }
        }
        response.map(|body| Tracked { body, _ticket: ticket })
    }

    /// Whether the request keeps to the bounds.
    fn admit(&self, request: &Request<Incoming>, room: bool, peer: Peer) -> Result<(), Problem> {
        let limits = &self.limits;
        if !room {
            let problem = Problem::new(Code::Overloaded, "too many requests are under way");
            return Err(problem.retry_spread(super::RETRY));
        }
        if let Some(rate) = &self.rate {
            rate.check(peer)?;
        }
        let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
        if target as u64 > limits.uri_bytes.0 {
            let detail = format!("the request target is longer than {} bytes", limits.uri_bytes.0);
            return Err(Problem::new(Code::UriTooLong, detail));
        }
        let headers = request.headers();
        if headers.len() > limits.header_count {
            let detail = format!("more than {} header fields", limits.header_count);
            return Err(Problem::new(Code::HeadersTooLarge, detail));
        }
        let fields: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if target + fields > limits.head_limit() {
            let detail = format!("request target and header fields take more than {} bytes", limits.head_bytes.0);
            return Err(Problem::new(Code::HeadersTooLarge, detail));
        }
        Ok(())
    }

    /// The router's answer, in time and without a panic.
    async fn handle(&self, request: Request<Incoming>) -> Response {
        let safe = request.method().is_safe();
        let mut time = self.limits.handler_timeout.0;
        if !request.body().is_end_stream() {
            time += self.limits.body_timeout.0;
        }
        let answer = AssertUnwindSafe(self.router.clone().call(request)).catch_unwind();
        match tokio::time::timeout(time, answer).await {
            Ok(Ok(Ok(response))) => response,
            Ok(Err(_)) => {
                tracing::error!("a handler panicked");
                Problem::new(Code::Internal, "a fault of the server").into_response()
            }
            Err(_) if safe => Problem::new(Code::Unavailable, "no answer in time").into_response(),
            Err(_) => Problem::new(Code::OutcomeUnknown, "no answer in time; the request may have taken effect")
                .into_response(),
        }
    }
}

/// Gives an error of the framework the form of ours, keeping headers such as Allow. Every error leaves with a request id:
/// it is also how the socket wrapper tells our answers from hyper's.
fn as_problem(mut response: Response) -> Response {
    if response.headers().contains_key(REQUEST_ID) {
        return response;
    }
    if response.extensions().get::<super::OwnForm>().is_some() {
        if let Ok(id) = HeaderValue::try_from(Uuid::now_v7().hyphenated().to_string()) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        return response;
    }
    let (code, detail) = code_of(response.status());
    let mut problem = Problem::new(code, detail).into_response();
    for (name, value) in response.headers() {
        if name == ALLOW || name == RETRY_AFTER || name == X_CONTENT_TYPE_OPTIONS {
            problem.headers_mut().insert(name, value.clone());
        }
    }
    problem
}
