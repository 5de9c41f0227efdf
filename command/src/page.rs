//! The page of topics at `/topics`, compiled in, and the way to the dashboard, which is on the read side.
//!
//! It is here because its data and its acts are: it calls `/v1/topics` as any client does, from the same origin, with the
//! credential that the browser has for it. Its files are in `assets/`.

use std::future::ready;
use std::sync::{Arc, LazyLock};

use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::HeaderMap;
use millrace_contracts::{Code, Refusal};
use millrace_service::Problem;
use millrace_service::http::page::{self, POLICY};
use millrace_service::http::{Asset, OtherSide};
use millrace_service::openapi::{
    self, EVERY_REQUEST, asset_operation, asset_response, part, problems, route, some, text, to_other_side, words,
};
use utoipa::openapi::path::PathItem;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

const GROUP: &str = "Page";

static PAGE: LazyLock<Asset> = LazyLock::new(|| {
    let plain = &include_bytes!("../assets/topics.html")[..];
    Asset::gzipped("topics.html", "text/html; charset=utf-8", POLICY, plain)
});

/// What the page loads.
static FILES: LazyLock<[Asset; 7]> = LazyLock::new(|| {
    let script = "text/javascript; charset=utf-8";
    [
        page::style(),
        page::script(),
        page::icon(),
        Asset::gzipped("topics.css", "text/css; charset=utf-8", POLICY, &include_bytes!("../assets/topics.css")[..]),
        Asset::gzipped("topics.js", script, POLICY, &include_bytes!("../assets/topics.js")[..]),
        Asset::gzipped("subscription.js", script, POLICY, &include_bytes!("../assets/subscription.js")[..]),
        Asset::gzipped("confirm.js", script, POLICY, &include_bytes!("../assets/confirm.js")[..]),
    ]
});

/// `/topics`, `/topics/…`, and `/`.
pub(crate) fn routes(read_side: OtherSide) -> OpenApiRouter<Arc<App>> {
    let missing =
        "the dashboard is on the read side (query.listen, port 8082 by default); command.query_url can have its URL";
    let dashboard = move || ready(read_side.redirect("/", missing));
    OpenApiRouter::new()
        .routes(route("/", openapi::get(to_dashboard()), get(dashboard)))
        .routes(route("/topics", document(), get(async |headers: HeaderMap| PAGE.respond(&headers))))
        .routes(route("/topics/{file}", file_document(), get(file)))
}

/// `GET /topics/{file}`
async fn file(Path(name): Path<String>, headers: HeaderMap) -> Response {
    match FILES.iter().find(|file| file.name == name) {
        Some(file) => file.respond(&headers),
        None => Problem::from(Refusal::new(Code::NotFound, "no such file")).into_response(),
    }
}

fn to_dashboard() -> utoipa::openapi::path::OperationBuilder {
    to_other_side("dashboard", GROUP, "Redirects to the dashboard on the read side.", "command.query_url")
}

fn document() -> PathItem {
    let about = "The page of topics: subscriptions, their backlogs, deliveries and dead letters.";
    let page = asset_response("The page.", POLICY).content(PAGE.media_type, some(text()));
    openapi::get(problems(asset_operation("topicsPage", GROUP, about, POLICY).response("200", page), EVERY_REQUEST))
}

fn file_document() -> PathItem {
    // A media type stands once.
    let found = FILES
        .iter()
        .fold(asset_response("The file.", POLICY), |found, file| found.content(file.media_type, some(text())));
    let operation = asset_operation("topicsPageFile", GROUP, "A file of the page of topics.", POLICY)
        .parameter(part("file", "Its name.", words(FILES.iter().map(|file| file.name))))
        .response("200", found);
    openapi::get(problems(operation, &[EVERY_REQUEST, &[Code::NotFound]].concat()))
}
