//! The files of the page.

use axum::extract::Path;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, REFERRER_POLICY, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use millrace_contracts::Code;
use millrace_service::Problem;
use millrace_service::http::accepts_coding;
use millrace_service::openapi::route;
use utoipa_axum::router::OpenApiRouter;

use super::openapi;
use crate::analytics::conditional::{Tag, held};

/// Nothing but this service's own files, and no way to frame the page or to send a form from it.
pub(crate) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(crate) struct File {
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    plain: &'static [u8],
    gzip: &'static [u8],
    brotli: &'static [u8],
}

macro_rules! file {
    ($name:literal, $kind:literal) => {
        File {
            name: $name,
            kind: $kind,
            plain: include_bytes!(concat!(env!("OUT_DIR"), "/", $name)),
            gzip: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".gz")),
            brotli: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".br")),
        }
    };
}

static PAGE: File = file!("index.html", "text/html; charset=utf-8");

/// What the page needs.
pub(crate) static FILES: [File; 5] = [
    file!("app.js", "text/javascript; charset=utf-8"),
    file!("style.css", "text/css; charset=utf-8"),
    file!("icon.svg", "image/svg+xml"),
    file!("uPlot.iife.min.js", "text/javascript; charset=utf-8"),
    file!("uPlot.min.css", "text/css; charset=utf-8"),
];

pub(super) fn router() -> OpenApiRouter {
    let asset = |Path(name): Path<String>, headers: HeaderMap| {
        let found = FILES.iter().find(|file| file.name == name);
        let missing = || Problem::new(Code::NotFound, "no such file").into_response();
        std::future::ready(found.map_or_else(missing, |file| serve(file, &headers)))
    };
    OpenApiRouter::default()
        .routes(route("/", openapi::page(), get(async |headers: HeaderMap| serve(&PAGE, &headers))))
        .routes(route("/assets/{file}", openapi::asset(), get(asset)))
}

fn serve(file: &File, asked: &HeaderMap) -> Response {
    let (body, coding) = match () {
        () if accepts_coding(asked, "br") => (file.brotli, Some("br")),
        () if accepts_coding(asked, "gzip") => (file.gzip, Some("gzip")),
        () => (file.plain, None),
    };
    // Strong, so it names the representation: a compressed one is another.
    let tag = format!("\"{:08x}{}\"", crc32fast::hash(file.plain), coding.unwrap_or_default());
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(file.kind));
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    // Asked again each time and answered 304: the page is never older than the service.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if let Some(coding) = coding {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
    }
    let value = HeaderValue::try_from(tag).expect("hexadecimal digits and a word are a header's value");
    let numbers = value.len();
    let unchanged = held(asked, &Tag { value: value.clone(), numbers }).is_some();
    headers.insert(ETAG, value);
    if unchanged {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, body).into_response()
}
