//! JSON: the members of an object, and those of an event, alone or as an item of a batch:
//! `{"timestamp": 1, "user": "u", "event": "click"}`, with or without an `event_id`.
//!
//! A visitor over raw values parses an object, so that a refusal names its field and duplicate keys are found (a derived
//! implementation would stop at the first fault, a map would keep the last value).

use std::borrow::Cow;
use std::fmt;

use millrace_contracts::{Code, Refusal};
use millrace_service::http::malformed_json;
use millrace_service::http::query_string::Unknown;
use millrace_service::shown;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::event_fields::{EventFields, NAMES};
use super::field::invalid;

/// Reads the fields of an event. Each may be absent.
pub(super) fn fields(json: &str) -> Result<EventFields<'_>, Refusal> {
    let [timestamp, user, event, event_id] = members(json, NAMES, Unknown::Refuse)?;
    let given = |raw: Option<_>, name| raw.map(|raw| text(raw, name)).transpose();
    Ok(EventFields {
        timestamp: timestamp.map(|raw| raw.get().into()),
        user: given(user, "user")?,
        event: given(event, "event")?,
        event_id: given(event_id, "event_id")?,
        flag: None,
    })
}

/// Reads the members `names` of an object, in that order.
///
/// # Errors
/// The text is not an object. Else names the first member that is unknown or given twice.
pub(super) fn members<'a, const N: usize>(
    json: &'a str,
    names: [&'static str; N],
    unknown: Unknown,
) -> Result<[Option<&'a RawValue>; N], Refusal> {
    let mut members = Members { names, unknown, values: [None; N], refusal: None };
    let mut parser = serde_json::Deserializer::from_str(json);
    members.deserialize(&mut parser).and_then(|()| parser.end()).map_err(|error| malformed_json(&error))?;
    members.refusal.map_or(Ok(members.values), Err)
}

/// Reads a member that is a string.
pub(super) fn text<'a>(raw: &'a RawValue, field: &'static str) -> Result<Cow<'a, str>, Refusal> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    if !raw.get().starts_with('"') {
        return Err(invalid(field, format!("{field} is not a string")));
    }
    serde_json::from_str::<Text<'a>>(raw.get()).map(|text| text.0).map_err(|_| {
        Refusal::new(Code::InvalidEncoding, format!("{field} has an escape that stands for no character")).field(field)
    })
}

struct Members<'a, const N: usize> {
    names: [&'static str; N],
    unknown: Unknown,
    values: [Option<&'a RawValue>; N],
    refusal: Option<Refusal>,
}

impl<'de, const N: usize> DeserializeSeed<'de> for &mut Members<'de, N> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for &mut Members<'de, N> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        #[derive(Deserialize)]
        struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
        while let Some(Key(key)) = map.next_key()? {
            let Some(index) = self.names.iter().position(|name| *name == key) else {
                map.next_value::<IgnoredAny>()?;
                if self.unknown == Unknown::Refuse {
                    self.refusal.get_or_insert_with(|| unknown_field(&key, &self.names));
                }
                continue;
            };
            if self.values[index].replace(map.next_value()?).is_some() {
                self.refusal.get_or_insert_with(|| given_twice(self.names[index]));
            }
        }
        Ok(())
    }
}

/// The refusal of a field that is not among the `known` ones.
pub(super) fn unknown_field(name: &str, known: &[&str]) -> Refusal {
    let name = shown(name);
    let detail = format!("unknown field \"{name}\"; known are {}", known.join(", "));
    Refusal::new(Code::UnknownField, detail).field(name)
}

/// The refusal of a field that is given twice.
pub(super) fn given_twice(name: &'static str) -> Refusal {
    Refusal::new(Code::DuplicateField, format!("{name} is given twice")).field(name)
}
