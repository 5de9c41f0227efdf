//! Messages, as they stand in the topic `messages`, and dead letters.

use crate::codec::{DecodeError, Fields, begin, put_bytes, put_long};
use crate::schema;

/// One message of an API topic, borrowed from a request or a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<'a> {
    /// Offset of the command that created the topic, in the same partition.
    pub topic_id: u64,
    /// When it was published, ms since the epoch; of a delayed message, when it was due.
    pub published_ms: i64,
    /// The message's id, the same for every delivery. Without a full stop (Standard Webhooks).
    pub id: &'a str,
    /// Whether this record waits, or ends a wait.
    pub delay: Delay,
    /// Messages with one key keep their order, for subscriptions that request it.
    pub key: Option<&'a str>,
    /// The publisher's idempotency key.
    pub idempotency_key: Option<&'a str>,
    /// The coordinator that appended a message with an idempotency key.
    pub nonce: Option<u64>,
    /// The media type of the body.
    pub content_type: &'a str,
    /// Names and values, each name once.
    pub attributes: Vec<(&'a str, &'a str)>,
    /// The body as it was published.
    pub body: &'a [u8],
}

/// Delivery later than publishing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Delay {
    /// An ordinary message.
    #[default]
    None,
    /// The record waits until this time, ms since the epoch; subscriptions pass over it.
    Until(i64),
    /// The record ends the wait of the record at this offset.
    From(u64),
}

/// The topic's record does not hold a message.
pub type MessageError = DecodeError;

impl<'a> Message<'a> {
    /// Whether it is passed over: it is handed out once it is due, as another record.
    pub const fn waits(&self) -> bool {
        matches!(self.delay, Delay::Until(_))
    }

    /// Whether a coordinator that was replaced appended it behind the opening of the one in force, if that is known. It never
    /// confirmed it, so the publisher may have sent it again.
    pub fn is_late(&self, in_force: Option<u64>) -> bool {
        self.nonce.zip(in_force).is_some_and(|(nonce, in_force)| nonce != in_force)
    }

    /// Appends the framed record value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        begin(out, schema::MESSAGE);
        put_long(out, self.topic_id.cast_signed());
        put_long(out, self.published_ms);
        put_bytes(out, self.id.as_bytes());
        let (until, from) = match self.delay {
            Delay::None => (None, None),
            Delay::Until(at) => (Some(at), None),
            Delay::From(offset) => (None, Some(offset.cast_signed())),
        };
        put_optional_long(out, until);
        put_optional_long(out, from);
        put_optional_text(out, self.key);
        put_optional_text(out, self.idempotency_key);
        put_optional_long(out, self.nonce.map(u64::cast_signed));
        put_bytes(out, self.content_type.as_bytes());
        if !self.attributes.is_empty() {
            put_long(out, i64::try_from(self.attributes.len()).unwrap_or(i64::MAX));
            for (name, value) in &self.attributes {
                put_bytes(out, name.as_bytes());
                put_bytes(out, value.as_bytes());
            }
        }
        put_long(out, 0);
        put_bytes(out, self.body);
    }

    /// Reads a framed record value; only the list of attributes is allocated.
    ///
    /// # Errors
    /// Bytes that are no message.
    pub fn decode(value: &'a [u8]) -> Result<Self, MessageError> {
        let mut fields = Fields::open(value, schema::MESSAGE)?;
        let topic_id = fields.count("topic_id")?;
        let published_ms = fields.long("published_at")?;
        let id = fields.string("id")?;
        let delay = match (optional_long(&mut fields, "deliver_at")?, optional_long(&mut fields, "delayed_from")?) {
            (None, None) => Delay::None,
            (Some(at), None) => Delay::Until(at),
            (None, Some(offset)) => Delay::From(u64::try_from(offset).map_err(|_| DecodeError::Range("delayed_from"))?),
            (Some(_), Some(_)) => return Err(DecodeError::Range("delayed_from")),
        };
        let key = optional_text(&mut fields, "key")?;
        let idempotency_key = optional_text(&mut fields, "idempotency_key")?;
        let nonce = optional_long(&mut fields, "nonce")?.map(i64::cast_unsigned);
        let content_type = fields.string("content_type")?;
        let mut attributes = Vec::new();
        loop {
            match fields.long("attributes")? {
                0 => break,
                // Each attribute takes two bytes at least, so a count beyond what is left ends as `Truncated`.
                count @ 1.. => {
                    for _ in 0..count {
                        attributes.push((fields.string("attributes")?, fields.string("attributes")?));
                    }
                }
                _ => return Err(DecodeError::Range("attributes")),
            }
        }
        let body = fields.bytes("body")?;
        fields.finish()?;
        Ok(Self { topic_id, published_ms, id, delay, key, idempotency_key, nonce, content_type, attributes, body })
    }
}

pub(super) fn put_optional_long(out: &mut Vec<u8>, value: Option<i64>) {
    match value {
        None => put_long(out, 0),
        Some(value) => {
            put_long(out, 1);
            put_long(out, value);
        }
    }
}

pub(super) fn put_optional_text(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        None => put_long(out, 0),
        Some(text) => {
            put_long(out, 1);
            put_bytes(out, text.as_bytes());
        }
    }
}

pub(super) fn optional_long(fields: &mut Fields<'_>, name: &'static str) -> Result<Option<i64>, DecodeError> {
    match fields.long(name)? {
        0 => Ok(None),
        1 => fields.long(name).map(Some),
        _ => Err(DecodeError::Range(name)),
    }
}

pub(super) fn optional_text<'a>(fields: &mut Fields<'a>, name: &'static str) -> Result<Option<&'a str>, DecodeError> {
    match fields.long(name)? {
        0 => Ok(None),
        1 => fields.string(name).map(Some),
        _ => Err(DecodeError::Range(name)),
    }
}

#[cfg(test)]
mod tests {
    use apache_avro::types::Value;
    use proptest::prelude::*;

    use super::*;
    use crate::schema::tests::{avro_bytes, avro_value};

    fn any_delay() -> impl Strategy<Value = Delay> {
        prop_oneof![Just(Delay::None), any::<i64>().prop_map(Delay::Until), (0..i64::MAX as u64).prop_map(Delay::From)]
    }

    fn optional(value: Option<Value>) -> Value {
        value.map_or_else(|| Value::Union(0, Box::new(Value::Null)), |value| Value::Union(1, Box::new(value)))
    }

    fn as_avro(message: &Message<'_>) -> Value {
        let (until, from) = match message.delay {
            Delay::None => (None, None),
            Delay::Until(at) => (Some(Value::TimestampMillis(at)), None),
            Delay::From(offset) => (None, Some(Value::Long(offset.cast_signed()))),
        };
        let text = |text: Option<&str>| optional(text.map(|text| Value::String(text.into())));
        let attribute = |(name, value): &(&str, &str)| {
            Value::Record(vec![
                ("name".into(), Value::String((*name).into())),
                ("value".into(), Value::String((*value).into())),
            ])
        };
        Value::Record(vec![
            ("topic_id".into(), Value::Long(message.topic_id.cast_signed())),
            ("published_at".into(), Value::TimestampMillis(message.published_ms)),
            ("id".into(), Value::String(message.id.into())),
            ("deliver_at".into(), optional(until)),
            ("delayed_from".into(), optional(from)),
            ("key".into(), text(message.key)),
            ("idempotency_key".into(), text(message.idempotency_key)),
            ("nonce".into(), optional(message.nonce.map(|nonce| Value::Long(nonce.cast_signed())))),
            ("content_type".into(), Value::String(message.content_type.into())),
            ("attributes".into(), Value::Array(message.attributes.iter().map(attribute).collect())),
            ("body".into(), Value::Bytes(message.body.into())),
        ])
    }

    proptest! {
        #[test]
        fn equals_apache_avro_byte_for_byte(
            (topic_id, published_ms, nonce) in (0..i64::MAX as u64, any::<i64>(), any::<Option<u64>>()),
            id in "[a-z0-9-]{1,40}",
            delay in any_delay(),
            (key, idempotency_key) in any::<(Option<String>, Option<String>)>(),
            content_type in "[a-z/]{1,20}",
            attributes in proptest::collection::vec(("[a-z]{1,8}", ".{0,8}"), 0..4),
            body in any::<Vec<u8>>(),
        ) {
            let message = Message {
                topic_id, published_ms, id: &id, delay, key: key.as_deref(), idempotency_key: idempotency_key.as_deref(),
                nonce, content_type: &content_type,
                attributes: attributes.iter().map(|(name, value)| (&**name, &**value)).collect(), body: &body,
            };
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            prop_assert_eq!(&bytes, &avro_bytes(schema::MESSAGE, as_avro(&message)));
            prop_assert_eq!(avro_value(schema::MESSAGE, &bytes), as_avro(&message));
            prop_assert_eq!(&Message::decode(&bytes).unwrap(), &message);
            for cut in 0..bytes.len() {
                prop_assert!(Message::decode(&bytes[..cut]).is_err());
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let mut framed = vec![0];
            framed.extend(schema::MESSAGE.to_be_bytes());
            framed.extend(bytes);
            let _ = Message::decode(&framed);
        }
    }
}
