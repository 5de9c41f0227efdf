//! What every handler of these routes shares: who makes the request, and how a result becomes a response.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::CACHE_CONTROL;
use millrace_contracts::Refusal;
use millrace_contracts::topics::Principal;
use millrace_service::Problem;
use millrace_service::auth::{Identity, Scope};

use crate::app::App;

/// Who makes a request.
pub(super) fn principal(request: &Incoming) -> Principal {
    let identity = Identity::of(request.extensions());
    Principal { name: identity.principal.to_string(), admin: identity.scopes.allow(Scope::Admin) }
}

/// A response of these routes: never stored by a cache.
pub(super) fn respond(result: Result<Response, Refusal>) -> Response {
    let mut response = result.unwrap_or_else(|refusal| Problem::from(refusal).into_response());
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(super) type Application = State<Arc<App>>;
pub(super) type Incoming = Request;
