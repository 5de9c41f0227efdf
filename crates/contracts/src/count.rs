//! The record of `analytics.hourly`: the absolute counts of one hour in one partition.

use crate::codec::{DecodeError, Fields, begin, put_long};
use crate::{Hour, schema};

/// Whether a number of unique users is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exactness {
    /// Every user counts once.
    Exact,
    /// A sketch replaced the set of users; the number is an estimate.
    Approximate,
}

impl Exactness {
    /// The name in the API and the schema.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Approximate => "approximate",
        }
    }
}

/// The absolute counts of one (hour, partition). A record with a larger `next_offset` replaces one with a smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HourlyCount {
    /// The UTC hour.
    pub hour: Hour,
    /// The partition of `analytics.events`.
    pub partition: u32,
    /// The generation of the partition map.
    pub generation: u32,
    /// The counts include every event of the partition below this offset.
    pub next_offset: u64,
    /// Number of clicks.
    pub clicks: u64,
    /// Number of impressions.
    pub impressions: u64,
    /// Number of distinct users.
    pub unique_users: u64,
    /// Whether `unique_users` is exact.
    pub exactness: Exactness,
}

impl HourlyCount {
    /// The record key of an hour's counts in a partition: `2026-11-21T08Z/3`.
    pub fn key(hour: Hour, partition: u32) -> String {
        format!("{hour}/{partition}")
    }

    /// Appends the framed record value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        begin(out, schema::HOURLY_COUNT);
        put_long(out, self.hour.start_ms());
        put_long(out, i64::from(self.partition));
        put_long(out, i64::from(self.generation));
        for count in [self.next_offset, self.clicks, self.impressions, self.unique_users] {
            put_long(out, count.cast_signed());
        }
        put_long(out, self.exactness as i64);
    }

    /// Reads a framed record value.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::open(value, schema::HOURLY_COUNT)?;
        let start_ms = fields.long("hour")?;
        let hour = Hour::of_ms(start_ms);
        if hour.start_ms() != start_ms {
            return Err(DecodeError::Range("hour"));
        }
        let mut small = |field| u32::try_from(fields.long(field)?).map_err(|_| DecodeError::Range(field));
        let (partition, generation) = (small("partition")?, small("generation")?);
        let next_offset = fields.count("next_offset")?;
        let clicks = fields.count("clicks")?;
        let impressions = fields.count("impressions")?;
        let unique_users = fields.count("unique_users")?;
        let exactness = match fields.long("exactness")? {
            0 => Exactness::Exact,
            1 => Exactness::Approximate,
            _ => return Err(DecodeError::Range("exactness")),
        };
        fields.finish()?;
        Ok(Self { hour, partition, generation, next_offset, clicks, impressions, unique_users, exactness })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::tests::{avro_bytes, avro_value};
    use apache_avro::types::Value;
    use proptest::prelude::*;

    prop_compose! {
        fn any_count()(
            hour in 0..Hour::MAX.index(),
            partition in 0..i32::MAX.cast_unsigned(),
            next_offset in 0..i64::MAX.cast_unsigned(),
            clicks in 0..i64::MAX.cast_unsigned(),
            impressions in 0..i64::MAX.cast_unsigned(),
            unique_users in 0..i64::MAX.cast_unsigned(),
            exact: bool,
        ) -> HourlyCount {
            let exactness = if exact { Exactness::Exact } else { Exactness::Approximate };
            let hour = Hour::from_index(hour);
            HourlyCount { hour, partition, generation: 1, next_offset, clicks, impressions, unique_users, exactness }
        }
    }

    fn as_avro(count: &HourlyCount) -> Value {
        let long = |value: u64| Value::Long(value.cast_signed());
        Value::Record(vec![
            ("hour".into(), Value::TimestampMillis(count.hour.start_ms())),
            ("partition".into(), Value::Int(count.partition.cast_signed())),
            ("generation".into(), Value::Int(count.generation.cast_signed())),
            ("next_offset".into(), long(count.next_offset)),
            ("clicks".into(), long(count.clicks)),
            ("impressions".into(), long(count.impressions)),
            ("unique_users".into(), long(count.unique_users)),
            ("exactness".into(), Value::Enum(count.exactness as u32, count.exactness.as_str().into())),
        ])
    }

    proptest! {
        #[test]
        fn equals_apache_avro_byte_for_byte(count in any_count()) {
            let mut bytes = Vec::new();
            count.encode(&mut bytes);
            prop_assert_eq!(&bytes, &avro_bytes(schema::HOURLY_COUNT, as_avro(&count)));
            prop_assert_eq!(avro_value(schema::HOURLY_COUNT, &bytes), as_avro(&count));
            prop_assert_eq!(HourlyCount::decode(&bytes), Ok(count));
        }

        #[test]
        fn decoding_arbitrary_bytes_does_not_panic(bytes: Vec<u8>) {
            let mut framed = vec![0, 0, 0, 0, 2];
            framed.extend(bytes);
            let _ = HourlyCount::decode(&framed);
        }
    }
}
