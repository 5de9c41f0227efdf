//! The query string of an event: pairs, percent-decoding, the known parameters. One pass; nothing is copied unless it is
//! percent-encoded.

use std::borrow::Cow;

use millrace_contracts::{Code, Kind, Refusal};
use millrace_service::shown;

/// The parameters of an event as they were given.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Parameters<'a> {
    pub(crate) timestamp: Option<Cow<'a, str>>,
    pub(crate) user: Option<Cow<'a, str>>,
    pub(crate) event: Option<Cow<'a, str>>,
    pub(crate) event_id: Option<Cow<'a, str>>,
    pub(crate) flag: Option<Kind>,
}

/// Why a text cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Escape,
    Utf8,
}

impl<'a> Parameters<'a> {
    /// Reads a query string.
    ///
    /// # Errors
    /// Names the first parameter that is unknown, there twice, or not decodable.
    pub(crate) fn parse(query: &'a str) -> Result<Self, Refusal> {
        let mut found = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = split(pair);
            let key = decode(key).map_err(|why| why.of(shown(key)))?;
            let name: &'static str = match &*key {
                "timestamp" => "timestamp",
                "user" => "user",
                "event" => "event",
                "click" | "impression" => {
                    found.add_flag(&key, value)?;
                    continue;
                }
                "event_id" => "event_id",
                other => {
                    let name = shown(other);
                    let detail = format!(
                        "unknown parameter \"{name}\"; known are timestamp, user, click, impression, event, event_id"
                    );
                    return Err(Refusal::new(Code::UnknownField, detail).field(name));
                }
            };
            let slot = match name {
                "timestamp" => &mut found.timestamp,
                "user" => &mut found.user,
                "event_id" => &mut found.event_id,
                _ => &mut found.event,
            };
            let value = decode(value.unwrap_or_default()).map_err(|why| why.of(name))?;
            if slot.replace(value).is_some() {
                return Err(Refusal::new(Code::DuplicateField, format!("{name} is given twice")).field(name));
            }
        }
        Ok(found)
    }

    /// Reads `user`, `timestamp` and `event_id` of a query string and ignores everything else.
    pub(crate) fn parse_lenient(query: &'a str) -> Result<Self, Refusal> {
        let mut found = Self::default();
        for pair in query.split('&') {
            let (key, value) = split(pair);
            let (name, slot) = match decode(key).as_deref() {
                Ok("timestamp") => ("timestamp", &mut found.timestamp),
                Ok("user") => ("user", &mut found.user),
                Ok("event_id") => ("event_id", &mut found.event_id),
                _ => continue,
            };
            let value = decode(value.unwrap_or_default()).map_err(|why| why.of(name))?;
            if slot.replace(value).is_some() {
                return Err(Refusal::new(Code::DuplicateField, format!("{name} is given twice")).field(name));
            }
        }
        Ok(found)
    }

    fn add_flag(&mut self, key: &str, value: Option<&str>) -> Result<(), Refusal> {
        let kind = if key == "click" { Kind::Click } else { Kind::Impression };
        let name = kind.as_str();
        if value.is_some_and(|value| !value.is_empty()) {
            return Err(Refusal::new(Code::InvalidField, format!("{name} takes no value")).field(name));
        }
        match self.flag.replace(kind) {
            None => Ok(()),
            Some(same) if same == kind => {
                Err(Refusal::new(Code::DuplicateField, format!("{name} is given twice")).field(name))
            }
            Some(_) => {
                Err(Refusal::new(Code::DuplicateField, "click and impression exclude each other").field("event"))
            }
        }
    }
}

fn split(pair: &str) -> (&str, Option<&str>) {
    pair.split_once('=').map_or((pair, None), |(key, value)| (key, Some(value)))
}

impl Broken {
    fn of(self, field: impl Into<Cow<'static, str>>) -> Refusal {
        let detail = match self {
            Self::Escape => "a % is not followed by two hexadecimal digits",
            Self::Utf8 => "not valid UTF-8 after percent-decoding",
        };
        Refusal::new(Code::InvalidEncoding, detail).field(field)
    }
}

fn hex(digit: u8) -> Result<u8, Broken> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(Broken::Escape),
    }
}

/// Percent-decodes, and reads `+` as a space.
fn decode(text: &str) -> Result<Cow<'_, str>, Broken> {
    let Some(first) = text.bytes().position(|byte| matches!(byte, b'%' | b'+')) else { return Ok(text.into()) };
    let mut out = Vec::with_capacity(text.len());
    out.extend_from_slice(&text.as_bytes()[..first]);
    let mut rest = &text.as_bytes()[first..];
    loop {
        rest = match rest {
            [] => break,
            [b'+', rest @ ..] => {
                out.push(b' ');
                rest
            }
            [b'%', high, low, rest @ ..] => {
                out.push(hex(*high)? << 4 | hex(*low)?);
                rest
            }
            [b'%', ..] => return Err(Broken::Escape),
            [byte, rest @ ..] => {
                out.push(*byte);
                rest
            }
        };
    }
    String::from_utf8(out).map(Cow::Owned).map_err(|_| Broken::Utf8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Decoding as slowly and plainly as can be.
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

    fn encode(text: &str, all: bool) -> String {
        let plain = |byte: u8| !all && byte.is_ascii_alphanumeric();
        text.bytes()
            .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") })
            .collect()
    }

    proptest! {
        #[test]
        fn decodes_like_the_reference(text in "[a-fA-F0-9%+ä&=\\x00-\\x20]{0,24}") {
            prop_assert_eq!(decode(&text).ok().map(Cow::into_owned), reference(&text));
        }

        #[test]
        fn what_was_encoded_comes_back(user: String, id: String, timestamp: u64, all: bool, click: bool, order in 0..4_usize) {
            let kind = if click { Kind::Click } else { Kind::Impression };
            let mut pairs = [
                format!("timestamp={timestamp}"),
                format!("user={}", encode(&user, all)),
                kind.as_str().to_owned(),
                format!("event_id={}", encode(&id, all)),
            ];
            pairs.rotate_left(order);
            let query = pairs.join("&");
            let wanted = Parameters {
                timestamp: Some(timestamp.to_string().into()),
                user: Some(user.into()),
                event: None,
                event_id: Some(id.into()),
                flag: Some(kind),
            };
            prop_assert_eq!(Parameters::parse(&query), Ok(wanted));
        }

        #[test]
        fn no_query_makes_it_panic(query: String) {
            let _ = Parameters::parse(&query);
            let _ = Parameters::parse_lenient(&query);
        }
    }

    #[test]
    fn plain_text_is_not_copied() {
        assert!(matches!(decode("user-4711"), Ok(Cow::Borrowed(_))));
        assert!(matches!(decode("a+b"), Ok(Cow::Owned(text)) if text == "a b"));
    }
}
