//! Swagger UI, compiled in, so that the document can be read and tried without anything from outside.

use std::io::{Read as _, Write as _};

use ::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, VARY};
use ::http::{HeaderMap, HeaderValue};
use axum::body::Bytes;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get as on_get;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use millrace_contracts::Code;
use utoipa::openapi::path::OperationBuilder;
use utoipa::openapi::{OpenApi, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;

use super::{EVERY_REQUEST, answer, fixed, get, header, operation, part, problems, route, some, text, words};
use crate::Problem;
use crate::http::accepts_coding;

/// Nothing but this service's own files and answers. Pictures in the style sheet are `data:` URLs.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Asked again each time: the viewer is never older than the service.
pub(super) const FRESH: &str = "no-cache";
/// Files of half a megabyte, which change when the library does.
const KEPT: &str = "max-age=3600";

/// Something that is served compressed, and inflated for the few who cannot.
#[derive(Clone)]
pub(super) struct Asset {
    kind: &'static str,
    keep: &'static str,
    gzip: Bytes,
}

macro_rules! asset {
    ($name:literal, $kind:literal, $keep:expr) => {
        Asset {
            kind: $kind,
            keep: $keep,
            gzip: Bytes::from_static(include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".gz"))),
        }
    };
}

static PAGE: Asset = asset!("index.html", "text/html; charset=utf-8", FRESH);
static FILES: [(&str, Asset); 3] = [
    ("viewer.js", asset!("viewer.js", "text/javascript; charset=utf-8", FRESH)),
    ("swagger-ui-bundle.js", asset!("swagger-ui-bundle.js", "text/javascript; charset=utf-8", KEPT)),
    ("swagger-ui.css", asset!("swagger-ui.css", "text/css; charset=utf-8", KEPT)),
];

impl Asset {
    /// A document as it is served.
    pub(super) fn json(document: &OpenApi) -> Self {
        let mut json = document.to_pretty_json().expect("names and texts are JSON");
        json.push('\n');
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(json.as_bytes()).expect("memory takes every byte");
        let gzip = gzip.finish().expect("memory takes every byte").into();
        Self { kind: "application/json", keep: FRESH, gzip }
    }

    pub(super) fn answer(&self, asked: &HeaderMap) -> Response {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(self.keep));
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        if accepts_coding(asked, "gzip") {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            return (headers, self.gzip.clone()).into_response();
        }
        let mut plain = Vec::new();
        GzDecoder::new(&self.gzip[..]).read_to_end(&mut plain).expect("it was compressed here");
        (headers, plain).into_response()
    }
}

pub(super) fn routes() -> OpenApiRouter {
    let file = |Path(name): Path<String>, headers: HeaderMap| {
        let found = FILES.iter().find(|(known, _)| *known == name);
        let missing = || Problem::new(Code::NotFound, "no such file").into_response();
        std::future::ready(found.map_or_else(missing, |(_, asset)| asset.answer(&headers)))
    };
    OpenApiRouter::default()
        .routes(route("/docs", get(page()), on_get(async |headers: HeaderMap| PAGE.answer(&headers))))
        .routes(route("/docs/{file}", get(files()), on_get(file)))
}

fn page() -> OperationBuilder {
    let said = operation("docs", "About", "This document, to read and to try.");
    problems(said.response("200", file("A page.", FRESH).content(PAGE.kind, some(text()))), EVERY_REQUEST)
}

fn files() -> OperationBuilder {
    let mut found = file("The file.", FRESH)
        .header(CACHE_CONTROL.as_str(), header("How long it may be kept.", words([FRESH, KEPT])));
    for (_, asset) in &FILES {
        found = found.content(asset.kind, some(text()));
    }
    let name = part("file", "Its name.", words(FILES.iter().map(|(name, _)| *name)));
    let said = operation("docsFile", "About", "A file of the viewer.").parameter(name).response("200", found);
    problems(said, &[EVERY_REQUEST, &[Code::NotFound]].concat())
}

/// What is said of an [`Asset`].
pub(super) fn file(about: &str, keep: &str) -> ResponseBuilder {
    answer(about)
        .header(CACHE_CONTROL.as_str(), fixed(keep))
        .header(VARY.as_str(), fixed("Accept-Encoding"))
        .header(CONTENT_SECURITY_POLICY.as_str(), fixed(POLICY))
        .header(REFERRER_POLICY.as_str(), fixed("no-referrer"))
}
