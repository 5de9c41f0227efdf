//! The internal listener: calls of other processes' front ends.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use millrace_contracts::topics::{decode_call, encode_reply};
use millrace_contracts::{Code, Refusal};
use millrace_service::Problem;
use millrace_service::http::{HttpLimits, read_body};
use millrace_service::net::MemoryBudget;

use crate::Coordinators;

struct App {
    coordinators: Coordinators,
    limits: HttpLimits,
    bodies: MemoryBudget,
}

/// The routes of the internal listener. Calls carry the principal that the caller has authenticated, so whoever may call can
/// act for anybody: with authentication on, put it behind the scope `admin`.
pub fn internal_router(coordinators: Coordinators, limits: HttpLimits, bodies: MemoryBudget) -> Router {
    let app = Arc::new(App { coordinators, limits, bodies });
    Router::new().route(millrace_contracts::topics::CALLS_PATH, post(call)).with_state(app)
}

async fn call(State(app): State<Arc<App>>, request: Request) -> Response {
    match answer(&app, request).await {
        Ok(bytes) => Response::new(Body::from(bytes)),
        Err(refusal) => Problem::from(refusal).into_response(),
    }
}

async fn answer(app: &App, request: Request) -> Result<Vec<u8>, Refusal> {
    let body = read_body(request, &app.limits, &app.bodies).await?;
    let malformed = |error: millrace_contracts::topics::WireError| Refusal::new(Code::MalformedBody, error.to_string());
    let call = decode_call(&body).map_err(malformed)?;
    encode_reply(app.coordinators.call(call).await).map_err(malformed)
}
