//! The OpenAPI document of a service, and where it is served.
//!
//! A route and what is said of it are declared in one call ([`route`]), so that neither is there without the other, and
//! codes, statuses and header names are the constants that the code answers with. Here is what all services have in
//! common; what a service says of its own routes is in its own `openapi.rs`. `docs/api/` has the documents as files, and
//! a test compares them with what is served.

mod parts;
mod viewer;

use ::http::header::ALLOW;
use axum::Router;
use axum::routing::{MethodRouter, get as on_get};
use millrace_contracts::Code;
use utoipa::openapi::path::{OperationBuilder, PathItem, Paths};
use utoipa::openapi::{Components, Info, License, OpenApi, OpenApiBuilder};
use utoipa::{PartialSchema as _, ToSchema as _};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use crate::http::Document;
use crate::status_of;

pub use parts::{
    EVERY_REQUEST, answer, fixed, flag, fraction, get, header, maybe_header, number, object, operation, part, problems,
    query, request_header, some, text, words,
};

/// A document without routes: what the service is, and what every one of them shares.
pub fn document(title: &str, description: &str) -> OpenApi {
    let mut info = Info::new(title, env!("CARGO_PKG_VERSION"));
    info.description = Some(format!(
        "{description}\n\nEvery error is a problem document (RFC 9457) with a stable `code`. A path that is not listed is \
         answered {} `{}`, a method that is not listed {} `{}` with `Allow`.",
        status_of(Code::NotFound).as_u16(),
        Code::NotFound,
        status_of(Code::MethodNotAllowed).as_u16(),
        Code::MethodNotAllowed,
    ));
    let mut license = License::new("MIT OR Apache-2.0");
    license.identifier = Some("MIT OR Apache-2.0".into());
    info.license = Some(license);
    let mut components = Components::new();
    components.schemas.insert(Document::name().into_owned(), Document::schema());
    for codes in parts::shared() {
        let mut response = parts::problem(&codes);
        if codes == [Code::MethodNotAllowed] {
            response = response.header(ALLOW.as_str(), header("The methods that the path has.", text()));
        }
        components.responses.insert(parts::name(&codes), response.into());
    }
    OpenApiBuilder::new().info(info).components(Some(components)).build()
}

/// A route and what is said of it, for [`OpenApiRouter::routes`].
pub fn route<S>(path: &str, said: PathItem, handlers: MethodRouter<S>) -> UtoipaMethodRouter<S> {
    let mut paths = Paths::new();
    paths.paths.insert(path.into(), said);
    (Vec::new(), paths, handlers)
}

/// The service's routes with its health, the document of all of them at `/openapi.json`, and its viewer at `/docs`.
pub fn serve(api: OpenApiRouter, health: Router) -> Router {
    let mut paths = Paths::new();
    paths.paths.insert("/livez".into(), get(livez()));
    paths.paths.insert("/readyz".into(), get(readyz()));
    let mut health = OpenApiRouter::from(health);
    health.get_openapi_mut().paths = paths;
    let mut api = api.merge(health).merge(viewer::routes());
    let path = "/openapi.json";
    let said = operation("openApi", "About", "This document.").response(
        "200",
        viewer::file("The OpenAPI document.", viewer::FRESH).content("application/json", some(object(&[], &[]))),
    );
    api.get_openapi_mut().paths.paths.insert(path.into(), get(problems(said, EVERY_REQUEST)));
    let json = viewer::Asset::json(api.get_openapi());
    Router::from(api).route(path, on_get(async move |headers| json.answer(&headers)))
}

fn livez() -> OperationBuilder {
    let said = operation("livez", "Health", "Whether the process answers.");
    problems(said.response("200", answer("It does.").content("text/plain; charset=utf-8", some(text()))), EVERY_REQUEST)
}

fn readyz() -> OperationBuilder {
    let said =
        operation("readyz", "Health", "Whether requests should be sent here: every part works, and it is not ending.");
    let said = said.response("200", answer("They should.").content("text/plain; charset=utf-8", some(text())));
    problems(said, &[EVERY_REQUEST, &[Code::ShuttingDown]].concat())
}
