//! A whole response.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::RETRY_AFTER;
use http::response::Parts;
use millrace_service::shown;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Status, headers and body of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    /// The status code.
    pub(crate) status: u16,
    /// Retry-After, if it is a number of seconds. (A date is valid, too, but Millrace sends none.)
    pub(crate) retry_after: Option<Duration>,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(crate) body: Bytes,
}

/// The two fields of a problem document that the tools print.
#[derive(Deserialize)]
struct Problem {
    code: String,
    detail: String,
}

impl Response {
    /// Joins head and body.
    pub(crate) fn new(head: Parts, body: Bytes) -> Self {
        let seconds = |value: &http::HeaderValue| value.to_str().ok()?.parse().ok();
        let retry_after = head.headers.get(RETRY_AFTER).and_then(seconds).map(Duration::from_secs);
        Self { status: head.status.as_u16(), retry_after, headers: head.headers, body }
    }

    /// The body as JSON.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_slice(&self.body)
            .map_err(|error| anyhow::anyhow!("the response is not the expected JSON: {error}"))
    }

    /// The code of the problem document in the body, if it is one.
    pub(crate) fn code(&self) -> Option<String> {
        serde_json::from_slice::<Problem>(&self.body).ok().map(|problem| problem.code)
    }

    /// Status, and code and detail of the problem document in the body, if it is one: `503 (overloaded: the queue is full)`.
    pub(crate) fn summary(&self) -> String {
        match serde_json::from_slice::<Problem>(&self.body) {
            Ok(problem) => format!("{} ({}: {})", self.status, shown(&problem.code), shown(&problem.detail)),
            Err(_) => self.status.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_includes_the_problem_of_millrace_only() {
        let of = |body: &'static str| {
            Response { status: 503, retry_after: None, headers: HeaderMap::new(), body: body.into() }.summary()
        };
        assert_eq!(of(r#"{"code":"overloaded","detail":"the queue is full"}"#), "503 (overloaded: the queue is full)");
        assert_eq!(of("<html>bad gateway</html>"), "503");
    }
}
