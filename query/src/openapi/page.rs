//! The page at `/`, its files and `/status`.

use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, IF_NONE_MATCH, REFERRER_POLICY, VARY};
use millrace_contracts::Code;
use millrace_service::openapi::{
    EVERY_REQUEST, answer, fixed, get, header, operation, part, problems, request_header, some, text, words,
};
use utoipa::openapi::path::{OperationBuilder, PathItem};
use utoipa::openapi::{Components, Ref, ResponseBuilder};
use utoipa::{PartialSchema as _, ToSchema as _};

use super::media;
use crate::dashboard::Report;
use crate::dashboard::assets::{FILES, POLICY};

const PAGE: &str = "Page";

pub(super) fn schemas(components: &mut Components) {
    let mut parts = Vec::new();
    Report::schemas(&mut parts);
    components.schemas.extend(parts);
    components.schemas.insert(Report::name().into_owned(), Report::schema());
}

/// `GET /`
pub(crate) fn page() -> PathItem {
    let said = files("page", "The counts and the pipeline, to look at.");
    let said = said.response("200", cached("The page.").content("text/html", some(text())));
    get(problems(said, EVERY_REQUEST))
}

/// `GET /assets/{file}`
pub(crate) fn asset() -> PathItem {
    let found = FILES.iter().fold(cached("The file."), |found, file| found.content(media(file.kind), some(text())));
    let said = files("asset", "A file of the page.")
        .parameter(part("file", "Its name.", words(FILES.iter().map(|file| file.name))))
        .response("200", found);
    get(problems(said, &[EVERY_REQUEST, &[Code::NotFound]].concat()))
}

/// `GET /status`
pub(crate) fn status() -> PathItem {
    let report = answer("The report, a second old at most.")
        .header(CACHE_CONTROL.as_str(), fixed("no-store"))
        .content("application/json", some(Ref::from_schema_name(Report::name())));
    let about = "How the pipeline does: from the metrics of this process and of those that `query.watch` names.";
    get(problems(operation("status", PAGE, about).response("200", report), EVERY_REQUEST))
}

fn files(id: &str, about: &str) -> OperationBuilder {
    operation(id, PAGE, about)
        .parameter(request_header(&IF_NONE_MATCH, "Tags of what the client has.", text()))
        .response("304", cached("It is what the client has."))
}

fn cached(about: &str) -> ResponseBuilder {
    answer(about)
        .header(CACHE_CONTROL.as_str(), fixed("no-cache"))
        .header(VARY.as_str(), fixed("Accept-Encoding"))
        .header(ETAG.as_str(), header("Strong.", text()))
        .header(CONTENT_SECURITY_POLICY.as_str(), fixed(POLICY))
        .header(REFERRER_POLICY.as_str(), fixed("no-referrer"))
}
