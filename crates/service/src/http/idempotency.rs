//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header).

use std::borrow::Cow;

use ::http::{HeaderMap, HeaderName};
use millrace_contracts::{Code, Refusal};
use sfv::visitor::ParameterVisitor;
use sfv::{BareItemFromInput, KeyRef, Parser, StringRef};

const NAME: &str = "idempotency-key";

/// The name of the header.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static(NAME);

/// The key of a request: a string in double quotes, as the draft requires (RFC 9651), or a bare word.
///
/// # Errors
/// When the header is given twice, or is neither.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<Cow<'_, str>>, Refusal> {
    let mut lines = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(Refusal::new(Code::DuplicateField, "Idempotency-Key is given twice").field(NAME));
    }
    parse(line.as_bytes()).map(Some).ok_or_else(|| {
        let detail =
            "Idempotency-Key is neither a string in double quotes nor a word of visible ASCII without \" \\ , ;";
        Refusal::new(Code::InvalidField, detail).field(NAME)
    })
}

fn parse(line: &[u8]) -> Option<Cow<'_, str>> {
    if line.starts_with(b"\"") {
        return quoted(line);
    }
    let bare = line.iter().all(|byte| byte.is_ascii_graphic() && !b"\"\\,;".contains(byte));
    std::str::from_utf8(line).ok().filter(|_| bare).map(Cow::Borrowed)
}

/// A string without parameters.
fn quoted(line: &[u8]) -> Option<Cow<'_, str>> {
    Some(match Parser::new(line).parse_item_with_visitor(only_string).ok()? {
        Cow::Borrowed(string) => Cow::Borrowed(string.as_str()),
        Cow::Owned(string) => Cow::Owned(string.into()),
    })
}

fn only_string(item: BareItemFromInput<'_>) -> Result<WithoutParameters<'_>, NotAString> {
    match item {
        BareItemFromInput::String(string) => Ok(WithoutParameters(string)),
        _ => Err(NotAString),
    }
}

struct WithoutParameters<'a>(Cow<'a, StringRef>);

/// The header is not a string without parameters.
#[derive(Debug, thiserror::Error)]
#[error("not a string")]
struct NotAString;

impl<'a> ParameterVisitor<'a> for WithoutParameters<'a> {
    type Out = Cow<'a, StringRef>;
    type Error = NotAString;

    fn parameter(&mut self, _: &'a KeyRef, _: BareItemFromInput<'a>) -> Result<(), NotAString> {
        Err(NotAString)
    }

    fn finish(self) -> Result<Self::Out, NotAString> {
        Ok(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parses_strings_and_bare_words() {
        for (line, key) in [
            (r#""8e03978e-40d5-43dd-bc93-6894a57f9324""#, "8e03978e-40d5-43dd-bc93-6894a57f9324"),
            ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
            (r#""a b, c; d""#, "a b, c; d"),
            (r#""a\"b\\c""#, r#"a"b\c"#),
            (r#""\"a""#, r#""a"#),
            ("a+b/c==", "a+b/c=="),
        ] {
            assert_eq!(parse(line.as_bytes()).as_deref(), Some(key), "{line}");
        }
        for line in
            [r#"""#, r#""a"#, r#"a""#, r#""a"b""#, r#""a\b""#, r#""a\""#, r#""a";x=1"#, "a,b", "a b", "\"ä\"", "ä"]
        {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
        assert!(matches!(parse(b"\"plain\""), Some(Cow::Borrowed(_))), "a plain string is not copied");
    }

    proptest! {
        #[test]
        fn quoting_round_trips(key in "[ -~]{0,40}") {
            let line = format!("\"{}\"", key.replace('\\', r"\\").replace('"', "\\\""));
            let parsed = parse(line.as_bytes());
            prop_assert_eq!(parsed.as_deref(), Some(&*key));
        }

        #[test]
        fn no_line_panics(line: Vec<u8>) {
            let _ = parse(&line);
        }
    }
}
