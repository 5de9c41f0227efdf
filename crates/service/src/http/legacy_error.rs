//! Errors as the earlier system wrote them.

use std::time::Duration;

use ::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use ::http::{HeaderValue, StatusCode};
use axum::body::Body;
use axum::response::Response;
use serde::Serialize;

use super::FinalBody;
use super::problem::retry_seconds;

/// An error of the earlier system's calls: `{"error": text}`, not a problem document. 429 and 503 always have
/// `Retry-After`, as problems do.
pub fn legacy_error(status: StatusCode, text: &str, retry_after: Option<Duration>) -> Response {
    #[derive(Serialize)]
    struct Error<'a> {
        error: &'a str,
    }
    let mut response = Response::new(Body::from(serde_json::to_vec(&Error { error: text }).unwrap_or_default()));
    *response.status_mut() = status;
    response.extensions_mut().insert(FinalBody);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json;charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(seconds) = retry_seconds(status, retry_after) {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_errors_have_a_retry_time() {
        let after = |status, after| {
            let response = legacy_error(status, "x", after);
            response.headers().get(RETRY_AFTER).map(|seconds| seconds.to_str().unwrap().to_owned())
        };
        assert_eq!(after(StatusCode::TOO_MANY_REQUESTS, Some(Duration::from_millis(1_500))).as_deref(), Some("2"));
        assert_eq!(after(StatusCode::SERVICE_UNAVAILABLE, None).as_deref(), Some("1"));
        assert_eq!(after(StatusCode::NOT_FOUND, None), None);
    }
}
