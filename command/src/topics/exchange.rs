//! What every handler of these routes shares: who makes the request, and how a result becomes a response.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::CACHE_CONTROL;
use millrace_contracts::Refusal;
use millrace_contracts::topics::Principal;
use millrace_service::Problem;

use crate::app::App;

/// Who makes a request. There is no authentication yet: everybody is `anonymous`, who manages every topic.
pub(super) fn principal() -> Principal {
    Principal { name: "anonymous".into(), admin: true }
}

/// A response of these routes: never stored by a cache.
pub(super) fn respond(result: Result<Response, Refusal>) -> Response {
    let mut response = result.unwrap_or_else(|refusal| Problem::from(refusal).into_response());
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(super) type Application = State<Arc<App>>;
pub(super) type Incoming = Request;
