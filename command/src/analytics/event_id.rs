//! A client's own id of an event, by which a retry counts once: the parameter or field `event_id`, or the header
//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header). Whether an id was seen before is the processor's
//! business.

use std::borrow::Cow;
use std::fmt::Write as _;

use http::{HeaderMap, HeaderName};
use millrace_base::limits::MAX_EVENT_ID_BYTES;
use millrace_contracts::{Code, Refusal};

use super::event::invalid;

/// Longest key of a batch, in bytes: leaves room for a slash and the index of the last item.
pub(crate) const MAX_BATCH_KEY_BYTES: usize = MAX_EVENT_ID_BYTES - "/99999".len();

const NAME: &str = "idempotency-key";
pub(crate) const HEADER: HeaderName = HeaderName::from_static(NAME);

/// The id in the header, if there is one: in double quotes as the draft wants it (a string of RFC 9651), or bare.
pub(crate) fn of_header(headers: &HeaderMap) -> Result<Option<Cow<'_, str>>, Refusal> {
    let mut lines = headers.get_all(HEADER).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(Refusal::new(Code::DuplicateField, "Idempotency-Key is given twice").field(NAME));
    }
    let id = parse(line.as_bytes()).ok_or_else(|| {
        let detail =
            "Idempotency-Key is neither a string in double quotes nor a word of visible ASCII without \" \\ , ;";
        invalid(NAME, detail.into())
    })?;
    check(&id, NAME, MAX_EVENT_ID_BYTES).map(|()| Some(id))
}

/// The key of a batch: what the ids of its items begin with.
pub(crate) fn of_batch(headers: &HeaderMap) -> Result<Option<Cow<'_, str>>, Refusal> {
    let key = of_header(headers)?;
    key.iter().try_for_each(|key| check(key, NAME, MAX_BATCH_KEY_BYTES))?;
    Ok(key)
}

/// The event's id, given in the request itself, in the header, or the same in both.
pub(crate) fn one_of<'a>(given: Option<&'a str>, header: Option<&'a str>) -> Result<Option<&'a str>, Refusal> {
    let Some(id) = given else { return Ok(header) };
    check(id, "event_id", MAX_EVENT_ID_BYTES)?;
    if header.is_some_and(|header| header != id) {
        let detail = "event_id and Idempotency-Key are both given, and differ";
        return Err(Refusal::new(Code::DuplicateField, detail).field("event_id"));
    }
    Ok(Some(id))
}

/// The id of a batch's item: its own, or one made of the batch's key and its position, in `scratch`.
pub(crate) fn of_item<'a>(
    given: Option<&'a str>,
    key: Option<&str>,
    index: usize,
    scratch: &'a mut String,
) -> Result<Option<&'a str>, Refusal> {
    if let (None, Some(key)) = (given, key) {
        scratch.clear();
        let _ = write!(scratch, "{key}/{index}");
        return Ok(Some(scratch));
    }
    one_of(given, None)
}

fn check(id: &str, field: &'static str, most: usize) -> Result<(), Refusal> {
    if id.is_empty() || id.len() > most {
        return Err(invalid(field, format!("{field} has {} bytes; 1 to {most} are allowed", id.len())));
    }
    if id.chars().any(char::is_control) {
        return Err(invalid(field, format!("{field} has a control character")));
    }
    Ok(())
}

fn parse(line: &[u8]) -> Option<Cow<'_, str>> {
    if let [b'"', inner @ .., b'"'] = line {
        return unescape(std::str::from_utf8(inner).ok()?);
    }
    let bare = line.iter().all(|byte| byte.is_ascii_graphic() && !b"\"\\,;".contains(byte));
    std::str::from_utf8(line).ok().filter(|_| bare).map(Cow::Borrowed)
}

/// What stands between the quotes of a string: printable ASCII, a backslash before a quote or another backslash.
fn unescape(text: &str) -> Option<Cow<'_, str>> {
    if !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return None;
    }
    if !text.contains(['"', '\\']) {
        return Some(text.into());
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        plain.push(match character {
            '"' => return None,
            '\\' => rest.next().filter(|escaped| matches!(escaped, '"' | '\\'))?,
            other => other,
        });
    }
    Some(plain.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn strings_and_words() {
        for (line, id) in [
            (r#""8e03978e-40d5-43dd-bc93-6894a57f9324""#, "8e03978e-40d5-43dd-bc93-6894a57f9324"),
            ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
            (r#""a b, c; d""#, "a b, c; d"),
            (r#""a\"b\\c""#, r#"a"b\c"#),
            ("a+b/c==", "a+b/c=="),
        ] {
            assert_eq!(parse(line.as_bytes()).as_deref(), Some(id), "{line}");
        }
        for line in
            [r#"""#, r#""a"#, r#"a""#, r#""a"b""#, r#""a\b""#, r#""a\""#, r#""a";x=1"#, "a,b", "a b", "\"ä\"", "ä"]
        {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
        assert!(matches!(parse(b"\"plain\""), Some(Cow::Borrowed(_))), "nothing is copied without need");
    }

    #[test]
    fn an_item_without_an_id_has_the_keys_and_its_position() {
        let mut scratch = String::new();
        assert_eq!(of_item(None, Some("k"), 0, &mut scratch), Ok(Some("k/0")));
        assert_eq!(of_item(None, Some("k"), 12, &mut scratch), Ok(Some("k/12")));
        assert_eq!(of_item(Some("own"), Some("k"), 3, &mut scratch), Ok(Some("own")));
        assert_eq!(of_item(None, None, 3, &mut scratch), Ok(None));
        let longest = "k".repeat(MAX_BATCH_KEY_BYTES);
        assert_eq!(
            of_item(None, Some(&longest), 99_999, &mut scratch).unwrap().map(str::len),
            Some(MAX_EVENT_ID_BYTES)
        );
    }

    proptest! {
        #[test]
        fn what_was_quoted_comes_back(id in "[ -~]{0,40}") {
            let line = format!("\"{}\"", id.replace('\\', r"\\").replace('"', "\\\""));
            let parsed = parse(line.as_bytes());
            prop_assert_eq!(parsed.as_deref(), Some(&*id));
        }

        #[test]
        fn no_line_makes_it_panic(line: Vec<u8>) {
            let _ = parse(&line);
        }
    }
}
