//! The input position that a partition's state contains, and what identifies the records before it.

use crate::codec::{DecodeError, Fields, begin, put_long};
use crate::schema;

/// The input position that the state of a partition reflects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position {
    /// The first input offset that the state does not include.
    pub next_offset: u64,
    /// A hash of the record before `next_offset`; `None` if there is none, and in old records.
    pub last_record: Option<u64>,
    /// The producers whose records were read lately, at most [`Position::MAX_PRODUCERS`].
    pub producers: Vec<ProducerRecords>,
}

/// The records of one producer in a partition, by their numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerRecords {
    /// The id of the producer's life.
    pub producer: u64,
    /// The timestamp of its newest record, ms since the epoch.
    pub seen_at_ms: i64,
    /// The number after the highest of its records.
    pub next: u64,
    /// The numbers below `next` that were not read, ascending, at most [`Position::MAX_MISSING`] ranges.
    pub missing: Vec<NumberRange>,
}

/// Consecutive numbers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NumberRange {
    /// The first number.
    pub first: u64,
    /// The last number, not below the first.
    pub last: u64,
}

impl Position {
    /// Maximum number of producers of one partition.
    pub const MAX_PRODUCERS: usize = 128;
    /// Maximum number of missing ranges of one producer.
    pub const MAX_MISSING: usize = 32;

    /// Appends the framed record value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        begin(out, schema::INPUT_POSITION);
        put_long(out, self.next_offset.cast_signed());
        match self.last_record {
            None => put_long(out, 0),
            Some(hash) => {
                put_long(out, 1);
                put_long(out, hash.cast_signed());
            }
        }
        put_array(out, &self.producers, |out, records| {
            put_long(out, records.producer.cast_signed());
            put_long(out, records.seen_at_ms);
            put_long(out, records.next.cast_signed());
            put_array(out, &records.missing, |out, range| {
                put_long(out, range.first.cast_signed());
                put_long(out, range.last.cast_signed());
            });
        });
    }

    /// Reads a framed record value, or one of its predecessor, which has the offset only.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = match Fields::open(value, schema::INPUT_POSITION) {
            Err(DecodeError::SchemaId { found: schema::POSITION, .. }) => {
                let mut fields = Fields::open(value, schema::POSITION)?;
                let position = Self { next_offset: fields.count("next_offset")?, ..Self::default() };
                fields.finish()?;
                return Ok(position);
            }
            opened => opened?,
        };
        let next_offset = fields.count("next_offset")?;
        let last_record = match fields.long("last_record")? {
            0 => None,
            1 => Some(fields.long("last_record")?.cast_unsigned()),
            _ => return Err(DecodeError::Range("last_record")),
        };
        let producers = array(&mut fields, "producers", Self::MAX_PRODUCERS, |fields| {
            Ok(ProducerRecords {
                producer: fields.long("producer")?.cast_unsigned(),
                seen_at_ms: fields.long("seen_at")?,
                next: fields.count("next")?,
                missing: array(fields, "missing", Self::MAX_MISSING, |fields| {
                    let range = NumberRange { first: fields.count("first")?, last: fields.count("last")? };
                    if range.first > range.last { Err(DecodeError::Range("last")) } else { Ok(range) }
                })?,
            })
        })?;
        fields.finish()?;
        Ok(Self { next_offset, last_record, producers })
    }
}

/// Appends an Avro array as one block.
fn put_array<T>(out: &mut Vec<u8>, items: &[T], put: impl Fn(&mut Vec<u8>, &T)) {
    if !items.is_empty() {
        put_long(out, i64::try_from(items.len()).unwrap_or(i64::MAX));
        for item in items {
            put(out, item);
        }
    }
    put_long(out, 0);
}

/// Reads an Avro array of at most `max` items, in any number of blocks.
fn array<'a, T>(
    fields: &mut Fields<'a>,
    name: &'static str,
    max: usize,
    read: impl Fn(&mut Fields<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let mut items = Vec::new();
    loop {
        let block = fields.count(name)?;
        if block == 0 {
            return Ok(items);
        }
        if block > (max - items.len()) as u64 {
            return Err(DecodeError::Range(name));
        }
        for _ in 0..block {
            items.push(read(fields)?);
        }
    }
}

#[cfg(test)]
mod tests {
    use apache_avro::types::Value;
    use proptest::prelude::*;

    use super::*;
    use crate::schema::tests::avro_bytes;

    fn record(fields: Vec<(&str, Value)>) -> Value {
        Value::Record(fields.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }

    fn producers() -> impl Strategy<Value = Vec<ProducerRecords>> {
        let number = 0..i64::MAX.cast_unsigned();
        let range = (number.clone(), number.clone())
            .prop_map(|(one, other)| NumberRange { first: one.min(other), last: one.max(other) });
        let missing = prop::collection::vec(range, 0..4);
        let producer = (any::<u64>(), any::<i64>(), number, missing);
        let producer = producer.prop_map(|(producer, seen_at_ms, next, missing)| ProducerRecords {
            producer,
            seen_at_ms,
            next,
            missing,
        });
        prop::collection::vec(producer, 0..4)
    }

    proptest! {
        #[test]
        fn a_position_equals_apache_avro_byte_for_byte(
            next in 0..i64::MAX,
            last_record: Option<u64>,
            producers in producers(),
        ) {
            let long = |value: u64| Value::Long(value.cast_signed());
            let range = |one: &NumberRange| record(vec![("first", long(one.first)), ("last", long(one.last))]);
            let producer = |one: &ProducerRecords| record(vec![
                ("producer", long(one.producer)),
                ("seen_at", Value::TimestampMillis(one.seen_at_ms)),
                ("next", long(one.next)),
                ("missing", Value::Array(one.missing.iter().map(range).collect())),
            ]);
            let last = last_record.map_or(Value::Union(0, Box::new(Value::Null)), |hash| Value::Union(1, Box::new(long(hash))));
            let avro = record(vec![
                ("next_offset", Value::Long(next)),
                ("last_record", last),
                ("producers", Value::Array(producers.iter().map(producer).collect())),
            ]);
            let position = Position { next_offset: next.cast_unsigned(), last_record, producers };
            let mut bytes = Vec::new();
            position.encode(&mut bytes);
            prop_assert_eq!(&bytes, &avro_bytes(schema::INPUT_POSITION, avro));
            prop_assert_eq!(Position::decode(&bytes), Ok(position));

            let old = avro_bytes(schema::POSITION, record(vec![("next_offset", Value::Long(next))]));
            let only = Position { next_offset: next.cast_unsigned(), ..Position::default() };
            prop_assert_eq!(Position::decode(&old), Ok(only));
        }

        #[test]
        fn decoding_arbitrary_bytes_does_not_panic(bytes: Vec<u8>) {
            let mut framed = vec![0, 0, 0, 0, 11];
            framed.extend(bytes);
            let _ = Position::decode(&framed);
        }
    }
}
