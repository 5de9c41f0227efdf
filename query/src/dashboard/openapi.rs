//! The dashboard, its assets and `/status` in the OpenAPI document.

use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, IF_NONE_MATCH, REFERRER_POLICY, VARY};
use millrace_contracts::Code;
use millrace_service::http::REVALIDATE;
use millrace_service::openapi::{
    EVERY_REQUEST, answer, fixed, get, header, operation, part, problems, request_header, some, text, words,
};
use utoipa::ToSchema as _;
use utoipa::openapi::path::{OperationBuilder, PathItem};
use utoipa::openapi::{Components, Ref, ResponseBuilder};

use super::assets::{FILES, POLICY};
use super::status::StatusReport;
use crate::analytics::openapi::{add, media};

const DASHBOARD: &str = "Dashboard";

/// Adds the schemas of bodies.
pub(crate) fn schemas(components: &mut Components) {
    add::<StatusReport>(components);
}

/// `GET /`
pub(crate) fn page() -> PathItem {
    let operation = file("page", "The dashboard: counts and the state of the pipeline.");
    let operation = operation.response("200", cached("The page.").content("text/html", some(text())));
    get(problems(operation, EVERY_REQUEST))
}

/// `GET /assets/{file}`
pub(crate) fn asset() -> PathItem {
    let found =
        FILES.iter().fold(cached("The file."), |found, file| found.content(media(file.media_type), some(text())));
    let operation = file("asset", "A file of the dashboard.")
        .parameter(part("file", "The name of the file.", words(FILES.iter().map(|file| file.name))))
        .response("200", found);
    get(problems(operation, &[EVERY_REQUEST, &[Code::NotFound]].concat()))
}

/// `GET /status`
pub(crate) fn status() -> PathItem {
    let report = answer("The report, at most a second old.")
        .header(CACHE_CONTROL.as_str(), fixed("no-store"))
        .content("application/json", some(Ref::from_schema_name(StatusReport::name())));
    let about = "The state of the pipeline, from the metrics of this process and of those in `query.watch`.";
    get(problems(operation("status", DASHBOARD, about).response("200", report), EVERY_REQUEST))
}

fn file(id: &str, about: &str) -> OperationBuilder {
    operation(id, DASHBOARD, about)
        .parameter(request_header(&IF_NONE_MATCH, "Entity tags of cached responses.", text()))
        .response("304", cached("The cached response is current."))
}

fn cached(about: &str) -> ResponseBuilder {
    answer(about)
        .header(CACHE_CONTROL.as_str(), fixed(REVALIDATE))
        .header(VARY.as_str(), fixed("Accept-Encoding"))
        .header(ETAG.as_str(), header("Strong.", text()))
        .header(CONTENT_SECURITY_POLICY.as_str(), fixed(POLICY))
        .header(REFERRER_POLICY.as_str(), fixed("no-referrer"))
}
