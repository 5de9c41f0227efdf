//! `Accept-Encoding` (RFC 9110, 12.5.3).

use ::http::HeaderMap;
use ::http::header::ACCEPT_ENCODING;

/// Whether a request accepts a content coding: lists it, and not with a weight of zero.
pub fn accepts_coding(request: &HeaderMap, coding: &str) -> bool {
    request
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| {
            let mut parts = part.split(';').map(str::trim);
            let listed = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(coding));
            let refused = parts.filter_map(|part| part.strip_prefix("q=")).any(|q| q.parse() == Ok(0.0_f32));
            listed && !refused
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coding_is_accepted_unless_absent_or_of_weight_zero() {
        for (value, accepted) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip; q=0.000", false),
            ("deflate, br", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, value.parse().unwrap())]);
            assert_eq!(accepts_coding(&headers, "gzip"), accepted, "{value}");
        }
    }
}
