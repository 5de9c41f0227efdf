//! Entity tags and `If-None-Match` (RFC 9110, 13.1.2).

use ::http::header::IF_NONE_MATCH;
use ::http::{HeaderMap, HeaderValue};

/// A strong entity tag: representations that differ have tags that differ.
#[derive(Debug, Clone)]
pub struct EntityTag {
    /// The tag, with its quotes.
    pub value: HeaderValue,
    /// Length of the part of the value that identifies the content. The rest identifies when and from where it was read;
    /// a client that has the same content under another rest need not receive it again.
    pub content_len: usize,
}

impl EntityTag {
    /// A tag all of which identifies the content. `id` is visible ASCII without quotes.
    ///
    /// # Panics
    /// If `id` is not.
    pub fn whole(id: &str) -> Self {
        let value = HeaderValue::try_from(format!("\"{id}\"")).expect("an id of visible ASCII");
        let content_len = value.len();
        Self { value, content_len }
    }

    /// The tag of the request's `If-None-Match` that has the same content, which a 304 confirms.
    pub fn matching(&self, request: &HeaderMap) -> Option<HeaderValue> {
        let content = &self.value.as_bytes()[..self.content_len];
        request.get_all(IF_NONE_MATCH).iter().find_map(|list| match first_match(list.as_bytes(), content)? {
            b"*" => Some(self.value.clone()),
            tag => HeaderValue::from_bytes(tag).ok(),
        })
    }
}

/// The first tag of a list that begins with `content`. Tags compare weakly.
fn first_match<'a>(mut list: &'a [u8], content: &[u8]) -> Option<&'a [u8]> {
    // A tag may contain commas, so the list is read from tag to tag; anything that is not a tag ends it.
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
        if tag.starts_with(content) {
            return Some(tag);
        }
        list = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_tag_in_a_list() {
        for (list, found) in [
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
            assert_eq!(first_match(list.as_bytes(), br#""a""#).is_some(), found, "{list}");
        }
    }

    #[test]
    fn confirms_the_tag_of_the_client() {
        assert_eq!(first_match(br#""b", W/"a.1""#, br#""a."#), Some(&br#""a.1""#[..]));
        assert_eq!(first_match(br#""a""#, br#""a."#), None);
        let headers = HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static("\"a\""))]);
        assert_eq!(EntityTag::whole("a").matching(&headers).unwrap(), "\"a\"");
    }
}
