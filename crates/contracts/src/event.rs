//! The record of `analytics.events`: one accepted event.

use crate::codec::{DecodeError, Fields, begin, put_bytes, put_long};
use crate::schema;

/// What a user did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A click.
    Click,
    /// An impression.
    Impression,
}

impl Kind {
    /// Every kind, in the order of the schema's symbols.
    pub const ALL: [Self; 2] = [Self::Click, Self::Impression];

    /// The name in the API and the schema.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Click => "click",
            Self::Impression => "impression",
        }
    }

    /// The kind with this exact name.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// One accepted event, borrowed from a request or a log record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventRef<'a> {
    /// The client's id of the event, if any.
    pub event_id: Option<&'a str>,
    /// When the event happened, ms since the epoch; determines the hour.
    pub timestamp_ms: i64,
    /// The user's id; determines the partition.
    pub user: &'a str,
    /// What the user did.
    pub kind: Kind,
    /// When the command service accepted the event, ms since the epoch.
    pub received_at_ms: i64,
}

/// One accepted event with owned text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnalyticsEvent {
    /// See [`EventRef::event_id`].
    pub event_id: Option<String>,
    /// See [`EventRef::timestamp_ms`].
    pub timestamp_ms: i64,
    /// See [`EventRef::user`].
    pub user: String,
    /// See [`EventRef::kind`].
    pub kind: Kind,
    /// See [`EventRef::received_at_ms`].
    pub received_at_ms: i64,
}

impl AnalyticsEvent {
    /// Borrows the event.
    pub fn as_ref(&self) -> EventRef<'_> {
        EventRef {
            event_id: self.event_id.as_deref(),
            timestamp_ms: self.timestamp_ms,
            user: &self.user,
            kind: self.kind,
            received_at_ms: self.received_at_ms,
        }
    }
}

impl<'a> EventRef<'a> {
    /// Appends the framed record value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        begin(out, schema::ANALYTICS_EVENT);
        match self.event_id {
            None => put_long(out, 0),
            Some(id) => {
                put_long(out, 1);
                put_bytes(out, id.as_bytes());
            }
        }
        put_long(out, self.timestamp_ms);
        put_bytes(out, self.user.as_bytes());
        put_long(out, self.kind as i64);
        put_long(out, self.received_at_ms);
    }

    /// Reads a framed record value without copying.
    pub fn decode(value: &'a [u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::open(value, schema::ANALYTICS_EVENT)?;
        let event_id = match fields.long("event_id")? {
            0 => None,
            1 => Some(fields.string("event_id")?),
            _ => return Err(DecodeError::Range("event_id")),
        };
        let timestamp_ms = fields.long("timestamp")?;
        let user = fields.string("user")?;
        let kind = usize::try_from(fields.long("kind")?).ok().and_then(|i| Kind::ALL.get(i).copied());
        let kind = kind.ok_or(DecodeError::Range("kind"))?;
        let received_at_ms = fields.long("received_at")?;
        fields.finish()?;
        Ok(Self { event_id, timestamp_ms, user, kind, received_at_ms })
    }

    /// Copies the event into owned text.
    pub fn to_owned(self) -> AnalyticsEvent {
        AnalyticsEvent {
            event_id: self.event_id.map(str::to_owned),
            timestamp_ms: self.timestamp_ms,
            user: self.user.to_owned(),
            kind: self.kind,
            received_at_ms: self.received_at_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::tests::{avro_bytes, avro_value};
    use apache_avro::types::Value;
    use proptest::prelude::*;

    prop_compose! {
        fn any_event()(
            event_id in proptest::option::of(".{0,40}"),
            timestamp_ms: i64,
            user in ".{0,80}",
            click: bool,
            received_at_ms: i64,
        ) -> AnalyticsEvent {
            let kind = if click { Kind::Click } else { Kind::Impression };
            AnalyticsEvent { event_id, timestamp_ms, user, kind, received_at_ms }
        }
    }

    fn as_avro(event: &AnalyticsEvent) -> Value {
        let id = match &event.event_id {
            None => Value::Union(0, Box::new(Value::Null)),
            Some(id) => Value::Union(1, Box::new(Value::String(id.clone()))),
        };
        Value::Record(vec![
            ("event_id".into(), id),
            ("timestamp".into(), Value::TimestampMillis(event.timestamp_ms)),
            ("user".into(), Value::String(event.user.clone())),
            ("kind".into(), Value::Enum(event.kind as u32, event.kind.as_str().into())),
            ("received_at".into(), Value::TimestampMillis(event.received_at_ms)),
        ])
    }

    proptest! {
        #[test]
        fn equals_apache_avro_byte_for_byte(event in any_event()) {
            let mut bytes = Vec::new();
            event.as_ref().encode(&mut bytes);
            prop_assert_eq!(&bytes, &avro_bytes(schema::ANALYTICS_EVENT, as_avro(&event)));
            prop_assert_eq!(avro_value(schema::ANALYTICS_EVENT, &bytes), as_avro(&event));
            prop_assert_eq!(EventRef::decode(&bytes).unwrap().to_owned(), event);
        }

        #[test]
        fn decoding_arbitrary_bytes_does_not_panic(bytes: Vec<u8>) {
            let _ = EventRef::decode(&bytes);
            let mut framed = vec![0, 0, 0, 0, 1];
            framed.extend(bytes);
            let _ = EventRef::decode(&framed);
        }

        #[test]
        fn truncated_and_extended_values_are_errors(event in any_event()) {
            let mut bytes = Vec::new();
            event.as_ref().encode(&mut bytes);
            for cut in 0..bytes.len() {
                prop_assert!(EventRef::decode(&bytes[..cut]).is_err());
            }
            bytes.push(0);
            prop_assert_eq!(EventRef::decode(&bytes), Err(DecodeError::Trailing));
        }
    }

    #[test]
    fn invalid_bytes_have_specific_errors() {
        assert_eq!(EventRef::decode(b""), Err(DecodeError::Empty));
        assert_eq!(EventRef::decode(b"{\"user\":1}"), Err(DecodeError::Magic));
        assert_eq!(EventRef::decode(&[0, 0]), Err(DecodeError::Truncated("schema id")));
        assert_eq!(EventRef::decode(&[0, 0, 0, 0, 9]), Err(DecodeError::SchemaId { found: 9, expected: 1 }));
        // union index 2; kind index 2; a varint of 11 bytes; a length past the end
        assert_eq!(EventRef::decode(&[0, 0, 0, 0, 1, 4]), Err(DecodeError::Range("event_id")));
        assert_eq!(EventRef::decode(&[0, 0, 0, 0, 1, 0, 0, 0, 4]), Err(DecodeError::Range("kind")));
        let eleven = [&[0, 0, 0, 0, 1, 0][..], &[0xff; 10], &[1]].concat();
        assert_eq!(EventRef::decode(&eleven), Err(DecodeError::Range("timestamp")));
        assert_eq!(EventRef::decode(&[0, 0, 0, 0, 1, 0, 0, 20, b'x']), Err(DecodeError::Truncated("user")));
    }
}
