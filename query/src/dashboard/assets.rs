//! The files of the dashboard.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::HeaderMap;
use axum::response::IntoResponse as _;
use axum::routing::get;
use millrace_contracts::Code;
use millrace_service::http::Asset;
use millrace_service::openapi::route;
use millrace_service::{Problem, asset};
use utoipa_axum::router::OpenApiRouter;

use super::openapi;

/// Allows only this service's own files, and neither frames around the page nor forms.
pub(crate) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

static PAGE: LazyLock<Asset> = LazyLock::new(|| asset!("index.html", "text/html; charset=utf-8", POLICY, br));

/// What the page loads.
pub(crate) static FILES: LazyLock<[Asset; 5]> = LazyLock::new(|| {
    [
        asset!("app.js", "text/javascript; charset=utf-8", POLICY, br),
        asset!("style.css", "text/css; charset=utf-8", POLICY, br),
        asset!("icon.svg", "image/svg+xml", POLICY, br),
        asset!("uPlot.iife.min.js", "text/javascript; charset=utf-8", POLICY, br),
        asset!("uPlot.min.css", "text/css; charset=utf-8", POLICY, br),
    ]
});

pub(super) fn router() -> OpenApiRouter {
    let file = |Path(name): Path<String>, headers: HeaderMap| {
        let found = FILES.iter().find(|file| file.name == name);
        let missing = || Problem::new(Code::NotFound, "no such file").into_response();
        std::future::ready(found.map_or_else(missing, |file| file.respond(&headers)))
    };
    OpenApiRouter::default()
        .routes(route("/", openapi::page(), get(async |headers: HeaderMap| PAGE.respond(&headers))))
        .routes(route("/assets/{file}", openapi::asset(), get(file)))
}
