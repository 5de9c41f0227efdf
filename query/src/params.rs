//! The query string of a read: one parameter, `timestamp`.

use std::borrow::Cow;

use millrace_contracts::{Code, Hour};
use millrace_service::{Problem, shown};

const TIMESTAMP: &str = "timestamp";

/// The timestamp a read asks for, in ms since the epoch.
///
/// # Errors
/// A problem that names the parameter, when anything but one valid `timestamp` stands there.
pub(crate) fn timestamp(query: Option<&str>) -> Result<i64, Problem> {
    let query = query.unwrap_or_default();
    if let Some(value) = query.strip_prefix("timestamp=").and_then(plain) {
        return Ok(value);
    }
    let mut found = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(name) = decoded(name, Plus::Space) else {
            return Err(Problem::new(Code::InvalidEncoding, "a parameter's name is not valid percent-encoded UTF-8")
                .field(shown(name)));
        };
        if name != TIMESTAMP {
            return Err(
                Problem::new(Code::UnknownField, "no such parameter; timestamp is the only one").field(shown(&name))
            );
        }
        let Some(value) = decoded(value, Plus::Space) else {
            return Err(Problem::new(Code::InvalidEncoding, "not valid percent-encoded UTF-8").field(TIMESTAMP));
        };
        if found.replace(value).is_some() {
            return Err(Problem::new(Code::DuplicateField, "given more than once").field(TIMESTAMP));
        }
    }
    let Some(value) = found else {
        return Err(Problem::new(Code::MissingField, "timestamp is missing: ms since the epoch").field(TIMESTAMP));
    };
    plain(&value).ok_or_else(|| {
        let detail = format!("not an unsigned decimal number of ms from 0 to {}", Hour::MAX.end_ms() - 1);
        Problem::new(Code::InvalidField, detail).field(TIMESTAMP)
    })
}

/// Digits alone, within the range.
fn plain(value: &str) -> Option<i64> {
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    value.parse().ok().filter(|&ms| ms < Hour::MAX.end_ms())
}

/// What `+` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plus {
    /// A space, as in a query string.
    Space,
    /// Itself, as in a path.
    Plus,
}

/// Undoes percent-encoding; `None` if it is broken, or does not give UTF-8.
pub(crate) fn decoded(raw: &str, plus: Plus) -> Option<Cow<'_, str>> {
    if !raw.bytes().any(|byte| byte == b'%' || (byte == b'+' && plus == Plus::Space)) {
        return Some(Cow::Borrowed(raw));
    }
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    loop {
        match rest {
            [] => break,
            [b'%', high, low, tail @ ..] => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
                rest = tail;
            }
            [b'%', ..] => return None,
            [byte, tail @ ..] => {
                bytes.push(if *byte == b'+' && plus == Plus::Space { b' ' } else { *byte });
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_timestamp_and_nothing_else() {
        for (query, expected) in [
            ("timestamp=0", 0),
            ("timestamp=123", 123),
            ("timestamp=0000000000000000000000000123", 123),
            ("&timestamp=123&", 123),
            ("%74imestamp=%31", 1),
            (&*format!("timestamp={}", Hour::MAX.end_ms() - 1), Hour::MAX.end_ms() - 1),
        ] {
            assert_eq!(timestamp(Some(query)).map_err(|problem| problem.code), Ok(expected), "{query}");
        }
        for (query, code, field) in [
            ("", Code::MissingField, "timestamp"),
            ("timestamp", Code::InvalidField, "timestamp"),
            ("timestamp=", Code::InvalidField, "timestamp"),
            ("timestamp=-1", Code::InvalidField, "timestamp"),
            ("timestamp=+1", Code::InvalidField, "timestamp"),
            ("timestamp=%2B1", Code::InvalidField, "timestamp"),
            ("timestamp=1.0", Code::InvalidField, "timestamp"),
            ("timestamp=1e3", Code::InvalidField, "timestamp"),
            ("timestamp=0x10", Code::InvalidField, "timestamp"),
            ("timestamp=%D9%A1", Code::InvalidField, "timestamp"),
            (&*format!("timestamp={}", Hour::MAX.end_ms()), Code::InvalidField, "timestamp"),
            ("timestamp=99999999999999999999", Code::InvalidField, "timestamp"),
            ("timestamp=%zz", Code::InvalidEncoding, "timestamp"),
            ("timestamp=1%", Code::InvalidEncoding, "timestamp"),
            ("timestamp=%ff", Code::InvalidEncoding, "timestamp"),
            ("%zz=1", Code::InvalidEncoding, "%zz"),
            ("timestamp=1&timestamp=1", Code::DuplicateField, "timestamp"),
            ("timestamp=1&user=kek", Code::UnknownField, "user"),
            ("Timestamp=1", Code::UnknownField, "Timestamp"),
            ("timestamp=1&=", Code::UnknownField, ""),
        ] {
            let problem = timestamp(Some(query)).unwrap_err();
            assert_eq!((problem.code, problem.field.as_deref()), (code, Some(field)), "{query}");
        }
        assert_eq!(timestamp(None).unwrap_err().code, Code::MissingField);
    }

    #[test]
    fn a_plus_is_itself_in_a_path() {
        assert_eq!(decoded("a+b%2bc", Plus::Plus).as_deref(), Some("a+b+c"));
        assert_eq!(decoded("a+b%2bc", Plus::Space).as_deref(), Some("a b+c"));
    }
}
