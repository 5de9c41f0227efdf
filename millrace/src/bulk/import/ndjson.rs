//! A line of NDJSON as an event. Parses raw values, so that a fault has its field and a duplicate key is detected.

use std::borrow::Cow;
use std::fmt;

use millrace_contracts::Code;
use millrace_service::shown;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::event::{Event, FIELDS, Fault};

/// The event of a line.
pub(super) fn parse(line: &[u8]) -> Result<Event<'_>, Fault> {
    let line = std::str::from_utf8(line)
        .map_err(|_| Fault::new(Code::InvalidEncoding, None, "the line is not valid UTF-8"))?;
    let Object(values, fault) = serde_json::from_str(line).map_err(|error| {
        let what = if error.is_eof() { "the JSON ends early" } else { "not a JSON object of one line" };
        Fault::new(Code::MalformedBody, None, format!("{what} (column {})", error.column()))
    })?;
    if let Some(fault) = fault {
        return Err(fault);
    }
    let required = |field: usize| values[field].ok_or_else(|| Fault::missing(FIELDS[field]));
    let (timestamp, user, kind) = (required(0)?.get(), text(required(1)?, 1)?, text(required(2)?, 2)?);
    let event_id = values[3].map(|raw| text(raw, 3)).transpose()?;
    Event::new(timestamp, user, &kind, event_id)
}

fn text(raw: &RawValue, field: usize) -> Result<Cow<'_, str>, Fault> {
    let name = FIELDS[field];
    if !raw.get().starts_with('"') {
        return Err(Fault::new(Code::InvalidField, Some(name), format!("{name} is not a string")));
    }
    serde_json::from_str::<Text<'_>>(raw.get())
        .map(|text| text.0)
        .map_err(|_| Fault::new(Code::InvalidEncoding, Some(name), format!("{name} has an invalid escape")))
}

/// A string, borrowed if it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The values of the fields, and the first fault with their names.
struct Object<'a>([Option<&'a RawValue>; 4], Option<Fault>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut object = Object([None; 4], None);
                while let Some(Text(key)) = map.next_key::<Text<'de>>()? {
                    let value: &RawValue = map.next_value()?;
                    let fault = match FIELDS.iter().position(|name| *name == key) {
                        Some(field) if object.0[field].replace(value).is_none() => continue,
                        Some(field) => {
                            let name = FIELDS[field];
                            Fault::new(Code::DuplicateField, Some(name), format!("{name} is given twice"))
                        }
                        None => Fault::new(Code::UnknownField, None, format!("unknown field \"{}\"", shown(&key))),
                    };
                    object.1.get_or_insert(fault);
                }
                Ok(object)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_fields_in_any_order() {
        let expected = Event::new("5", "kék".into(), "click", Some("i".into()));
        assert_eq!(parse(r#"{"timestamp":5,"user":"kék","event":"click","event_id":"i"}"#.as_bytes()), expected);
        let escaped = br#" {"event_id":"i", "event":"cl\u0069ck","user":"k\u00e9k","timestamp":5} "#;
        assert_eq!(parse(escaped), expected);
        let borrowed = parse(br#"{"timestamp":5,"user":"u","event":"click"}"#);
        assert_eq!(borrowed, Event::new("5", "u".into(), "click", None));
    }

    #[test]
    fn reports_each_fault_with_its_field() {
        for (line, code, field) in [
            (&b"{\"user\":\"\xff\"}"[..], Code::InvalidEncoding, None),
            (b"", Code::MalformedBody, None),
            (b"[]", Code::MalformedBody, None),
            (br#"{"timestamp":5"#, Code::MalformedBody, None),
            (br#"{"user":"u","event":"click"}"#, Code::MissingField, Some("timestamp")),
            (br#"{"timestamp":5,"event":"click"}"#, Code::MissingField, Some("user")),
            (br#"{"timestamp":5,"user":"u"}"#, Code::MissingField, Some("event")),
            (br#"{"timestamp":5,"timestamp":6,"user":"u","event":"click"}"#, Code::DuplicateField, Some("timestamp")),
            (br#"{"timestamp":5,"user":"u","event":"click","extra":1}"#, Code::UnknownField, None),
            (br#"{"timestamp":"5","user":"u","event":"click"}"#, Code::InvalidField, Some("timestamp")),
            (br#"{"timestamp":5e0,"user":"u","event":"click"}"#, Code::InvalidField, Some("timestamp")),
            (br#"{"timestamp":5,"user":7,"event":"click"}"#, Code::InvalidField, Some("user")),
            (br#"{"timestamp":5,"user":"\ud800","event":"click"}"#, Code::InvalidEncoding, Some("user")),
            (br#"{"timestamp":5,"user":"u","event":"view"}"#, Code::InvalidField, Some("event")),
            (br#"{"timestamp":5,"user":"u","event":"click","event_id":null}"#, Code::InvalidField, Some("event_id")),
        ] {
            let fault = parse(line).unwrap_err();
            assert_eq!((fault.code, fault.field), (code, field), "{}", String::from_utf8_lossy(line));
        }
    }

    proptest! {
        #[test]
        fn reads_back_what_it_renders(timestamp in 0..i64::MAX, user in "[^\\p{Cc}]{1,60}", id in "[^\\p{Cc}]{1,30}") {
            let event = Event::new(&timestamp.to_string(), user.into(), "impression", Some(id.into())).unwrap();
            let mut line = Vec::new();
            event.put("", 0, &mut line);
            prop_assert_eq!(parse(line.trim_ascii_end()), Ok(event));
        }

        #[test]
        fn does_not_panic_on_any_line(line: Vec<u8>) {
            let _ = parse(&line);
        }
    }
}
