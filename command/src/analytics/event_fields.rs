//! The fields of an event as they were given, whatever the format.

use std::borrow::Cow;

use millrace_contracts::{Code, Kind, Refusal};
use millrace_service::http::query_string::{Unknown, parameters};

/// The names of the fields of an object or a record. The first three are required of an item of a batch.
pub(super) const NAMES: [&str; 4] = ["timestamp", "user", "event", "event_id"];

/// The fields of an event, decoded but not validated.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct EventFields<'a> {
    pub(crate) timestamp: Option<Cow<'a, str>>,
    pub(crate) user: Option<Cow<'a, str>>,
    pub(crate) event: Option<Cow<'a, str>>,
    pub(crate) event_id: Option<Cow<'a, str>>,
    /// The kind as a parameter of a query string, without a value.
    pub(crate) flag: Option<Kind>,
}

impl<'a> EventFields<'a> {
    /// Reads a query string, or a body of the media type `application/x-www-form-urlencoded`.
    ///
    /// # Errors
    /// Names a parameter that is unknown, given twice, or not decodable.
    pub(crate) fn parse(query: &'a str) -> Result<Self, Refusal> {
        let names = ["timestamp", "user", "click", "impression", "event", "event_id"];
        let [timestamp, user, click, impression, event, event_id] = parameters(query, names, Unknown::Refuse)?;
        let flag = match (has_flag(click.as_deref(), Kind::Click)?, has_flag(impression.as_deref(), Kind::Impression)?)
        {
            (true, true) => {
                return Err(
                    Refusal::new(Code::DuplicateField, "click and impression exclude each other").field("event")
                );
            }
            (true, false) => Some(Kind::Click),
            (false, true) => Some(Kind::Impression),
            (false, false) => None,
        };
        Ok(Self { timestamp, user, event, event_id, flag })
    }

    /// Adds the fields of the body to those of the query string.
    ///
    /// # Errors
    /// Names a field that is in both.
    pub(crate) fn and_body(self, body: Self) -> Result<Self, Refusal> {
        Ok(Self {
            timestamp: one_of(self.timestamp, body.timestamp, "timestamp")?,
            user: one_of(self.user, body.user, "user")?,
            event: one_of(self.event, body.event, "event")?,
            event_id: one_of(self.event_id, body.event_id, "event_id")?,
            flag: one_of(self.flag, body.flag, "event")?,
        })
    }

    /// Reads `user`, `timestamp` and `event_id` of a query string and ignores all other parameters.
    ///
    /// # Errors
    /// Names a parameter that is given twice or not decodable.
    pub(crate) fn parse_lenient(query: &'a str) -> Result<Self, Refusal> {
        let [timestamp, user, event_id] = parameters(query, ["timestamp", "user", "event_id"], Unknown::Ignore)?;
        Ok(Self { timestamp, user, event_id, ..Self::default() })
    }
}

fn one_of<T>(query: Option<T>, body: Option<T>, field: &'static str) -> Result<Option<T>, Refusal> {
    if query.is_some() && body.is_some() {
        let detail = format!("{field} is in the query string and in the body");
        return Err(Refusal::new(Code::DuplicateField, detail).field(field));
    }
    Ok(query.or(body))
}

fn has_flag(value: Option<&str>, kind: Kind) -> Result<bool, Refusal> {
    let name = kind.as_str();
    match value {
        None => Ok(false),
        Some("") => Ok(true),
        Some(_) => Err(Refusal::new(Code::InvalidField, format!("{name} takes no value")).field(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(text: &str, all: bool) -> String {
        let plain = |byte: u8| !all && byte.is_ascii_alphanumeric();
        text.bytes()
            .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") })
            .collect()
    }

    proptest! {
        #[test]
        fn parameters_round_trip_in_any_order(user: String, id: String, timestamp: u64, all: bool, click: bool, order in 0..4_usize) {
            let kind = if click { Kind::Click } else { Kind::Impression };
            let mut pairs = [
                format!("timestamp={timestamp}"),
                format!("user={}", encode(&user, all)),
                kind.as_str().to_owned(),
                format!("event_id={}", encode(&id, all)),
            ];
            pairs.rotate_left(order);
            let query = pairs.join("&");
            let expected = EventFields {
                timestamp: Some(timestamp.to_string().into()),
                user: Some(user.into()),
                event: None,
                event_id: Some(id.into()),
                flag: Some(kind),
            };
            prop_assert_eq!(EventFields::parse(&query), Ok(expected));
        }

        #[test]
        fn no_query_panics(query: String) {
            let _ = EventFields::parse(&query);
            let _ = EventFields::parse_lenient(&query);
        }
    }
}
