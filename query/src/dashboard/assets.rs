//! The files of the page.

use axum::Router;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, REFERRER_POLICY,
    VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use crate::conditional::{Tag, held};

/// Nothing but this service's own files, and no way to frame the page or to send a form from it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[derive(Clone, Copy)]
struct File {
    path: &'static str,
    kind: &'static str,
    plain: &'static [u8],
    gzip: &'static [u8],
    brotli: &'static [u8],
}

macro_rules! file {
    ($path:literal, $name:literal, $kind:literal) => {
        File {
            path: $path,
            kind: $kind,
            plain: include_bytes!(concat!(env!("OUT_DIR"), "/", $name)),
            gzip: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".gz")),
            brotli: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".br")),
        }
    };
}

const FILES: [File; 6] = [
    file!("/", "index.html", "text/html; charset=utf-8"),
    file!("/assets/app.js", "app.js", "text/javascript; charset=utf-8"),
    file!("/assets/style.css", "style.css", "text/css; charset=utf-8"),
    file!("/assets/icon.svg", "icon.svg", "image/svg+xml"),
    file!("/assets/uPlot.iife.min.js", "uPlot.iife.min.js", "text/javascript; charset=utf-8"),
    file!("/assets/uPlot.min.css", "uPlot.min.css", "text/css; charset=utf-8"),
];

pub(super) fn router() -> Router {
    FILES.into_iter().fold(Router::new(), |router, file| {
        router.route(file.path, get(move |headers: HeaderMap| std::future::ready(serve(file, &headers))))
    })
}

fn serve(file: File, asked: &HeaderMap) -> Response {
    let (body, coding) = match () {
        () if takes(asked, "br") => (file.brotli, Some("br")),
        () if takes(asked, "gzip") => (file.gzip, Some("gzip")),
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

/// Whether a coding is accepted: named, and not with a weight of zero.
fn takes(asked: &HeaderMap, coding: &str) -> bool {
    asked
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| {
            let mut words = part.split(';').map(str::trim);
            let named = words.next().is_some_and(|name| name.eq_ignore_ascii_case(coding));
            let refused = words.filter_map(|word| word.strip_prefix("q=")).any(|q| q.parse() == Ok(0.0_f32));
            named && !refused
        })
}
