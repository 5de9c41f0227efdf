//! Swagger UI, compiled in: the document can be read and tried without anything from outside.

use std::sync::LazyLock;

use ::http::HeaderMap;
use axum::extract::Path;
use axum::response::IntoResponse as _;
use axum::routing::get as on_get;
use millrace_contracts::{Code, Refusal};
use utoipa::openapi::OpenApi;
use utoipa::openapi::path::OperationBuilder;
use utoipa_axum::router::OpenApiRouter;

use super::{EVERY_REQUEST, asset_operation, asset_response, get, part, problems, route, some, text, words};
use crate::asset;
use crate::http::{Asset, Problem};

/// Only this service's own files and responses. Images in the style sheet are `data:` URLs.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                                 connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

static PAGE: LazyLock<Asset> = LazyLock::new(|| asset!("index.html", "text/html; charset=utf-8", POLICY));
static FILES: LazyLock<[Asset; 3]> = LazyLock::new(|| {
    [
        asset!("viewer.js", "text/javascript; charset=utf-8", POLICY),
        asset!("swagger-ui-bundle.js", "text/javascript; charset=utf-8", POLICY),
        asset!("swagger-ui.css", "text/css; charset=utf-8", POLICY),
    ]
});

/// A document as it is served.
pub(super) fn json(document: &OpenApi) -> Asset {
    let mut json = document.to_pretty_json().expect("names and texts are JSON");
    json.push('\n');
    Asset::gzipped("openapi.json", "application/json", POLICY, json)
}

pub(super) fn routes() -> OpenApiRouter {
    let file = |Path(name): Path<String>, headers: HeaderMap| {
        let found = FILES.iter().find(|file| file.name == name);
        let missing = || Problem::from(Refusal::new(Code::NotFound, "no such file")).into_response();
        std::future::ready(found.map_or_else(missing, |file| file.respond(&headers)))
    };
    OpenApiRouter::default()
        .routes(route("/docs", get(page()), on_get(async |headers: HeaderMap| PAGE.respond(&headers))))
        .routes(route("/docs/{file}", get(files()), on_get(file)))
}

fn page() -> OperationBuilder {
    let page = asset_response("A page.", POLICY).content(PAGE.media_type, some(text()));
    let operation = asset_operation("docs", "About", "Swagger UI for this document.", POLICY);
    problems(operation.response("200", page), EVERY_REQUEST)
}

fn files() -> OperationBuilder {
    let file = asset_response("The file.", POLICY);
    let file = FILES.iter().fold(file, |found, file| found.content(file.media_type, some(text())));
    let name = part("file", "Its name.", words(FILES.iter().map(|file| file.name)));
    let operation = asset_operation("docsFile", "About", "A file of the viewer.", POLICY);
    problems(operation.parameter(name).response("200", file), &[EVERY_REQUEST, &[Code::NotFound]].concat())
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    /// A client that does not read costs nothing but its connection: no response has a copy of its own.
    #[tokio::test]
    async fn files_are_inflated_once() {
        let plain = || async {
            let body = FILES[1].respond(&HeaderMap::new()).into_body().collect().await.unwrap().to_bytes();
            (body.as_ptr(), body.len())
        };
        let (first, second) = (plain().await, plain().await);
        assert!(first.1 > 1_000_000);
        assert_eq!(first, second);
    }
}
