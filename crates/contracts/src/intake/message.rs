//! A message on its way from a client to the journal.

use crate::codec::{DecodeError, Fields, begin, put_bytes, put_long};
use crate::schema;

/// Who a sequence number belongs to. Two messages of one sender with the same number and the same bytes are one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sender<'a> {
    /// The authenticated principal; empty with authentication off.
    pub principal: &'a str,
    /// The client's own id.
    pub client: &'a str,
    /// The number space, by convention the client's start in ms; `None` if the client named none.
    pub epoch: Option<u64>,
}

/// A record of `intake`: a message as a connection appended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntakeMessage<'a> {
    /// Whose message it is.
    pub sender: Sender<'a>,
    /// Its number, `1..=i64::MAX`.
    pub seq: u64,
    /// Identifies an unbroken series of frames of one connection.
    pub nonce: u64,
    /// The frame's place in the series, from 0.
    pub index: u64,
    /// When intake read it, µs since the epoch by intake's clock.
    pub received_at_us: i64,
    /// CRC-32C of the payload.
    pub crc32c: u32,
    /// The bytes the client sent.
    pub payload: &'a [u8],
}

/// A record of `intake.journal`: a message that stands in the journal exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalRecord<'a> {
    /// Whose message it is.
    pub sender: Sender<'a>,
    /// Its number, `1..=i64::MAX`.
    pub seq: u64,
    /// When intake read it, µs since the epoch by intake's clock.
    pub received_at_us: i64,
    /// CRC-32C of the payload.
    pub crc32c: u32,
    /// The bytes the client sent.
    pub payload: &'a [u8],
}

impl<'a> Sender<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.principal.as_bytes());
        put_bytes(out, self.client.as_bytes());
        match self.epoch {
            None => put_long(out, 0),
            Some(epoch) => {
                put_long(out, 1);
                put_long(out, epoch.cast_signed());
            }
        }
    }

    fn decode(fields: &mut Fields<'a>) -> Result<Self, DecodeError> {
        let (principal, client) = (fields.string("principal")?, fields.string("client")?);
        let epoch = match fields.long("epoch")? {
            0 => None,
            1 => Some(fields.count("epoch")?),
            _ => return Err(DecodeError::Range("epoch")),
        };
        Ok(Self { principal, client, epoch })
    }
}

fn crc32c(fields: &mut Fields<'_>) -> Result<u32, DecodeError> {
    u32::try_from(fields.long("crc32c")?).map_err(|_| DecodeError::Range("crc32c"))
}

impl<'a> IntakeMessage<'a> {
    /// Appends the framed record value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        begin(out, schema::INTAKE_MESSAGE);
        self.sender.encode(out);
        put_long(out, self.seq.cast_signed());
        put_long(out, self.nonce.cast_signed());
        put_long(out, self.index.cast_signed());
        put_long(out, self.received_at_us);
        put_long(out, i64::from(self.crc32c));
        put_bytes(out, self.payload);
    }

    /// Reads a framed record value.
    pub fn decode(value: &'a [u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::open(value, schema::INTAKE_MESSAGE)?;
        let sender = Sender::decode(&mut fields)?;
        let seq = fields.count("seq")?;
        let nonce = fields.long("nonce")?.cast_unsigned();
        let index = fields.count("index")?;
        let received_at_us = fields.long("received_at")?;
        let crc32c = crc32c(&mut fields)?;
        let payload = fields.bytes("payload")?;
        fields.finish()?;
        Ok(Self { sender, seq, nonce, index, received_at_us, crc32c, payload })
    }

    /// The message without its place in the connection.
    pub fn journal_record(&self) -> JournalRecord<'a> {
        let Self { sender, seq, received_at_us, crc32c, payload, .. } = *self;
        JournalRecord { sender, seq, received_at_us, crc32c, payload }
    }
}

impl<'a> JournalRecord<'a> {
    /// Appends the framed record value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        begin(out, schema::JOURNAL_RECORD);
        self.sender.encode(out);
        put_long(out, self.seq.cast_signed());
        put_long(out, self.received_at_us);
        put_long(out, i64::from(self.crc32c));
        put_bytes(out, self.payload);
    }

    /// Reads a framed record value.
    pub fn decode(value: &'a [u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::open(value, schema::JOURNAL_RECORD)?;
        let sender = Sender::decode(&mut fields)?;
        let seq = fields.count("seq")?;
        let received_at_us = fields.long("received_at")?;
        let crc32c = crc32c(&mut fields)?;
        let payload = fields.bytes("payload")?;
        fields.finish()?;
        Ok(Self { sender, seq, received_at_us, crc32c, payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::tests::avro_bytes;
    use apache_avro::types::Value;
    use proptest::prelude::*;

    fn sender_fields(sender: Sender<'_>) -> Vec<(String, Value)> {
        let epoch = match sender.epoch {
            None => Value::Union(0, Box::new(Value::Null)),
            Some(epoch) => Value::Union(1, Box::new(Value::Long(epoch.cast_signed()))),
        };
        vec![
            ("principal".into(), Value::String(sender.principal.into())),
            ("client".into(), Value::String(sender.client.into())),
            ("epoch".into(), epoch),
        ]
    }

    proptest! {
        #[test]
        fn equals_apache_avro_byte_for_byte(
            principal in ".{0,9}",
            client in "[A-Za-z0-9._:-]{1,64}",
            epoch in prop::option::of(0..i64::MAX),
            seq in 1..=i64::MAX,
            nonce: i64,
            index in 0..i64::MAX,
            received_at_us: i64,
            crc32c: u32,
            payload: Vec<u8>,
        ) {
            let sender = Sender { principal: &principal, client: &client, epoch: epoch.map(i64::cast_unsigned) };
            let message = IntakeMessage {
                sender,
                seq: seq.cast_unsigned(),
                nonce: nonce.cast_unsigned(),
                index: index.cast_unsigned(),
                received_at_us,
                crc32c,
                payload: &payload,
            };
            let content = [
                ("received_at".into(), Value::TimestampMicros(received_at_us)),
                ("crc32c".into(), Value::Long(i64::from(crc32c))),
                ("payload".into(), Value::Bytes(payload.clone())),
            ];
            let mut fields = sender_fields(sender);
            fields.push(("seq".into(), Value::Long(seq)));
            let journal = [fields.clone(), content.to_vec()].concat();
            fields.push(("nonce".into(), Value::Long(nonce)));
            fields.push(("index".into(), Value::Long(index)));
            fields.extend(content);

            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            prop_assert_eq!(&bytes, &avro_bytes(schema::INTAKE_MESSAGE, Value::Record(fields)));
            prop_assert_eq!(IntakeMessage::decode(&bytes), Ok(message));

            let record = message.journal_record();
            bytes.clear();
            record.encode(&mut bytes);
            prop_assert_eq!(&bytes, &avro_bytes(schema::JOURNAL_RECORD, Value::Record(journal)));
            prop_assert_eq!(JournalRecord::decode(&bytes), Ok(record));
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>) {
            let framed = |id: u32| [&[0][..], &id.to_be_bytes(), &bytes].concat();
            let _ = IntakeMessage::decode(&framed(schema::INTAKE_MESSAGE));
            let _ = JournalRecord::decode(&framed(schema::JOURNAL_RECORD));
        }
    }
}
