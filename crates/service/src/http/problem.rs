//! Problem documents (RFC 9457): how HTTP renders a refusal.

use std::borrow::Cow;
use std::ops::Deref;
use std::time::Duration;

use ::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use ::http::{HeaderName, HeaderValue, StatusCode};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use millrace_base::backoff::jitter;
use millrace_contracts::{Code, Refusal, metric};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::status::status_of;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const EXAMPLE_ID: &str = "01a1fdf0-c2c3-7118-870e-87dbbd299528";
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";
/// When to retry after a refusal because too much is under way, without the spread.
pub(super) const RETRY: Duration = Duration::from_secs(1);
/// The range of retry times of requests that are refused together.
const RETRY_SPREAD: Duration = Duration::from_secs(4);

/// The code of a response that is a problem document or an error of the earlier system's calls.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RefusalCode(pub(crate) Code);

/// A time to retry: after `least`, or up to three whole seconds later at random, so that clients that are refused
/// together do not come back together.
pub fn spread_retry(least: Duration) -> Duration {
    least + Duration::from_secs(jitter(RETRY_SPREAD).as_secs())
}

/// The seconds of `Retry-After`, rounded up: of 429 and 503 always, by default one.
pub(super) fn retry_seconds(status: StatusCode, after: Option<Duration>) -> Option<u64> {
    let temporary = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let after = after.or(temporary.then_some(RETRY))?;
    Some(after.as_secs() + u64::from(after.subsec_nanos() > 0))
}

/// A refusal as an HTTP response. Its status follows from its code. 429 and 503 always have `Retry-After`, one second
/// unless the refusal has a time; it is rounded up to seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem(Refusal);

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl Deref for Problem {
    type Target = Refusal;

    fn deref(&self) -> &Refusal {
        &self.0
    }
}

/// A problem document (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Document<'a> {
    /// `urn:millrace:problem:` and the code.
    r#type: String,
    /// The code in words.
    title: String,
    status: u16,
    /// A sentence for people; may change.
    detail: &'a str,
    /// Stable; clients may match on it.
    code: &'static str,
    /// The parameter, field or header at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    field: Option<&'a str>,
    /// Also in the header `X-Request-Id`.
    request_id: &'a str,
}

impl<'a> Document<'a> {
    fn new(refusal: &'a Refusal, request_id: &'a str) -> Self {
        let mut title = refusal.code.as_str().replace('-', " ");
        title[..1].make_ascii_uppercase();
        Self {
            r#type: format!("urn:millrace:problem:{}", refusal.code),
            title,
            status: status_of(refusal.code).as_u16(),
            detail: &refusal.detail,
            code: refusal.code.as_str(),
            field: refusal.field.as_deref(),
            request_id,
        }
    }
}

/// A problem document of a code as its response may have it.
pub(crate) fn example(code: Code) -> serde_json::Value {
    let mut detail = code.meaning().trim_end_matches('.').to_owned();
    detail[..1].make_ascii_lowercase();
    let document = serde_json::to_value(Document::new(&Refusal::new(code, detail), EXAMPLE_ID));
    document.expect("texts and numbers are JSON")
}

/// A problem ready to be sent.
struct Rendered {
    status: StatusCode,
    request_id: String,
    retry_after: Option<u64>,
    body: Vec<u8>,
}

impl Problem {
    /// A problem with its sentence for a person.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Refusal::new(code, detail))
    }

    /// Names the parameter, field or header at fault.
    #[must_use]
    pub fn field(self, name: impl Into<Cow<'static, str>>) -> Self {
        Self(self.0.field(name))
    }

    /// Sets the earliest time to try again.
    #[must_use]
    pub fn retry_after(self, after: Duration) -> Self {
        Self(self.0.retry_after(after))
    }

    fn render(&self) -> Rendered {
        let status = status_of(self.code);
        let request_id = Uuid::now_v7().hyphenated().to_string();
        let mut body = serde_json::to_vec(&Document::new(&self.0, &request_id)).unwrap_or_default();
        body.push(b'\n');
        let retry_after = retry_seconds(status, self.retry_after);
        metrics::counter!(metric::HTTP_PROBLEMS.name, "code" => self.code.as_str()).increment(1);
        tracing::debug!(code = %self.code, field = self.field.as_deref(), request_id, "answering a problem");
        Rendered { status, request_id, retry_after, body }
    }

    /// The whole response as HTTP/1.1 bytes, for a connection without a valid request.
    pub(crate) fn into_http1(self) -> Vec<u8> {
        let Rendered { status, request_id, retry_after, body } = self.render();
        let retry = retry_after.map(|seconds| format!("retry-after: {seconds}\r\n")).unwrap_or_default();
        let head = format!(
            "HTTP/1.1 {} {}\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {}\r\ncache-control: no-store\r\n\
             x-request-id: {request_id}\r\n{retry}connection: close\r\n\r\n",
            status.as_u16(),
            status.canonical_reason().unwrap_or_default(),
            body.len(),
        );
        [head.into_bytes(), body].concat()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Rendered { status, request_id, retry_after, body } = self.render();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        response.extensions_mut().insert(RefusalCode(self.code));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Ok(id) = HeaderValue::try_from(request_id) {
            headers.insert(REQUEST_ID, id);
        }
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_refusals_have_a_retry_time() {
        let problem = Problem::new(Code::Overloaded, "the queue is full").retry_after(Duration::from_millis(1500));
        let response = problem.into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        assert_eq!(Problem::new(Code::Unavailable, "").into_response().headers()[RETRY_AFTER], "1");
        assert!(!Problem::new(Code::NotFound, "").into_response().headers().contains_key(RETRY_AFTER));
    }

    #[test]
    fn retry_times_are_spread_over_whole_seconds() {
        let times: std::collections::HashSet<_> =
            (0..200).map(|_| spread_retry(Duration::from_secs(2)).as_secs()).collect();
        assert_eq!(times, (2..6).collect());
    }

    #[test]
    fn the_document_has_every_member() {
        let bytes = Problem::new(Code::InvalidField, "not a number").field("timestamp").into_http1();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
        let document: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(document["type"], "urn:millrace:problem:invalid-field");
        assert_eq!(document["title"], "Invalid field");
        assert_eq!((document["status"].as_u64(), document["code"].as_str()), (Some(400), Some("invalid-field")));
        assert_eq!(
            (document["field"].as_str(), document["detail"].as_str()),
            (Some("timestamp"), Some("not a number"))
        );
        assert!(head.contains(&format!("x-request-id: {}\r\n", document["request_id"].as_str().unwrap())), "{head}");
    }
}
