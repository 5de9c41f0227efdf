//! The routes that take events: one event, a batch, and the pixel.

mod batch;
mod cbor;
mod cloud_event;
mod csv;
mod event;
mod event_fields;
mod event_id;
mod field;
mod format;
mod items;
mod json;
mod openapi;
mod pixel;
mod single;

use std::sync::Arc;

use axum::routing::{any, post};
use millrace_contracts::Code;
use millrace_service::Problem;
use millrace_service::openapi::route;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// Who reads here has taken the one side for the other.
async fn read_elsewhere() -> Problem {
    let detail = "this is the write side; the counts are on the read side (query.listen, port 8082 by default)";
    Problem::new(Code::MethodNotAllowed, detail)
}

/// The routes and their OpenAPI document.
pub(crate) fn routes(app: &App) -> OpenApiRouter<Arc<App>> {
    let config = &app.config;
    OpenApiRouter::with_openapi(openapi::document())
        .routes(route("/analytics", openapi::single(config), post(single::post).fallback(read_elsewhere)))
        .routes(route("/analytics/batch", openapi::batch(config), post(batch::post)))
        .routes(route("/pixel.gif", openapi::pixel(config), any(pixel::get)))
}
