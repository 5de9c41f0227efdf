//! A record that was not counted, as it stands in `analytics.late`.

use crate::codec::{DecodeError, Fields, MAX_FIELD_BYTES, begin, put_bytes, put_long};
use crate::schema;

/// The most bytes of a key that are kept.
const MAX_KEY_BYTES: usize = 64 << 10;

/// Why a record of `analytics.events` was not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuarantineReason {
    /// The event's time lies outside the window the operator accepts.
    OutsideWindow,
    /// The value is no event.
    Undecodable,
    /// The user's id is empty, too long or has control characters.
    InvalidUser,
    /// Another partition counts the user.
    WrongPartition,
    /// There is no value.
    Tombstone,
}

impl QuarantineReason {
    /// Every reason, in the order of the schema's symbols.
    pub const ALL: [Self; 5] =
        [Self::OutsideWindow, Self::Undecodable, Self::InvalidUser, Self::WrongPartition, Self::Tombstone];

    /// The word of the schema and of metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OutsideWindow => "outside_window",
            Self::Undecodable => "undecodable",
            Self::InvalidUser => "invalid_user",
            Self::WrongPartition => "wrong_partition",
            Self::Tombstone => "tombstone",
        }
    }
}

/// A record of `analytics.events` that was not counted: its bytes, where it stands and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuarantineRecord<'a> {
    /// Why it was not counted.
    pub reason: QuarantineReason,
    /// The partition of `analytics.events`.
    pub partition: u32,
    /// The offset there.
    pub offset: u64,
    /// The log time when it was met, ms since the epoch.
    pub log_time_ms: i64,
    /// Its key, at most 64 KiB of it.
    pub key: &'a [u8],
    /// Its value, at most 1 MiB of it; `None` for a tombstone.
    pub value: Option<&'a [u8]>,
    /// The size of the whole value in bytes.
    pub value_size: u64,
}

impl<'a> QuarantineRecord<'a> {
    /// Appends the framed record value; key and value are cut to what is kept.
    pub fn encode(&self, out: &mut Vec<u8>) {
        begin(out, schema::QUARANTINE_RECORD);
        put_long(out, self.reason as i64);
        put_long(out, i64::from(self.partition));
        put_long(out, self.offset.cast_signed());
        put_long(out, self.log_time_ms);
        put_bytes(out, &self.key[..self.key.len().min(MAX_KEY_BYTES)]);
        match self.value {
            None => put_long(out, 0),
            Some(value) => {
                put_long(out, 1);
                put_bytes(out, &value[..value.len().min(MAX_FIELD_BYTES)]);
            }
        }
        put_long(out, self.value_size.cast_signed());
    }

    /// Reads a framed record value.
    pub fn decode(value: &'a [u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::open(value, schema::QUARANTINE_RECORD)?;
        let reason = usize::try_from(fields.long("reason")?).ok().and_then(|i| QuarantineReason::ALL.get(i).copied());
        let reason = reason.ok_or(DecodeError::Range("reason"))?;
        let partition = u32::try_from(fields.long("partition")?).map_err(|_| DecodeError::Range("partition"))?;
        let offset = fields.count("offset")?;
        let log_time_ms = fields.long("log_time")?;
        let key = fields.bytes("key")?;
        let value = match fields.long("value")? {
            0 => None,
            1 => Some(fields.bytes("value")?),
            _ => return Err(DecodeError::Range("value")),
        };
        let value_size = fields.count("value_size")?;
        fields.finish()?;
        Ok(Self { reason, partition, offset, log_time_ms, key, value, value_size })
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
        fn equals_apache_avro_byte_for_byte(
            reason in 0..5_usize,
            partition in 0..i32::MAX,
            offset in 0..i64::MAX,
            log_time_ms: i64,
            key: Vec<u8>,
            value: Option<Vec<u8>>,
            value_size in 0..i64::MAX,
        ) {
            let parked = QuarantineRecord {
                reason: QuarantineReason::ALL[reason],
                partition: partition.cast_unsigned(),
                offset: offset.cast_unsigned(),
                log_time_ms,
                key: &key,
                value: value.as_deref(),
                value_size: value_size.cast_unsigned(),
            };
            let avro = Value::Record(vec![
                ("reason".into(), Value::Enum(u32::try_from(reason).unwrap(), parked.reason.as_str().into())),
                ("partition".into(), Value::Int(partition)),
                ("offset".into(), Value::Long(offset)),
                ("log_time".into(), Value::TimestampMillis(log_time_ms)),
                ("key".into(), Value::Bytes(key.clone())),
                ("value".into(), match &value {
                    None => Value::Union(0, Box::new(Value::Null)),
                    Some(bytes) => Value::Union(1, Box::new(Value::Bytes(bytes.clone()))),
                }),
                ("value_size".into(), Value::Long(value_size)),
            ]);
            let mut bytes = Vec::new();
            parked.encode(&mut bytes);
            prop_assert_eq!(&bytes, &avro_bytes(schema::QUARANTINE_RECORD, avro));
            prop_assert_eq!(QuarantineRecord::decode(&bytes), Ok(parked));
        }
    }

    #[test]
    fn what_is_too_long_is_cut_and_its_size_told() {
        let long = vec![7; 2 << 20];
        let parked = QuarantineRecord {
            reason: QuarantineReason::Undecodable,
            partition: 0,
            offset: 0,
            log_time_ms: 0,
            key: &long,
            value: Some(&long),
            value_size: 2 << 20,
        };
        let mut bytes = Vec::new();
        parked.encode(&mut bytes);
        let read = QuarantineRecord::decode(&bytes).unwrap();
        assert_eq!((read.key.len(), read.value.unwrap().len(), read.value_size), (64 << 10, 1 << 20, 2 << 20));
        assert!(bytes.len() < 1_280 << 10, "a record of the log is at most 1.25 MiB");
    }
}
