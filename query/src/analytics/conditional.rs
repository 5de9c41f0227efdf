//! `If-None-Match` (RFC 9110, 13.1.2).

use axum::http::header::IF_NONE_MATCH;
use axum::http::{HeaderMap, HeaderValue};

/// An entity tag, strong: representations that differ have tags that differ.
#[derive(Debug, Clone)]
pub(crate) struct Tag {
    pub(crate) value: HeaderValue,
    /// How much of the value tells the numbers. What follows tells when and by whom they were read, which a client that
    /// holds the same numbers need not be sent again: what it holds is a representation that is still true.
    pub(crate) numbers: usize,
}

/// The tag under which the client says that it holds these numbers, to be confirmed by 304.
pub(crate) fn held(request: &HeaderMap, tag: &Tag) -> Option<HeaderValue> {
    let numbers = &tag.value.as_bytes()[..tag.numbers];
    request.get_all(IF_NONE_MATCH).iter().find_map(|value| match listed(value.as_bytes(), numbers)? {
        b"*" => Some(tag.value.clone()),
        held => HeaderValue::from_bytes(held).ok(),
    })
}

/// The first tag of a list that begins with these bytes. Tags compare weakly.
fn listed<'a>(mut list: &'a [u8], numbers: &[u8]) -> Option<&'a [u8]> {
    // A tag may hold commas, so a list is taken apart from tag to tag; whatever is no tag ends it.
    loop {
        list = list.trim_ascii_start();
        if let [b',', rest @ ..] = list {
            list = rest;
            continue;
        }
        if list.trim_ascii_end() == b"*" {
            return Some(b"*");
        }
        let tag = list.strip_prefix(b"W/").unwrap_or(list);
        let end = tag.strip_prefix(b"\"").and_then(|inner| inner.iter().position(|&byte| byte == b'"'))?;
        let (tag, rest) = tag.split_at(end + 2);
        if tag.starts_with(numbers) {
            return Some(tag);
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
            (r#""ab""#, false),
        ] {
            assert_eq!(listed(list.as_bytes(), br#""a""#).is_some(), held, "{list}");
        }
    }

    #[test]
    fn the_tag_that_is_held_is_confirmed() {
        assert_eq!(listed(br#""b", W/"a.1""#, br#""a."#), Some(&br#""a.1""#[..]));
        assert_eq!(listed(br#""a""#, br#""a."#), None);
    }
}
