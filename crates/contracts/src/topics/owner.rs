//! The records of `topics.owners` and `dead-letters`.

use super::message::{optional_long, optional_text, put_optional_long, put_optional_text};
use crate::codec::{DecodeError, Fields, begin, put_bytes, put_long};
use crate::schema;

/// The coordinator of a partition, under the partition's number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicOwner {
    /// Its nonce.
    pub nonce: u64,
    /// Where front ends reach it; empty: in its own process only.
    pub url: String,
    /// When it took over, ms since the epoch.
    pub at_ms: i64,
}

impl TopicOwner {
    /// Appends the framed record value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        begin(out, schema::TOPIC_OWNER);
        put_long(out, self.nonce.cast_signed());
        put_bytes(out, self.url.as_bytes());
        put_long(out, self.at_ms);
    }

    /// Reads a framed record value.
    ///
    /// # Errors
    /// Bytes that are no owner.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::open(value, schema::TOPIC_OWNER)?;
        let nonce = fields.long("nonce")?.cast_unsigned();
        let url = fields.string("url")?.to_owned();
        let at_ms = fields.long("at")?;
        fields.finish()?;
        Ok(Self { nonce, url, at_ms })
    }
}

/// A message that a subscription gave up, under `{topic}/{subscription}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadLetter<'a> {
    /// Offset of the command that created the topic.
    pub topic_id: u64,
    /// The message's offset in `messages`.
    pub offset: u64,
    /// When it was given up, ms since the epoch.
    pub dead_lettered_ms: i64,
    /// Why: `max-age`, `max-attempts`, `permanent-status`, `expired`.
    pub reason: &'a str,
    /// Failed attempts.
    pub attempts: u32,
    /// When it failed first, ms since the epoch.
    pub first_attempt_ms: Option<i64>,
    /// When it failed last, ms since the epoch.
    pub last_attempt_ms: Option<i64>,
    /// The status of the last response, of a push subscription.
    pub last_status: Option<u16>,
    /// Why the last attempt failed, of a push subscription.
    pub last_error: Option<&'a str>,
    /// The value of the message's record.
    pub message: &'a [u8],
}

impl<'a> DeadLetter<'a> {
    /// Appends the framed record value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        begin(out, schema::DEAD_LETTER);
        put_long(out, self.topic_id.cast_signed());
        put_long(out, self.offset.cast_signed());
        put_long(out, self.dead_lettered_ms);
        put_bytes(out, self.reason.as_bytes());
        put_long(out, self.attempts.into());
        put_optional_long(out, self.first_attempt_ms);
        put_optional_long(out, self.last_attempt_ms);
        put_optional_long(out, self.last_status.map(i64::from));
        put_optional_text(out, self.last_error);
        put_bytes(out, self.message);
    }

    /// Reads a framed record value.
    ///
    /// # Errors
    /// Bytes that are no dead letter.
    pub fn decode(value: &'a [u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::open(value, schema::DEAD_LETTER)?;
        let topic_id = fields.count("topic_id")?;
        let offset = fields.count("offset")?;
        let dead_lettered_ms = fields.long("dead_lettered_at")?;
        let reason = fields.string("reason")?;
        let attempts = u32::try_from(fields.long("attempts")?).map_err(|_| DecodeError::Range("attempts"))?;
        let first_attempt_ms = optional_long(&mut fields, "first_attempt_at")?;
        let last_attempt_ms = optional_long(&mut fields, "last_attempt_at")?;
        let last_status = optional_long(&mut fields, "last_status")?;
        let last_status = last_status.map(u16::try_from).transpose().map_err(|_| DecodeError::Range("last_status"))?;
        let last_error = optional_text(&mut fields, "last_error")?;
        let message = fields.bytes("message")?;
        fields.finish()?;
        Ok(Self {
            topic_id,
            offset,
            dead_lettered_ms,
            reason,
            attempts,
            first_attempt_ms,
            last_attempt_ms,
            last_status,
            last_error,
            message,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive() {
        let owner = TopicOwner { nonce: u64::MAX, url: "http://127.0.0.1:9091".into(), at_ms: 5 };
        let mut bytes = Vec::new();
        owner.encode(&mut bytes);
        assert_eq!(TopicOwner::decode(&bytes), Ok(owner));
        let letter = DeadLetter {
            topic_id: 3,
            offset: 9,
            dead_lettered_ms: 7,
            reason: "max-attempts",
            attempts: 5,
            first_attempt_ms: Some(1),
            last_attempt_ms: None,
            last_status: Some(503),
            last_error: Some("http-status"),
            message: b"x",
        };
        let mut bytes = Vec::new();
        letter.encode(&mut bytes);
        assert_eq!(DeadLetter::decode(&bytes), Ok(letter));
    }
}
