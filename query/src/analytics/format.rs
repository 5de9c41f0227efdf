//! The representations of an hour, and content negotiation (RFC 9110, 12.5.1). The first one is the default.

use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, HeaderValue};
use headers_accept::Accept;
use mediatype::names::{APPLICATION, CSV, JSON, PLAIN, TEXT};
use mediatype::{MediaType, MediaTypeBuf};

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

    /// The representation that a request prefers; `None` if it accepts none.
    pub(crate) fn negotiate(request: &HeaderMap) -> Option<Self> {
        let mut values = request.get_all(ACCEPT).iter();
        match (values.next().map(HeaderValue::as_bytes), values.next()) {
            (None | Some(b"*/*" | b"text/plain" | b""), None) => Some(Self::Text),
            (Some(b"application/json"), None) => Some(Self::Json),
            (Some(b"text/csv"), None) => Some(Self::Csv),
            _ => Self::negotiate_all(request),
        }
    }

    fn negotiate_all(request: &HeaderMap) -> Option<Self> {
        chosen(request, &AVAILABLE).map(|i| Self::ALL[i])
    }
}

/// Which of the media types that are available a request asks for; `None` if it takes none of them.
pub(crate) fn chosen(request: &HeaderMap, available: &[MediaType<'static>]) -> Option<usize> {
    let mut empty = true;
    let ranges: Vec<String> = request
        .get_all(ACCEPT)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .filter(|range| !range.trim_ascii().is_empty())
        .inspect(|_| empty = false)
        .filter_map(readable)
        .collect();
    if empty {
        return Some(0);
    }
    let accept: Accept = ranges.join(",").parse().ok()?;
    let chosen = accept.negotiate(available)?;
    available.iter().position(|media| media == chosen)
}

/// A media range as `headers-accept` compares it. One that cannot be read is left out, not held against its neighbours:
/// old Java clients send `*; q=.2`. UTF-8 is what we send, so asking for it asks for nothing more.
fn readable(range: &[u8]) -> Option<String> {
    let mut parts = std::str::from_utf8(range).ok()?.split(';').map(str::trim);
    let mut readable = match parts.next()? {
        "*" => "*/*".to_owned(),
        media => media.to_owned(),
    };
    for parameter in parts.filter(|parameter| !parameter.is_empty() && !is_utf8(parameter)) {
        readable.push(';');
        readable.push_str(parameter);
    }
    readable.parse::<MediaTypeBuf>().ok().map(|_| readable)
}

fn is_utf8(parameter: &str) -> bool {
    parameter.split_once('=').is_some_and(|(name, value)| {
        name.eq_ignore_ascii_case("charset") && value.trim_matches('"').eq_ignore_ascii_case("utf-8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(values: &[&str]) -> Option<Format> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(ACCEPT, HeaderValue::from_str(value).unwrap());
        }
        Format::negotiate(&headers)
    }

    #[test]
    fn quality_values_and_ranges() {
        use Format::{Csv, Json, Text};
        for (accept, format) in [
            ("*/*", Some(Text)),
            ("", Some(Text)),
            (" , ", Some(Text)),
            ("text/plain", Some(Text)),
            ("application/json", Some(Json)),
            ("text/csv", Some(Csv)),
            ("TEXT/CSV", Some(Csv)),
            ("text/*", Some(Text)),
            ("application/*", Some(Json)),
            ("text/plain;q=0.5, application/json", Some(Json)),
            ("text/plain;q=0.5, application/json;q=0.4, text/csv;q=0.9", Some(Csv)),
            ("application/json;q=0.001, */*;q=0", Some(Json)),
            ("text/plain;q=0, */*", Some(Json)),
            ("text/*;q=0.2, text/csv;q=0.1, application/json;q=0.15", Some(Text)),
            ("text/html, application/xhtml+xml, */*;q=0.8", Some(Text)),
            ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", Some(Text)),
            ("text/plain; charset=utf-8", Some(Text)),
            ("application/json; charset=\"UTF-8\"; q=0.3, text/csv;q=0.2", Some(Json)),
            ("gibberish, text/csv", Some(Csv)),
            ("application/json, text/plain", Some(Json)),
            ("image/png", None),
            ("text/plain;q=0", None),
            ("*/*;q=0", None),
            ("text/plain; charset=utf-16", None),
            ("gibberish", None),
        ] {
            assert_eq!(wanted(&[accept]), format, "{accept}");
        }
        assert_eq!(wanted(&[]), Some(Text));
        assert_eq!(wanted(&["text/plain;q=0.1", "text/csv"]), Some(Csv), "several lines are one list");
    }
}
