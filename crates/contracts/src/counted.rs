//! The record of `analytics.hourly` that ends a step: up to which position of the input the counts before it hold.

use crate::codec::{DecodeError, Fields, begin, put_long};
use crate::schema;

/// What keys begin with.
const PREFIX: &str = "counted/";

/// The position up to which a partition's events are counted. The processor writes it as the last record of a step, so that
/// whoever has it has all counts of the step, also those of a step that changed no count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountedPosition {
    /// The partition of `analytics.events`.
    pub partition: u32,
    /// The first offset of the partition that is not counted.
    pub next_offset: u64,
    /// The latest time at which the log received one of the counted events, in ms since the epoch.
    pub log_time_ms: i64,
}

impl CountedPosition {
    /// The record key of a partition's position: `counted/3`. No hour's key begins like that.
    pub fn key(partition: u32) -> String {
        format!("{PREFIX}{partition}")
    }

    /// Whether a record of `analytics.hourly` has such a key.
    pub fn is_key(key: &[u8]) -> bool {
        key.starts_with(PREFIX.as_bytes())
    }

    /// Appends the framed record value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        begin(out, schema::COUNTED_POSITION);
        put_long(out, i64::from(self.partition));
        put_long(out, self.next_offset.cast_signed());
        put_long(out, self.log_time_ms);
    }

    /// Reads a framed record value.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::open(value, schema::COUNTED_POSITION)?;
        let partition = u32::try_from(fields.long("partition")?).map_err(|_| DecodeError::Range("partition"))?;
        let next_offset = fields.count("next_offset")?;
        let log_time_ms = fields.long("log_time")?;
        fields.finish()?;
        Ok(Self { partition, next_offset, log_time_ms })
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
            partition in 0..i32::MAX.cast_unsigned(),
            next_offset in 0..i64::MAX.cast_unsigned(),
            log_time_ms: i64,
        ) {
            let avro = Value::Record(vec![
                ("partition".into(), Value::Int(partition.cast_signed())),
                ("next_offset".into(), Value::Long(next_offset.cast_signed())),
                ("log_time".into(), Value::TimestampMillis(log_time_ms)),
            ]);
            let counted = CountedPosition { partition, next_offset, log_time_ms };
            let mut bytes = Vec::new();
            counted.encode(&mut bytes);
            prop_assert_eq!(&bytes, &avro_bytes(schema::COUNTED_POSITION, avro));
            prop_assert_eq!(CountedPosition::decode(&bytes), Ok(counted));
        }

        #[test]
        fn decoding_arbitrary_bytes_does_not_panic(bytes: Vec<u8>) {
            let mut framed = vec![0, 0, 0, 0, 14];
            framed.extend(bytes);
            let _ = CountedPosition::decode(&framed);
        }
    }
}
