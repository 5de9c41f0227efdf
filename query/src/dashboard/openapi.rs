//! The dashboard, its assets and `/status` in the OpenAPI document.

use axum::http::header::CACHE_CONTROL;
use millrace_contracts::Code;
use millrace_service::http::page::POLICY;
use millrace_service::openapi::{
    EVERY_REQUEST, answer, asset_operation, asset_response, fixed, get, operation, part, problems, some, text,
    to_other_side, words,
};
use utoipa::ToSchema as _;
use utoipa::openapi::path::PathItem;
use utoipa::openapi::{Components, Ref};

use super::assets::FILES;
use super::status::StatusReport;
use crate::analytics::openapi::{add, media};

const DASHBOARD: &str = "Dashboard";

/// Adds the schemas of bodies.
pub(crate) fn schemas(components: &mut Components) {
    add::<StatusReport>(components);
}

/// `GET /`
pub(crate) fn page() -> PathItem {
    let operation = asset_operation("page", DASHBOARD, "The dashboard: counts and the state of the pipeline.", POLICY);
    let operation = operation.response("200", asset_response("The page.", POLICY).content("text/html", some(text())));
    get(problems(operation, EVERY_REQUEST))
}

/// `GET /topics`
pub(crate) fn topics() -> PathItem {
    get(to_other_side("topics", DASHBOARD, "Redirects to the page of topics on the write side.", "query.command_url"))
}

/// `GET /assets/{file}`
pub(crate) fn asset() -> PathItem {
    let found = FILES
        .iter()
        .fold(asset_response("The file.", POLICY), |found, file| found.content(media(file.media_type), some(text())));
    let operation = asset_operation("asset", DASHBOARD, "A file of the dashboard.", POLICY)
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
