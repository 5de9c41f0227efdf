//! `GET …/{subscription}/messages`: hands out messages.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::header::{ALLOW, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use millrace_contracts::topics::{Delivery, Pull, Reply, Request as Call};
use millrace_contracts::{Code, Refusal};
use millrace_service::http::query_string::{Unknown, parameters};

use super::directory::unexpected;
use super::exchange::{Application, Incoming, principal, respond};
use super::fields::{duration, query_number, time_text};
use super::path::Path;
use super::subscription::LEASE_MS;
use crate::app::App;

/// Most messages of a page.
pub(super) const MAX_MESSAGES: usize = 1_000;
/// Longest long poll in ms.
const MAX_WAIT_MS: u64 = 30_000;

/// Every method, as axum would add HEAD to GET: it would hand out messages that nobody sees.
pub(super) async fn get(state: Application, request: Incoming) -> Response {
    if request.method() == Method::GET {
        return respond(pull(&state.0, request).await);
    }
    get_only()
}

/// The answer to another method than GET.
pub(super) fn get_only() -> Response {
    let mut refused = respond(Err(Refusal::new(Code::MethodNotAllowed, "the route supports GET only")));
    refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    refused
}

async fn pull(app: &Arc<App>, request: Incoming) -> Result<Response, Refusal> {
    let by = principal(&request);
    let mut path = Path::of(request.uri());
    let (topic, subscription) = (path.topic()?, path.subscription()?);
    let names = ["max", "wait", "lease"];
    let [max, wait, lease] = parameters(request.uri().query().unwrap_or_default(), names, Unknown::Refuse)?;
    let max = max.map(|text| query_number(&text, "max", &(1..=MAX_MESSAGES))).transpose()?.unwrap_or(1);
    let wait_ms = wait.map(|text| duration(&text, "wait", &(0..=MAX_WAIT_MS))).transpose()?.unwrap_or(0);
    let lease_ms = lease.filter(|text| !text.is_empty()).map(|text| duration(&text, "lease", &LEASE_MS)).transpose()?;
    let call = Call::Pull(Pull { subscription, max, wait_ms, lease_ms });
    let reply = app.directory.call(&topic, by, call).await?;
    let Reply::Messages(messages) = reply else { return Err(unexpected()) };
    Ok(match messages.as_slice() {
        [] => empty(),
        [message, ..] if max == 1 => one(message),
        messages => many(messages),
    })
}

fn empty() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// The message's body as it was published, everything else in headers.
fn one(message: &Delivery) -> Response {
    let mut response = Response::new(Body::from(message.body.clone()));
    let headers = response.headers_mut();
    let octets = HeaderValue::from_static("application/octet-stream");
    headers.insert(CONTENT_TYPE, HeaderValue::try_from(&message.content_type).unwrap_or(octets));
    // It may be anybody's HTML.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    put(headers, "millrace-id", &message.id);
    put(headers, "millrace-offset", &message.offset.to_string());
    put(headers, "millrace-published-at", &time_text(message.published_ms).unwrap_or_default());
    put(headers, "millrace-token", &message.token);
    put(headers, "millrace-attempt", &message.attempt.to_string());
    if let Some(key) = &message.key {
        put(headers, "x-key", key);
    }
    for (name, value) in message.header_attributes() {
        put(headers, &name, &value);
    }
    response
}

fn put(headers: &mut HeaderMap, name: &str, value: &str) {
    // Names and values were checked when the message was published.
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
        headers.insert(name, value);
    }
}

fn many(messages: &[Delivery]) -> Response {
    let mut lines = Vec::with_capacity(messages.iter().map(|message| message.body.len() + 512).sum());
    for message in messages {
        message.write_line(Some(&message.token), &mut lines);
        lines.push(b'\n');
    }
    let mut response = Response::new(Body::from(lines));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
