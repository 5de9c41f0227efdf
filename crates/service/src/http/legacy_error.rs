//! Errors as the earlier system wrote them.

use ::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use ::http::{HeaderValue, StatusCode};
use axum::body::Body;
use axum::response::Response;
use serde::Serialize;

use super::FinalBody;

/// An error of the earlier system's calls: `{"error": text}`, not a problem document.
pub fn legacy_error(status: StatusCode, text: &str) -> Response {
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
    response
}
