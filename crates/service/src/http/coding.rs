//! Which content codings a client takes (RFC 9110, 12.5.3).

use ::http::HeaderMap;
use ::http::header::ACCEPT_ENCODING;

/// Whether a coding is accepted: named, and not with a weight of zero.
pub fn takes(asked: &HeaderMap, coding: &str) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coding_is_named_and_not_refused() {
        for (value, taken) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip; q=0.000", false),
            ("deflate, br", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, value.parse().unwrap())]);
            assert_eq!(takes(&headers, "gzip"), taken, "{value}");
        }
    }
}
