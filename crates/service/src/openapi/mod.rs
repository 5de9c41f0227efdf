//! The OpenAPI document of a service, and the routes that serve it.
//!
//! A route and its documentation are declared in one call ([`route`]), so that neither exists without the other; codes,
//! statuses and header names are the constants that the code uses. This module has what all services have in common; each
//! service documents its own routes beside them. `docs/api/` has the documents as files, and a test compares them with
//! what is served.

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

use crate::auth;
use crate::http::Document;
use crate::status_of;

pub use parts::{
    EVERY_REQUEST, answer, asset_operation, asset_response, fixed, flag, fraction, get, header, idempotency_key_text,
    maybe_header, number, object, operation, or_results, part, problems, query, request_header, some, text,
    to_other_side, words,
};
pub(crate) use parts::{name as response_name, problem as shared_problem};

/// A document without routes: the description of the service, and the components that all services share.
pub fn document(title: &str, description: &str) -> OpenApi {
    let mut info = Info::new(title, env!("CARGO_PKG_VERSION"));
    info.description = Some(format!(
        "{description}\n\nEvery error is a problem document (RFC 9457) with a stable `code`. A path that is not listed \
         returns {} `{}`, a method that is not listed {} `{}` with `Allow`.",
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
    auth::security_schemes(&mut components);
    for codes in parts::shared() {
        let mut response = parts::problem(&codes);
        if codes == [Code::MethodNotAllowed] {
            response = response.header(ALLOW.as_str(), header("The methods that the path has.", text()));
        }
        components.responses.insert(parts::name(&codes), response.into());
    }
    OpenApiBuilder::new().info(info).components(Some(components)).build()
}

/// A route with its documentation, for [`OpenApiRouter::routes`].
pub fn route<S>(path: &str, documentation: PathItem, handlers: MethodRouter<S>) -> UtoipaMethodRouter<S> {
    let mut paths = Paths::new();
    paths.paths.insert(path.into(), documentation);
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
    api.get_openapi_mut().paths.paths.insert(path.into(), get(this_document()));
    auth::secure(api.get_openapi_mut());
    let json = viewer::json(api.get_openapi());
    Router::from(api).route(path, on_get(async move |headers| json.respond(&headers)))
}

fn this_document() -> OperationBuilder {
    let document = asset_response("The OpenAPI document.", viewer::POLICY);
    let document = document.content("application/json", some(object(&[], &[])));
    let operation = asset_operation("openApi", "About", "The OpenAPI document.", viewer::POLICY);
    problems(operation.response("200", document), EVERY_REQUEST)
}

fn livez() -> OperationBuilder {
    let live = answer("It does.").content("text/plain; charset=utf-8", some(text()));
    problems(
        operation("livez", "Health", "Liveness: whether the process responds.").response("200", live),
        EVERY_REQUEST,
    )
}

fn readyz() -> OperationBuilder {
    let ready = answer("It is.").content("text/plain; charset=utf-8", some(text()));
    let about = "Readiness: every component works, and the process is not shutting down.";
    let operation = operation("readyz", "Health", about).response("200", ready);
    problems(operation, &[EVERY_REQUEST, &[Code::ShuttingDown]].concat())
}
