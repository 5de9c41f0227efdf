//! The files of the dashboard.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use millrace_contracts::Code;
use millrace_service::http::Asset;
use millrace_service::http::page::{self, POLICY};
use millrace_service::{Problem, asset};

static PAGE: LazyLock<Asset> = LazyLock::new(|| asset!("index.html", "text/html; charset=utf-8", POLICY, br));

/// What the page loads.
pub(crate) static FILES: LazyLock<[Asset; 10]> = LazyLock::new(|| {
    [
        asset!("app.js", "text/javascript; charset=utf-8", POLICY, br),
        asset!("chart.js", "text/javascript; charset=utf-8", POLICY, br),
        asset!("range.js", "text/javascript; charset=utf-8", POLICY, br),
        asset!("pipeline.js", "text/javascript; charset=utf-8", POLICY, br),
        page::script(),
        page::style(),
        asset!("dashboard.css", "text/css; charset=utf-8", POLICY, br),
        page::icon(),
        asset!("uPlot.iife.min.js", "text/javascript; charset=utf-8", POLICY, br),
        asset!("uPlot.min.css", "text/css; charset=utf-8", POLICY, br),
    ]
});

/// `GET /`
pub(super) async fn index(headers: HeaderMap) -> Response {
    PAGE.respond(&headers)
}

/// `GET /assets/{file}`
pub(super) async fn file(Path(name): Path<String>, headers: HeaderMap) -> Response {
    match FILES.iter().find(|file| file.name == name) {
        Some(file) => file.respond(&headers),
        None => Problem::new(Code::NotFound, "no such file").into_response(),
    }
}
