//! One request and its answer: bounds before the router, problem documents after it.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ::http::header::{ALLOW, CONNECTION, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use ::http::{HeaderValue, Request, StatusCode, Version};
use axum::Router;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use hyper::body::{Body as _, Incoming};
use millrace_contracts::{Code, Refusal};
use tower::Service;
use uuid::Uuid;

use super::answer_body::{AnswerBody, Ticket};
use super::forwarding::client_of;
use super::guard::Guard;
use super::problem::{Problem, REQUEST_ID, RETRY, RefusalCode, spread_retry};
use super::status::refusal_of;
use super::stream::{Deliveries, Progress};
use super::{Hosts, HttpLimits, host};
use crate::net::{Proxies, RateLimit};

/// Marks an error response whose body stays as it is, instead of becoming a problem document: put it into the response's
/// extensions.
#[derive(Debug, Clone, Copy)]
pub struct FinalBody;

/// Marks a response without an end of its own, such as a stream of events: put it into the response's extensions. In
/// HTTP/1 it ends as soon as the client closes its side of the connection.
#[derive(Debug, Clone, Copy)]
pub struct Endless;

/// The address of a request's client, in the extensions of every request that a handler sees: that of its connection, or what
/// trusted proxies state.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// What all requests of a listener share.
pub(super) struct Exchange {
    pub(super) router: Router,
    pub(super) limits: HttpLimits,
    pub(super) proxies: Proxies,
    pub(super) in_flight: AtomicUsize,
    pub(super) deliveries: Deliveries,
    pub(super) rate_limit: Option<RateLimit>,
    pub(super) hosts: Hosts,
}

/// A request without a body that is being handled, one of [`HttpLimits::max_in_flight`]. How long its answer takes to leave
/// is up to the client, so that does not count.
struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Exchange {
    /// Answers a request. `peer` is the address of the connection.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        guard: Arc<Guard>,
        peer: IpAddr,
    ) -> Response<AnswerBody> {
        let version = request.version();
        guard.begin();
        let ticket = Ticket(guard);
        let guard = &ticket.0;
        let safe = request.method().is_safe();
        // Whoever asks for the health decides whether this process lives: it never waits behind other requests.
        let health = matches!(request.uri().path(), "/livez" | "/readyz");
        if !health && let Some(pause) = guard.pause() {
            tokio::time::sleep(pause).await;
        }
        let client = client_of(&self.proxies, peer, request.headers());
        // Closing with an unread body sends a reset, and the client might lose its answer.
        if !request.body().is_end_stream() && version != Version::HTTP_2 {
            guard.linger();
        }
        let progress = Progress::of_this_stream();
        // Before the request takes effect: a pull hands messages out, although it is a GET.
        let full = progress.is_some() && safe && !health && self.deliveries.is_full();
        let mut response = match self.admit(&request, health, client) {
            Ok(_) if full => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            Ok(_in_flight) => self.handle(request, client).await,
            Err(refusal) => Problem::from(refusal).into_response(),
        };
        let status = response.status();
        if status != StatusCode::NO_CONTENT {
            response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
                guard.refuse();
            }
            if status.is_client_error() || status.is_server_error() {
                response = as_problem(response);
                // Part of the request may still arrive, and nothing reads it.
                let cut_short = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE);
                if cut_short && version != Version::HTTP_2 {
                    guard.linger();
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
            }
        }
        guard.answer();
        if version != Version::HTTP_2 && response.extensions().get::<Endless>().is_some() {
            guard.set_endless();
        }
        let mut delivery = None;
        if full {
            // Without a body nobody has to take it.
            let retry_after = HeaderValue::from(spread_retry(RETRY).as_secs());
            response = (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, retry_after)]).into_response();
        } else if progress.is_some() && !health && !response.body().is_end_stream() {
            delivery = Some(self.deliveries.add());
        }
        response.map(|body| AnswerBody::new(body, progress, delivery, ticket))
    }

    /// Admits a request within the bounds.
    fn admit(
        &self,
        request: &Request<Incoming>,
        health: bool,
        client: IpAddr,
    ) -> Result<Option<InFlight<'_>>, Refusal> {
        // Requests with bodies have a bound of their own, in bytes; counted here, a few slow ones would lock everyone out.
        let mut in_flight = None;
        if request.body().is_end_stream() && !health {
            let others = self.in_flight.fetch_add(1, Ordering::Relaxed);
            in_flight = Some(InFlight(&self.in_flight));
            if others >= self.limits.max_in_flight {
                return Err(overloaded());
            }
        }
        self.check(request, health, client)?;
        Ok(in_flight)
    }

    /// Whether the request is within the bounds of one request.
    fn check(&self, request: &Request<Incoming>, health: bool, client: IpAddr) -> Result<(), Refusal> {
        let limits = &self.limits;
        if !health
            && let Some(rate_limit) = &self.rate_limit
            && let Err(limited) = rate_limit.check(client)
        {
            let refusal = Refusal::new(Code::RateLimited, "too many requests from this address");
            return Err(refusal.retry_after(limited.retry_after));
        }
        let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
        if target > limits.max_target() {
            let detail = format!("the request target is longer than {} bytes", limits.max_uri_bytes.0);
            return Err(Refusal::new(Code::UriTooLong, detail));
        }
        let headers = request.headers();
        if headers.len() > limits.max_headers {
            let detail = format!("more than {} header fields", limits.max_headers);
            return Err(Refusal::new(Code::HeadersTooLarge, detail));
        }
        let fields: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if target + fields > limits.head_limit() {
            let detail = format!("request target and header fields exceed {} bytes", limits.max_head_bytes.0);
            return Err(Refusal::new(Code::HeadersTooLarge, detail));
        }
        host::check(request, &self.hosts, health)
    }

    /// The router's answer, within its timeout and without a panic.
    async fn handle(&self, mut request: Request<Incoming>, client: IpAddr) -> Response {
        request.extensions_mut().insert(Peer(client));
        let safe = request.method().is_safe();
        let mut timeout = self.limits.handler_timeout.0;
        if !request.body().is_end_stream() {
            timeout += self.limits.body_timeout.0;
        }
        let answer = AssertUnwindSafe(self.router.clone().call(request)).catch_unwind();
        let refusal = match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(Ok(response))) => return response,
            Ok(Err(_)) => {
                tracing::error!("a handler panicked");
                Refusal::new(Code::Internal, "a fault of the server")
            }
            Err(_) if safe => Refusal::new(Code::Unavailable, "no answer in time"),
            Err(_) => Refusal::new(Code::OutcomeUnknown, "no answer in time; the request may have taken effect"),
        };
        Problem::from(refusal).into_response()
    }
}

fn overloaded() -> Refusal {
    Refusal::new(Code::Overloaded, "too many requests are under way").retry_after(spread_retry(RETRY))
}

/// Turns an error of the framework into a problem document, with headers such as Allow. Every error leaves with a
/// request id.
fn as_problem(mut response: Response) -> Response {
    if response.extensions().get::<FinalBody>().is_some() {
        if let Ok(id) = HeaderValue::try_from(Uuid::now_v7().hyphenated().to_string()) {
            response.headers_mut().entry(REQUEST_ID).or_insert(id);
        }
        return response;
    }
    if response.extensions().get::<RefusalCode>().is_some() {
        return response;
    }
    let mut problem = Problem::from(refusal_of(response.status())).into_response();
    for (name, value) in response.headers() {
        if name == ALLOW || name == RETRY_AFTER || name == X_CONTENT_TYPE_OPTIONS {
            problem.headers_mut().insert(name, value.clone());
        }
    }
    problem
}
