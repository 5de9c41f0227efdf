//! The media types of the bodies that a route takes: what a `Content-Type` selects among them (RFC 9110, 8.3), and what a
//! 415 states about them.

use std::borrow::Cow;

use ::http::header::{ACCEPT_ENCODING, CONTENT_TYPE};
use ::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use mediatype::names::CHARSET;
use mediatype::{MediaType, ReadParams as _};
use millrace_contracts::{Code, Refusal};

use super::Charset;
use crate::shown;

/// The header of a 415 that lists the media types of the route (Linked Data Platform 1.0, 7.1).
pub const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");

/// The media types that a route takes, in lower case, each with the format it stands for.
#[derive(Debug, Clone, Copy)]
pub struct MediaTypes<T: 'static>(&'static [(&'static str, T)]);

impl<T: Copy> MediaTypes<T> {
    /// These.
    pub const fn new(types: &'static [(&'static str, T)]) -> Self {
        Self(types)
    }

    /// The format and the charset that `Content-Type` names. The default is UTF-8.
    ///
    /// # Errors
    /// `unsupported-media-type` for another type or charset, for none and for several.
    pub fn of(self, headers: &HeaderMap) -> Result<(T, Charset), Refusal> {
        let mut lines = headers.get_all(CONTENT_TYPE).iter();
        let line = match (lines.next(), lines.next()) {
            (Some(line), None) => line.to_str().unwrap_or("?"),
            (None, _) => return Err(self.unsupported("the body has no content-type")),
            (Some(_), Some(_)) => return Err(self.unsupported("content-type is given twice")),
        };
        let essence = line.split(';').next().unwrap_or_default().trim();
        let found = self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(essence));
        let (Some(&(_, format)), Ok(media)) = (found, MediaType::parse(line)) else {
            return Err(self.unsupported(format!("content-type \"{}\" is not supported", shown(line))));
        };
        let Some(label) = media.get_param(CHARSET) else { return Ok((format, Charset::UTF_8)) };
        let label = label.unquoted_str();
        let charset = Charset::of_label(&label).ok_or_else(|| {
            refusal(format!("charset \"{}\" is not supported; those of the Encoding Standard are", shown(&label)))
        })?;
        Ok((format, charset))
    }

    /// Adds to a response with status 415 what the route takes: `Accept-Post` and `Accept-Encoding` (RFC 9110, 15.5.16).
    pub fn describe(self, response: &mut Response) {
        if response.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE
            && let Ok(types) = HeaderValue::try_from(self.list())
        {
            response.headers_mut().insert(ACCEPT_POST, types);
            response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, br, zstd"));
        }
    }

    fn unsupported(self, problem: impl Into<Cow<'static, str>>) -> Refusal {
        refusal(format!("{}; supported are {}", problem.into(), self.list()))
    }

    fn list(self) -> String {
        self.0.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }
}

fn refusal(detail: String) -> Refusal {
    Refusal::new(Code::UnsupportedMediaType, detail).field("content-type")
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    const TYPES: MediaTypes<u8> = MediaTypes::new(&[("application/json", 1), ("application/x-ndjson", 2)]);

    fn of(values: &[&'static str]) -> Result<(u8, Charset), Refusal> {
        TYPES.of(&values.iter().map(|value| (CONTENT_TYPE, HeaderValue::from_static(value))).collect())
    }

    #[test]
    fn the_essence_selects_the_format() {
        for (text, format) in [
            ("application/json", 1),
            ("Application/JSON; charset=UTF-8", 1),
            ("application/json;charset=\"utf-8\"", 1),
            ("application/x-ndjson ; header=1", 2),
        ] {
            assert_eq!(of(&[text]), Ok((format, Charset::UTF_8)), "{text}");
        }
        let (_, charset) = of(&["application/json; charset=\"Latin1\""]).unwrap();
        assert_eq!(charset.name(), "windows-1252");
    }

    #[test]
    fn everything_else_is_refused_with_what_is_supported() {
        for text in ["text/plain", "application/ld+json", "", "application", "application/json; charset"] {
            let refusal = of(&[text]).unwrap_err();
            assert_eq!((refusal.code, refusal.field.as_deref()), (Code::UnsupportedMediaType, Some("content-type")));
            assert!(refusal.detail.ends_with("; supported are application/json, application/x-ndjson"), "{refusal}");
        }
        assert!(of(&[]).unwrap_err().detail.starts_with("the body has no content-type; "));
        assert!(of(&["application/json"; 2]).unwrap_err().detail.starts_with("content-type is given twice; "));
        assert!(of(&["application/json; charset=utf-7"]).unwrap_err().detail.contains("\"utf-7\""));
    }

    #[test]
    fn only_a_415_states_what_is_supported() {
        for (status, listed) in [
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, Some("application/json, application/x-ndjson")),
            (StatusCode::BAD_REQUEST, None),
        ] {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = status;
            TYPES.describe(&mut response);
            let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap());
            assert_eq!(header(ACCEPT_POST), listed);
            assert_eq!(header(ACCEPT_ENCODING), listed.map(|_| "gzip, br, zstd"));
        }
    }
}
