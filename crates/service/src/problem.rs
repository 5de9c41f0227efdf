//! Problem documents (RFC 9457): how everything that is not a success is answered.

use std::borrow::Cow;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::time::Duration;

use ::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use ::http::{HeaderName, HeaderValue, StatusCode};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use millrace_contracts::{Code, metric};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::status_of;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";
const DEFAULT_RETRY: Duration = Duration::from_secs(1);
/// How far the times are spread at which those refused together are asked back, in seconds.
const RETRY_SPREAD: u64 = 4;

/// What went wrong with a request, in the words of the one list of codes. Its status follows from the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The stable word.
    pub code: Code,
    /// The parameter, field or header it is about.
    pub field: Option<Cow<'static, str>>,
    /// The sentence for a person. Input in it has passed [`shown`](crate::shown).
    pub detail: Cow<'static, str>,
    /// When to try again; 429 and 503 always say it, one second if nothing else is given. Rounded up to seconds.
    pub retry_after: Option<Duration>,
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
    /// For people; may change.
    detail: &'a str,
    /// Stable, made to be matched on.
    code: &'static str,
    /// The parameter, field or header that is at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    field: Option<&'a str>,
    /// Also in the header `X-Request-Id`.
    request_id: &'a str,
}

/// A problem as it goes out.
struct Rendered {
    status: StatusCode,
    request_id: String,
    retry_after: Option<u64>,
    body: Vec<u8>,
}

impl Problem {
    /// A problem with a sentence for a person.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, field: None, detail: detail.into(), retry_after: None }
    }

    /// Names the parameter, field or header.
    #[must_use]
    pub fn field(self, name: impl Into<Cow<'static, str>>) -> Self {
        Self { field: Some(name.into()), ..self }
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after(self, after: Duration) -> Self {
        Self { retry_after: Some(after), ..self }
    }

    /// Says when to try again: after this long or up to three seconds later, by chance, so that those who are refused
    /// together do not come back together.
    #[must_use]
    pub fn retry_spread(self, after: Duration) -> Self {
        // Every new state of the standard hasher has other keys, and only a thread's first one asks the system.
        let chance = RandomState::new().hash_one(()) % RETRY_SPREAD;
        self.retry_after(after + Duration::from_secs(chance))
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        status_of(self.code)
    }

    fn render(&self) -> Rendered {
        let status = self.status();
        let request_id = Uuid::now_v7().hyphenated().to_string();
        let mut title = self.code.as_str().replace('-', " ");
        title[..1].make_ascii_uppercase();
        let document = Document {
            r#type: format!("urn:millrace:problem:{}", self.code),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            code: self.code.as_str(),
            field: self.field.as_deref(),
            request_id: &request_id,
        };
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let says_when = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let after = self.retry_after.or(says_when.then_some(DEFAULT_RETRY));
        let retry_after = after.map(|after| after.as_secs() + u64::from(after.subsec_nanos() > 0));
        metrics::counter!(metric::HTTP_PROBLEMS.name, "code" => self.code.as_str()).increment(1);
        tracing::debug!(code = %self.code, field = self.field.as_deref(), request_id, "problem answered");
        Rendered { status, request_id, retry_after, body }
    }

    /// The whole answer as HTTP/1.1 bytes, for a connection whose framing is lost.
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
    fn a_problem_says_when_to_try_again() {
        let problem = Problem::new(Code::Overloaded, "the queue is full").retry_after(Duration::from_millis(1500));
        let response = problem.into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        assert_eq!(Problem::new(Code::Unavailable, "").into_response().headers()[RETRY_AFTER], "1");
        assert!(!Problem::new(Code::NotFound, "").into_response().headers().contains_key(RETRY_AFTER));
    }

    #[test]
    fn those_refused_together_are_asked_back_apart() {
        let after = |_| Problem::new(Code::Overloaded, "").retry_spread(Duration::from_secs(2)).retry_after;
        let times: std::collections::HashSet<_> = (0..200).filter_map(after).map(|after| after.as_secs()).collect();
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
