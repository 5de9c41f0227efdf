//! The page at `/`: its files, compiled in and compressed beforehand, and `/status`, what the page says of the pipeline.
//!
//! The page itself is in `assets/`. It asks nothing but this service: `/analytics/live`, `/analytics/range`, `/status`.

pub(crate) mod assets;
mod peek;
mod samples;
mod status;

use std::sync::Arc;

use axum::routing::get;
use millrace_service::openapi::route;
use utoipa_axum::router::OpenApiRouter;

use crate::openapi::page as openapi;

pub(crate) use status::{Report, Status};

/// `/`, `/assets/…` and `/status`.
pub(crate) fn router(status: Arc<Status>) -> OpenApiRouter {
    let report = OpenApiRouter::default().routes(route("/status", openapi::status(), get(status::answer)));
    assets::router().merge(report.with_state(status))
}
