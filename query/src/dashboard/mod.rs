//! The dashboard at `/`, compiled in and compressed at build time, and `/status`, the state of the pipeline that it shows.
//!
//! Its files are in `assets/`. It requests nothing but this service: `/analytics/live`, `/analytics/range`, `/status`.

mod assets;
pub(crate) mod openapi;
mod scrape;
pub(crate) mod status;

use std::sync::Arc;

use axum::routing::get;
use millrace_service::openapi::route;
use utoipa_axum::router::OpenApiRouter;

use status::StatusReporter;

/// `/`, `/assets/…` and `/status`.
pub(crate) fn router(reporter: Arc<StatusReporter>) -> OpenApiRouter {
    OpenApiRouter::default()
        .routes(route("/status", openapi::status(), get(status::status)))
        .with_state(reporter)
        .routes(route("/", openapi::page(), get(assets::page)))
        .routes(route("/assets/{file}", openapi::asset(), get(assets::file)))
}
