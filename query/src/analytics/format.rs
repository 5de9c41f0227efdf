//! The representations of an hour. The first one is the default.

use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, HeaderValue};
use mediatype::MediaType;
use mediatype::names::{APPLICATION, CSV, JSON, PLAIN, TEXT};
use millrace_service::http::negotiate;

/// A representation of an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Three lines with a name and a number each.
    Text,
    /// One object.
    Json,
    /// A header and a row.
    Csv,
}

static AVAILABLE: [MediaType<'static>; 3] =
    [MediaType::new(TEXT, PLAIN), MediaType::new(APPLICATION, JSON), MediaType::new(TEXT, CSV)];

impl Format {
    pub(crate) const ALL: [Self; 3] = [Self::Text, Self::Json, Self::Csv];

    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; charset=utf-8",
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8; header=present",
        }
    }

    /// The representation's letter in its entity tag.
    pub(crate) const fn tag(self) -> char {
        match self {
            Self::Text => 't',
            Self::Json => 'j',
            Self::Csv => 'c',
        }
    }

    /// The representation that a request prefers; `None` if it accepts none. The usual headers need no parsing.
    pub(crate) fn negotiate(request: &HeaderMap) -> Option<Self> {
        let mut values = request.get_all(ACCEPT).iter();
        match (values.next().map(HeaderValue::as_bytes), values.next()) {
            (None | Some(b"*/*" | b"text/plain" | b""), None) => Some(Self::Text),
            (Some(b"application/json"), None) => Some(Self::Json),
            (Some(b"text/csv"), None) => Some(Self::Csv),
            _ => negotiate(request, &AVAILABLE).map(|i| Self::ALL[i]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_headers_are_negotiated_like_any_other() {
        for accept in ["*/*", "", "text/plain", "application/json", "text/csv", "TEXT/CSV", "text/*;q=0.1, text/csv"] {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            let expected = negotiate(&headers, &AVAILABLE).map(|i| Format::ALL[i]);
            assert_eq!(Format::negotiate(&headers), expected, "{accept}");
        }
    }
}
