//! `If-None-Match` (RFC 9110, 13.1.2).

use axum::http::header::IF_NONE_MATCH;
use axum::http::{HeaderMap, HeaderValue};

/// Whether the client says that it holds the representation with this entity tag. Tags compare weakly.
pub(crate) fn is_held(request: &HeaderMap, etag: &HeaderValue) -> bool {
    request.get_all(IF_NONE_MATCH).iter().any(|value| lists(value.as_bytes(), etag.as_bytes()))
}

fn lists(mut list: &[u8], etag: &[u8]) -> bool {
    // A tag may hold commas, so a list is taken apart from tag to tag; whatever is no tag ends it.
    loop {
        list = list.trim_ascii_start();
        if let [b',', rest @ ..] = list {
            list = rest;
            continue;
        }
        if list.trim_ascii_end() == b"*" {
            return true;
        }
        let tag = list.strip_prefix(b"W/").unwrap_or(list);
        let Some(end) = tag.strip_prefix(b"\"").and_then(|inner| inner.iter().position(|&byte| byte == b'"')) else {
            return false;
        };
        let (tag, rest) = tag.split_at(end + 2);
        if tag == etag {
            return true;
        }
        list = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_tags() {
        for (list, held) in [
            (r#""a""#, true),
            (r#"W/"a""#, true),
            (r#""b", "a""#, true),
            (r#" "b,"  ,, W/"a" , "c""#, true),
            ("*", true),
            (" * ", true),
            (r#""b""#, false),
            (r#""b,a""#, false),
            (r#""A""#, false),
            ("a", false),
            (r#""a"#, false),
            ("", false),
            (",", false),
            (r#"w/"a""#, false),
        ] {
            assert_eq!(lists(list.as_bytes(), br#""a""#), held, "{list}");
        }
    }
}
