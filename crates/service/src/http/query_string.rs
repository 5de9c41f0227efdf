//! Strict query strings: known parameters, each at most once, percent-decoded. One pass; a value is copied only if it is
//! percent-encoded.

use std::borrow::Cow;

use millrace_contracts::{Code, Refusal};

use crate::shown;

/// What happens to a parameter that is not among the known ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// The request is refused.
    Refuse,
    /// The parameter is skipped, whatever it holds.
    Ignore,
}

/// Why a text cannot be percent-decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A `%` without two hexadecimal digits.
    #[error("a % is not followed by two hexadecimal digits")]
    Escape,
    /// The bytes are not UTF-8.
    #[error("not valid UTF-8 after percent-decoding")]
    Utf8,
}

/// The values of the parameters `names`, in that order. A parameter without `=` has an empty value.
///
/// # Errors
/// Names the first parameter that is unknown, given twice, or not decodable.
pub fn parameters<'q, const N: usize>(
    query: &'q str,
    names: [&'static str; N],
    unknown: Unknown,
) -> Result<[Option<Cow<'q, str>>; N], Refusal> {
    let mut values = [const { None }; N];
    // Almost every query: one look at all of it costs less than one at each name and value.
    let plain = memchr::memchr2(b'%', b'+', query.as_bytes()).is_none();
    let decode = |text| if plain { Ok(Cow::Borrowed(text)) } else { decode(text) };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = match (decode(name), unknown) {
            (Ok(name), _) => name,
            (Err(_), Unknown::Ignore) => continue,
            (Err(error), Unknown::Refuse) => return Err(undecodable(error, shown(name))),
        };
        let Some(index) = names.iter().position(|known| *known == name) else {
            match unknown {
                Unknown::Ignore => continue,
                Unknown::Refuse => return Err(unknown_parameter(&name, &names)),
            }
        };
        let name = names[index];
        let value = decode(value).map_err(|error| undecodable(error, name))?;
        if values[index].replace(value).is_some() {
            return Err(Refusal::new(Code::DuplicateField, format!("{name} is given twice")).field(name));
        }
    }
    Ok(values)
}

fn undecodable(error: DecodeError, field: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::new(Code::InvalidEncoding, error.to_string()).field(field)
}

fn unknown_parameter(name: &str, known: &[&str]) -> Refusal {
    let name = shown(name);
    let detail = match known {
        [] => format!("unknown parameter \"{name}\"; the route has none"),
        known => format!("unknown parameter \"{name}\"; known are {}", known.join(", ")),
    };
    Refusal::new(Code::UnknownField, detail).field(name)
}

/// Decodes a name or a value of a query string: percent-decoding, and `+` for a space.
///
/// # Errors
/// When an escape is broken, or the result is not UTF-8.
pub fn decode(text: &str) -> Result<Cow<'_, str>, DecodeError> {
    unescape(text, b' ')
}

/// Decodes a segment of a path: percent-decoding; `+` stands for itself.
///
/// # Errors
/// When an escape is broken, or the result is not UTF-8.
pub fn decode_segment(text: &str) -> Result<Cow<'_, str>, DecodeError> {
    unescape(text, b'+')
}

fn unescape(text: &str, plus: u8) -> Result<Cow<'_, str>, DecodeError> {
    let special = |byte| byte == b'%' || (byte == b'+' && plus != b'+');
    let Some(first) = text.bytes().position(special) else { return Ok(text.into()) };
    let mut decoded = Vec::with_capacity(text.len());
    decoded.extend_from_slice(&text.as_bytes()[..first]);
    let mut rest = &text.as_bytes()[first..];
    loop {
        let (byte, tail) = match rest {
            [] => break,
            [b'%', high, low, tail @ ..] => (hex(*high)? << 4 | hex(*low)?, tail),
            [b'%', ..] => return Err(DecodeError::Escape),
            [b'+', tail @ ..] => (plus, tail),
            [byte, tail @ ..] => (*byte, tail),
        };
        decoded.push(byte);
        rest = tail;
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| DecodeError::Utf8)
}

fn hex(digit: u8) -> Result<u8, DecodeError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(DecodeError::Escape),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Decodes one character at a time.
    fn reference(text: &str) -> Option<String> {
        let chars: Vec<char> = text.chars().collect();
        let (mut bytes, mut i) = (Vec::new(), 0);
        while i < chars.len() {
            if chars[i] == '%' {
                let hex: String = chars.get(i + 1..i + 3)?.iter().collect();
                if !hex.chars().all(|c| c.is_ascii_hexdigit()) {
                    return None;
                }
                bytes.push(u8::from_str_radix(&hex, 16).ok()?);
                i += 3;
            } else {
                let c = if chars[i] == '+' { ' ' } else { chars[i] };
                bytes.extend(c.to_string().bytes());
                i += 1;
            }
        }
        String::from_utf8(bytes).ok()
    }

    proptest! {
        #[test]
        fn decodes_like_the_reference(text in "[a-fA-F0-9%+ä&=\\x00-\\x20]{0,24}") {
            prop_assert_eq!(decode(&text).ok().map(Cow::into_owned), reference(&text));
        }

        #[test]
        fn no_query_panics(query: String) {
            let _ = parameters(&query, ["a", "b"], Unknown::Refuse);
            let _ = parameters(&query, ["a", "b"], Unknown::Ignore);
        }
    }

    #[test]
    fn plain_text_is_not_copied() {
        assert!(matches!(decode("user-4711"), Ok(Cow::Borrowed(_))));
        assert!(matches!(decode("a+b"), Ok(Cow::Owned(text)) if text == "a b"));
    }

    #[test]
    fn a_plus_in_a_path_stands_for_itself() {
        assert_eq!(decode_segment("a+b%2bc").as_deref(), Ok("a+b+c"));
        assert!(matches!(decode_segment("a+b"), Ok(Cow::Borrowed(_))));
    }

    #[test]
    fn returns_known_parameters_in_their_order() {
        let both = |query| parameters(query, ["a", "b"], Unknown::Refuse);
        assert_eq!(both("b=2&a=%31&").unwrap(), [Some("1".into()), Some("2".into())]);
        assert_eq!(both("a").unwrap(), [Some("".into()), None]);
        assert_eq!(both("").unwrap(), [None, None]);
    }

    #[test]
    fn refuses_unknown_duplicate_and_broken_parameters() {
        for (query, code, field) in [
            ("a=1&c=2", Code::UnknownField, "c"),
            ("A=1", Code::UnknownField, "A"),
            ("=", Code::UnknownField, ""),
            ("a=1&%61=1", Code::DuplicateField, "a"),
            ("a=%zz", Code::InvalidEncoding, "a"),
            ("a=%f", Code::InvalidEncoding, "a"),
            ("a=%ff", Code::InvalidEncoding, "a"),
            ("%zz=1", Code::InvalidEncoding, "%zz"),
        ] {
            let refusal = parameters(query, ["a", "b"], Unknown::Refuse).unwrap_err();
            assert_eq!((refusal.code, refusal.field.as_deref()), (code, Some(field)), "{query}");
        }
    }

    #[test]
    fn ignores_unknown_parameters_where_the_route_does() {
        let found = parameters("utm=1&%zz=%zz&a=1&c=%", ["a"], Unknown::Ignore).unwrap();
        assert_eq!(found, [Some("1".into())]);
        assert_eq!(parameters("a=%", ["a"], Unknown::Ignore).unwrap_err().code, Code::InvalidEncoding);
    }
}
