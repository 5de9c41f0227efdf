//! Content negotiation by `Accept` (RFC 9110, 12.5.1).

use ::http::HeaderMap;
use ::http::header::ACCEPT;
use headers_accept::Accept;
use mediatype::{MediaType, MediaTypeBuf};

/// The index of the media type among `available` that a request prefers; `None` if it accepts none of them. The first one
/// is the default.
pub fn negotiate(request: &HeaderMap, available: &[MediaType<'static>]) -> Option<usize> {
    let mut empty = true;
    let ranges: Vec<String> = request
        .get_all(ACCEPT)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .filter(|range| !range.trim_ascii().is_empty())
        .inspect(|_| empty = false)
        .filter_map(normalized)
        .collect();
    if empty {
        return Some(0);
    }
    let accept: Accept = ranges.join(",").parse().ok()?;
    let preferred = accept.negotiate(available)?;
    available.iter().position(|media| media == preferred)
}

/// A media range as `headers-accept` compares it. A range that does not parse is skipped without harm to its neighbors:
/// old Java clients send `*; q=.2`. All our text is UTF-8, so `charset=utf-8` requires nothing more.
fn normalized(range: &[u8]) -> Option<String> {
    let mut parts = std::str::from_utf8(range).ok()?.split(';').map(str::trim);
    let mut normalized = match parts.next()? {
        "*" => "*/*".to_owned(),
        media => media.to_owned(),
    };
    for parameter in parts.filter(|parameter| !parameter.is_empty() && !is_utf8(parameter)) {
        normalized.push(';');
        normalized.push_str(parameter);
    }
    normalized.parse::<MediaTypeBuf>().ok().map(|_| normalized)
}

fn is_utf8(parameter: &str) -> bool {
    parameter.split_once('=').is_some_and(|(name, value)| {
        name.eq_ignore_ascii_case("charset") && value.trim_matches('"').eq_ignore_ascii_case("utf-8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::HeaderValue;
    use mediatype::names::{APPLICATION, CSV, JSON, PLAIN, TEXT};

    static AVAILABLE: [MediaType<'static>; 3] =
        [MediaType::new(TEXT, PLAIN), MediaType::new(APPLICATION, JSON), MediaType::new(TEXT, CSV)];

    fn negotiated(values: &[&str]) -> Option<usize> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(ACCEPT, HeaderValue::from_str(value).unwrap());
        }
        negotiate(&headers, &AVAILABLE)
    }

    #[test]
    fn weights_and_ranges_decide() {
        const PLAIN: Option<usize> = Some(0);
        const JSON: Option<usize> = Some(1);
        const CSV: Option<usize> = Some(2);
        for (accept, expected) in [
            ("*/*", PLAIN),
            ("", PLAIN),
            (" , ", PLAIN),
            ("text/plain", PLAIN),
            ("application/json", JSON),
            ("text/csv", CSV),
            ("TEXT/CSV", CSV),
            ("text/*", PLAIN),
            ("application/*", JSON),
            ("text/plain;q=0.5, application/json", JSON),
            ("text/plain;q=0.5, application/json;q=0.4, text/csv;q=0.9", CSV),
            ("application/json;q=0.001, */*;q=0", JSON),
            ("text/plain;q=0, */*", JSON),
            ("text/*;q=0.2, text/csv;q=0.1, application/json;q=0.15", PLAIN),
            ("text/html, application/xhtml+xml, */*;q=0.8", PLAIN),
            ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", PLAIN),
            ("text/plain; charset=utf-8", PLAIN),
            ("application/json; charset=\"UTF-8\"; q=0.3, text/csv;q=0.2", JSON),
            ("gibberish, text/csv", CSV),
            ("application/json, text/plain", JSON),
            ("image/png", None),
            ("text/plain;q=0", None),
            ("*/*;q=0", None),
            ("text/plain; charset=utf-16", None),
            ("gibberish", None),
        ] {
            assert_eq!(negotiated(&[accept]), expected, "{accept}");
        }
        assert_eq!(negotiated(&[]), PLAIN);
        assert_eq!(negotiated(&["text/plain;q=0.1", "text/csv"]), CSV, "several lines are one list");
    }
}
