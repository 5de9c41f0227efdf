//! The record of `analytics.late`: a copy of a record that was not counted, with the reason.

use crate::codec::{DecodeError, Fields, MAX_FIELD_BYTES, begin, put_bytes, put_long};
use crate::schema;

/// Maximum number of bytes of the key; the rest is cut off.
const MAX_KEY_BYTES: usize = 64 << 10;

/// Why a record of `analytics.events` was not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuarantineReason {
    /// The event's time lies outside the window that the operator accepts.
    OutsideWindow,
    /// The value is not a valid event.
    Undecodable,
    /// The user's id is empty, too long or contains control characters.
    InvalidUser,
    /// The user belongs to another partition.
    WrongPartition,
    /// The record has no value.
    Tombstone,
}

impl QuarantineReason {
    /// Every reason, in the order of the schema's symbols.
    pub const ALL: [Self; 5] =
        [Self::OutsideWindow, Self::Undecodable, Self::InvalidUser, Self::WrongPartition, Self::Tombstone];

    /// The name in the schema and in metrics.
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

/// A record of `analytics.events` that was not counted: its bytes, its position and the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuarantineRecord<'a> {
    /// The reason.
    pub reason: QuarantineReason,
    /// The partition of `analytics.events`.
    pub partition: u32,
    /// The offset in the partition.
    pub offset: u64,
    /// The log time of the partition when the processor read the record, ms since the epoch.
    pub log_time_ms: i64,
    /// The first 64 KiB of the key.
    pub key: &'a [u8],
    /// The first 1 MiB of the value; `None` for a tombstone.
    pub value: Option<&'a [u8]>,
    /// The size of the whole value in bytes.
    pub value_size: u64,
}

impl<'a> QuarantineRecord<'a> {
    /// Appends the framed record value. Truncates key and value.
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
            let record = QuarantineRecord {
                reason: QuarantineReason::ALL[reason],
                partition: partition.cast_unsigned(),
                offset: offset.cast_unsigned(),
                log_time_ms,
                key: &key,
                value: value.as_deref(),
                value_size: value_size.cast_unsigned(),
            };
            let avro = Value::Record(vec![
                ("reason".into(), Value::Enum(u32::try_from(reason).unwrap(), record.reason.as_str().into())),
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
            record.encode(&mut bytes);
            prop_assert_eq!(&bytes, &avro_bytes(schema::QUARANTINE_RECORD, avro));
            prop_assert_eq!(QuarantineRecord::decode(&bytes), Ok(record));
        }
    }

    #[test]
    fn long_keys_and_values_are_truncated_and_their_size_is_recorded() {
        let long = vec![7; 2 << 20];
        let record = QuarantineRecord {
            reason: QuarantineReason::Undecodable,
            partition: 0,
            offset: 0,
            log_time_ms: 0,
            key: &long,
            value: Some(&long),
            value_size: 2 << 20,
        };
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        let read = QuarantineRecord::decode(&bytes).unwrap();
        assert_eq!((read.key.len(), read.value.unwrap().len(), read.value_size), (64 << 10, 1 << 20, 2 << 20));
        assert!(bytes.len() < 1_280 << 10, "a record of the log is at most 1.25 MiB");
    }
}
