//! The dashboard at `/`, compiled in and compressed at build time, and `/status`, the state of the pipeline that it shows.
//!
//! Its files are in `assets/`. It requests nothing but this service: `/analytics/live`, `/analytics/range`, `/status`.

mod assets;
pub(crate) mod openapi;
mod scrape;
pub(crate) mod status;

use std::sync::Arc;

use axum::routing::get;
use millrace_service::http::OtherSide;
use millrace_service::openapi::route;
use utoipa_axum::router::OpenApiRouter;

use status::StatusReporter;

/// `/`, `/assets/…`, `/status`, and the way to the page of topics, which is on the write side beside its API.
pub(crate) fn router(reporter: Arc<StatusReporter>, write_side: OtherSide) -> OpenApiRouter {
    let missing =
        "topics are on the write side (command.listen, port 8081 by default); query.command_url can have its URL";
    let topics = move || std::future::ready(write_side.redirect("/topics", missing));
    OpenApiRouter::default()
        .routes(route("/topics", openapi::topics(), get(topics)))
        .routes(route("/status", openapi::status(), get(status::status)))
        .with_state(reporter)
        .routes(route("/", openapi::page(), get(assets::index)))
        .routes(route("/assets/{file}", openapi::asset(), get(assets::file)))
}
