//! Files that are compiled in: compressed at most once, served with an entity tag and a content security policy.

use std::io::Write as _;

use ::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, REFERRER_POLICY, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use ::http::{HeaderMap, HeaderValue, StatusCode};
use axum::body::Bytes;
use axum::response::{IntoResponse as _, Response};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::{EntityTag, accepts_coding};

/// Revalidated at every use: a page is never older than its service.
pub const REVALIDATE: &str = "no-cache";

/// A file with its representations. Nothing is compressed or inflated for a request.
#[derive(Debug, Clone)]
pub struct Asset {
    /// The name in its path.
    pub name: &'static str,
    /// The media type.
    pub media_type: &'static str,
    /// The content security policy.
    pub policy: &'static str,
    plain: Bytes,
    gzip: Bytes,
    brotli: Option<Bytes>,
    checksum: u32,
}

impl Asset {
    /// An asset of a plain and a gzip representation.
    pub fn new(
        name: &'static str,
        media_type: &'static str,
        policy: &'static str,
        plain: impl Into<Bytes>,
        gzip: impl Into<Bytes>,
    ) -> Self {
        let plain = plain.into();
        let checksum = crc32fast::hash(&plain);
        Self { name, media_type, policy, plain, gzip: gzip.into(), brotli: None, checksum }
    }

    /// An asset that is compressed here, once: for small files, which need no build script.
    ///
    /// # Panics
    /// Never: writing to memory succeeds.
    pub fn gzipped(
        name: &'static str,
        media_type: &'static str,
        policy: &'static str,
        plain: impl Into<Bytes>,
    ) -> Self {
        let plain = plain.into();
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&plain).expect("writing to memory succeeds");
        let gzip = gzip.finish().expect("writing to memory succeeds");
        Self::new(name, media_type, policy, plain, gzip)
    }

    /// Adds a representation in Brotli.
    #[must_use]
    pub fn with_brotli(self, brotli: &'static [u8]) -> Self {
        Self { brotli: Some(Bytes::from_static(brotli)), ..self }
    }

    /// The response to a GET with these headers: the best coding it accepts, or 304.
    pub fn respond(&self, request: &HeaderMap) -> Response {
        let (body, coding) = match &self.brotli {
            Some(brotli) if accepts_coding(request, "br") => (brotli, "br"),
            _ if accepts_coding(request, "gzip") => (&self.gzip, "gzip"),
            _ => (&self.plain, ""),
        };
        // A strong tag identifies the representation: each coding is another one.
        let tag = EntityTag::whole(&format!("{:08x}{coding}", self.checksum));
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(REVALIDATE));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(self.policy));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        if !coding.is_empty() {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        let unchanged = tag.matching(request).is_some();
        headers.insert(ETAG, tag.value);
        if unchanged {
            return (StatusCode::NOT_MODIFIED, headers).into_response();
        }
        (headers, body.clone()).into_response()
    }
}

/// An [`Asset`] of the files `$name`, `$name.gz` and, with `br`, `$name.br` that the crate's build script wrote.
#[macro_export]
macro_rules! asset {
    ($name:literal, $media_type:literal, $policy:expr) => {
        $crate::http::Asset::new(
            $name,
            $media_type,
            $policy,
            &include_bytes!(concat!(env!("OUT_DIR"), "/", $name))[..],
            &include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".gz"))[..],
        )
    };
    ($name:literal, $media_type:literal, $policy:expr, br) => {
        $crate::asset!($name, $media_type, $policy).with_brotli(include_bytes!(concat!(
            env!("OUT_DIR"),
            "/",
            $name,
            ".br"
        )))
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::header::{ACCEPT_ENCODING, IF_NONE_MATCH};

    #[test]
    fn serves_the_best_coding_and_confirms_it() {
        let asset = Asset::new("a", "text/css", "default-src 'none'", &b"plain"[..], &b"gz"[..]).with_brotli(b"br");
        for (accepted, coding) in [("gzip, br", Some("br")), ("gzip", Some("gzip")), ("identity", None)] {
            let request = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(accepted))]);
            let response = asset.respond(&request);
            assert_eq!(response.headers().get(CONTENT_ENCODING).map(HeaderValue::as_bytes), coding.map(str::as_bytes));
            let mut again = request.clone();
            again.insert(IF_NONE_MATCH, response.headers()[ETAG].clone());
            assert_eq!(asset.respond(&again).status(), StatusCode::NOT_MODIFIED);
        }
    }
}
