//! Errors as the earlier system wrote them.

use ::http::HeaderValue;
use ::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::body::Body;
use axum::response::Response;
use millrace_contracts::Refusal;
use serde::Serialize;

use super::problem::{RefusalCode, retry_seconds};
use super::{FinalBody, status_of};

/// An error of the earlier system's calls: `{"error": text}`, not a problem document. 429 and 503 always have
/// `Retry-After`, as problems do.
pub fn legacy_error(refusal: &Refusal) -> Response {
    #[derive(Serialize)]
    struct Error<'a> {
        error: &'a str,
    }
    let status = status_of(refusal.code);
    let error = Error { error: &refusal.detail };
    let mut response = Response::new(Body::from(serde_json::to_vec(&error).unwrap_or_default()));
    *response.status_mut() = status;
    response.extensions_mut().insert(FinalBody);
    response.extensions_mut().insert(RefusalCode(refusal.code));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json;charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(seconds) = retry_seconds(status, refusal.retry_after) {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use millrace_contracts::Code;

    use super::*;

    #[test]
    fn temporary_errors_have_a_retry_time() {
        let after = |refusal: Refusal| {
            let response = legacy_error(&refusal);
            response.headers().get(RETRY_AFTER).map(|seconds| seconds.to_str().unwrap().to_owned())
        };
        let limited = Refusal::new(Code::RateLimited, "x").retry_after(Duration::from_millis(1_500));
        assert_eq!(after(limited).as_deref(), Some("2"));
        assert_eq!(after(Refusal::new(Code::Unavailable, "x")).as_deref(), Some("1"));
        assert_eq!(after(Refusal::new(Code::NotFound, "x")), None);
    }
}
