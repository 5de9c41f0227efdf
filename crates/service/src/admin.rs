//! The routes and bounds of a process's admin listener: health with reasons, and metrics.

use ::http::header::CONTENT_TYPE;
use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;

use crate::health::{Detail, Health};
use crate::telemetry;

/// `GET /livez`, `/readyz` (with the reasons) and `/metrics`. For the admin listener only: reasons may
/// reveal addresses and errors.
pub fn router(health: &Health) -> Router {
    let metrics = telemetry::metrics();
    let render = move || {
        metrics.run_upkeep();
        let text = metrics.render();
        std::future::ready(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
    };
    health.routes(Detail::Reasons).route("/metrics", get(render))
}
