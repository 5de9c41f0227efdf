//! One event as a JSON object, alone or as an item of a batch: `{"timestamp": 1, "user": "u", "event": "click"}`, with or
//! without an `event_id`.
//!
//! A visitor over raw values parses it, so that a refusal names its field and duplicate keys are found (a derived
//! implementation would stop at the first fault, a map would keep the last value).

use std::borrow::Cow;
use std::fmt;

use millrace_contracts::{Code, EventRef, Refusal};
use millrace_service::http::malformed_json;
use millrace_service::shown;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::event::{Window, kind_of};
use super::field::{invalid, missing};
use super::parameters::Parameters;

/// The fields of an item, not parsed yet.
#[derive(Default)]
struct Fields<'a> {
    timestamp: Option<&'a RawValue>,
    user: Option<&'a RawValue>,
    event: Option<&'a RawValue>,
    event_id: Option<&'a RawValue>,
    refusal: Option<Refusal>,
}

/// An item, parsed but not validated.
pub(crate) struct Item<'a> {
    timestamp: &'a str,
    user: Cow<'a, str>,
    event: Cow<'a, str>,
    event_id: Option<Cow<'a, str>>,
}

impl<'a> Item<'a> {
    /// Parses an item.
    pub(crate) fn parse(json: &'a str) -> Result<Self, Refusal> {
        let fields = Fields::parse(json)?;
        let timestamp = fields.timestamp.ok_or_else(|| missing("timestamp"))?.get();
        let user = text(fields.user.ok_or_else(|| missing("user"))?, "user")?;
        let event = text(fields.event.ok_or_else(|| missing("event"))?, "event")?;
        let event_id = fields.event_id.map(|id| text(id, "event_id")).transpose()?;
        Ok(Self { timestamp, user, event, event_id })
    }

    /// Validates it, except its id.
    pub(crate) fn event(&self, window: Window) -> Result<EventRef<'_>, Refusal> {
        window.event(self.timestamp, &self.user, kind_of(&self.event)?)
    }

    /// Its own id.
    pub(crate) fn event_id(&self) -> Option<&str> {
        self.event_id.as_deref()
    }
}

/// Parses the event of a single request. Its fields may be in the query string, too.
pub(crate) fn parameters(json: &str) -> Result<Parameters<'_>, Refusal> {
    let fields = Fields::parse(json)?;
    let given = |raw: Option<_>, field| raw.map(|raw| text(raw, field)).transpose();
    Ok(Parameters {
        timestamp: fields.timestamp.map(|raw| raw.get().into()),
        user: given(fields.user, "user")?,
        event: given(fields.event, "event")?,
        event_id: given(fields.event_id, "event_id")?,
        flag: None,
    })
}

fn text<'a>(raw: &'a RawValue, field: &'static str) -> Result<Cow<'a, str>, Refusal> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    if !raw.get().starts_with('"') {
        return Err(invalid(field, format!("{field} is not a string")));
    }
    serde_json::from_str::<Text<'a>>(raw.get()).map(|text| text.0).map_err(|_| {
        Refusal::new(Code::InvalidEncoding, format!("{field} has an escape that stands for no character")).field(field)
    })
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Fields::default();
                while let Some(key) = map.next_key::<Key<'de>>()? {
                    let value: &RawValue = map.next_value()?;
                    fields.add(&key.0, value);
                }
                Ok(fields)
            }
        }

        #[derive(Deserialize)]
        struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
        deserializer.deserialize_map(Object)
    }
}

impl<'a> Fields<'a> {
    fn parse(json: &'a str) -> Result<Self, Refusal> {
        let mut fields: Self = serde_json::from_str(json).map_err(|error| malformed_json(&error))?;
        fields.refusal.take().map_or(Ok(fields), Err)
    }

    fn add(&mut self, key: &str, value: &'a RawValue) {
        let (name, slot) = match key {
            "timestamp" => ("timestamp", &mut self.timestamp),
            "user" => ("user", &mut self.user),
            "event" => ("event", &mut self.event),
            "event_id" => ("event_id", &mut self.event_id),
            other => {
                let name = shown(other);
                let detail = format!("unknown field \"{name}\"; known are timestamp, user, event, event_id");
                self.refusal.get_or_insert_with(|| Refusal::new(Code::UnknownField, detail).field(name));
                return;
            }
        };
        if slot.replace(value).is_some() {
            let duplicate = || Refusal::new(Code::DuplicateField, format!("{name} is given twice")).field(name);
            self.refusal.get_or_insert_with(duplicate);
        }
    }
}
