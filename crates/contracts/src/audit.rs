//! Who did what: the record of `audit`.

use crate::codec::{DecodeError, Fields, begin, put_bytes, put_long};
use crate::schema;

/// How an act ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditOutcome {
    /// It is about to be done; another record has its end.
    Begun,
    /// It is done.
    Done,
    /// It was refused, or failed, and is not done.
    Refused,
    /// Nobody waited for its end, or it failed on the way: it may be done.
    Unknown,
}

impl AuditOutcome {
    const ALL: [Self; 4] = [Self::Begun, Self::Done, Self::Refused, Self::Unknown];

    /// The outcome as text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

/// Who did what, when, from where, and how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditRecord<'a> {
    /// When, in ms since the epoch, by the clock of the instance.
    pub time_ms: i64,
    /// Who; empty if nobody is known.
    pub principal: &'a str,
    /// The id of the credential, never a secret; empty without one.
    pub credential: &'a str,
    /// What.
    pub action: &'a str,
    /// To what.
    pub object: &'a str,
    /// How it ended.
    pub outcome: AuditOutcome,
    /// The code of the response to a request that was not done, or may not be; empty otherwise.
    pub code: &'a str,
    /// The address that the request came from; empty if there is none.
    pub source: &'a str,
    /// The `X-Request-Id` of the response; empty if there is none.
    pub request_id: &'a str,
    /// The process that recorded it.
    pub instance: &'a str,
}

impl<'a> AuditRecord<'a> {
    /// Appends the framed record value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        begin(out, schema::AUDIT_RECORD);
        put_long(out, self.time_ms);
        for text in [
            self.principal,
            self.credential,
            self.action,
            self.object,
            self.outcome.as_str(),
            self.code,
            self.source,
            self.request_id,
            self.instance,
        ] {
            put_bytes(out, text.as_bytes());
        }
    }

    /// Reads a framed record value.
    pub fn decode(value: &'a [u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::open(value, schema::AUDIT_RECORD)?;
        let record = Self {
            time_ms: fields.long("time")?,
            principal: fields.string("principal")?,
            credential: fields.string("credential")?,
            action: fields.string("action")?,
            object: fields.string("object")?,
            outcome: {
                let text = fields.string("outcome")?;
                let found = AuditOutcome::ALL.into_iter().find(|outcome| outcome.as_str() == text);
                found.ok_or(DecodeError::Range("outcome"))?
            },
            code: fields.string("code")?,
            source: fields.string("source")?,
            request_id: fields.string("request_id")?,
            instance: fields.string("instance")?,
        };
        fields.finish()?;
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::tests::avro_bytes;
    use apache_avro::types::Value;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_apache_avro_byte_for_byte(time_ms: i64, texts in prop::array::uniform8(".{0,9}"), outcome in 0..4_usize) {
            let [principal, credential, action, object, code, source, request_id, instance] = &texts;
            let outcome = AuditOutcome::ALL[outcome];
            let record = AuditRecord { time_ms, principal, credential, action, object, outcome, code, source, request_id, instance };
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            let text = |name: &str, value: &str| (name.to_owned(), Value::String(value.to_owned()));
            let avro = Value::Record(vec![
                ("time".into(), Value::TimestampMillis(time_ms)),
                text("principal", principal),
                text("credential", credential),
                text("action", action),
                text("object", object),
                text("outcome", outcome.as_str()),
                text("code", code),
                text("source", source),
                text("request_id", request_id),
                text("instance", instance),
            ]);
            prop_assert_eq!(&bytes, &avro_bytes(schema::AUDIT_RECORD, avro));
            prop_assert_eq!(AuditRecord::decode(&bytes), Ok(record));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let mut framed = vec![0, 0, 0, 0, 50];
            framed.extend(bytes);
            let _ = AuditRecord::decode(&framed);
        }
    }
}
