//! State changes of the intake stage. Their keys are [`IntakeKey`](super::IntakeKey).

use crate::codec::{DecodeError, Fields, begin, put_long};
use crate::schema;

/// Consecutive sequence numbers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeqRange {
    /// The first number.
    pub first: u64,
    /// The last number, not below the first.
    pub last: u64,
}

/// The numbers that a client has used within one epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientRanges {
    /// The log time of the client's last record, ms since the epoch.
    pub log_time_ms: i64,
    /// The ranges; the one that grew last stands last.
    pub ranges: Vec<SeqRange>,
}

/// How far an unbroken series of frames has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Series {
    /// The only index that continues the series.
    pub next_index: u64,
    /// The log time of its last record, ms since the epoch.
    pub log_time_ms: i64,
    /// The offsets of the first and the newest record that were dropped because an index before them is missing.
    pub dropped: Option<(u64, u64)>,
}

/// How far the time of a partition of `intake` has come, and from where on its last arrivals are read again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IntakeProgress {
    /// The latest timestamp the log gave to a record, ms since the epoch.
    pub log_time_ms: i64,
    /// The first offset of the last arrivals.
    pub replay_from: u64,
}

impl ClientRanges {
    /// Most ranges that are kept of a client within one epoch.
    pub const MAX: usize = 64;

    /// Appends the framed record value.
    pub fn encode(log_time_ms: i64, ranges: &[SeqRange], out: &mut Vec<u8>) {
        begin(out, schema::INTAKE_RANGES);
        put_long(out, log_time_ms);
        if !ranges.is_empty() {
            put_long(out, i64::try_from(ranges.len()).unwrap_or(i64::MAX));
            for range in ranges {
                put_long(out, range.first.cast_signed());
                put_long(out, range.last.cast_signed());
            }
        }
        put_long(out, 0);
    }

    /// Reads a framed record value.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::open(value, schema::INTAKE_RANGES)?;
        let log_time_ms = fields.long("log_time")?;
        let mut ranges = Vec::new();
        loop {
            let block = fields.count("ranges")?;
            if block == 0 {
                break;
            }
            if block > (Self::MAX - ranges.len()) as u64 {
                return Err(DecodeError::Range("ranges"));
            }
            for _ in 0..block {
                let (first, last) = (fields.count("first")?, fields.count("last")?);
                if first > last {
                    return Err(DecodeError::Range("last"));
                }
                ranges.push(SeqRange { first, last });
            }
        }
        fields.finish()?;
        Ok(Self { log_time_ms, ranges })
    }
}

impl Series {
    /// Appends the framed record value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        begin(out, schema::INTAKE_SERIES);
        put_long(out, self.next_index.cast_signed());
        put_long(out, self.log_time_ms);
        match self.dropped {
            None => put_long(out, 0),
            Some((first, last)) => {
                put_long(out, 1);
                put_long(out, first.cast_signed());
                put_long(out, last.cast_signed());
            }
        }
    }

    /// Reads a framed record value.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::open(value, schema::INTAKE_SERIES)?;
        let (next_index, log_time_ms) = (fields.count("next_index")?, fields.long("log_time")?);
        let dropped = match fields.long("dropped")? {
            0 => None,
            1 => Some((fields.count("first")?, fields.count("last")?)),
            _ => return Err(DecodeError::Range("dropped")),
        };
        fields.finish()?;
        Ok(Self { next_index, log_time_ms, dropped })
    }
}

impl IntakeProgress {
    /// Appends the framed record value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        begin(out, schema::INTAKE_PROGRESS);
        put_long(out, self.log_time_ms);
        put_long(out, self.replay_from.cast_signed());
    }

    /// Reads a framed record value.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::open(value, schema::INTAKE_PROGRESS)?;
        let (log_time_ms, replay_from) = (fields.long("log_time")?, fields.count("replay_from")?);
        fields.finish()?;
        Ok(Self { log_time_ms, replay_from })
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
            log_time_ms: i64,
            pairs in prop::collection::vec((0..i64::MAX, 0..i64::MAX), 0..=ClientRanges::MAX),
            next_index in 0..i64::MAX,
            dropped in prop::option::of((0..i64::MAX, 0..i64::MAX)),
            replay_from in 0..i64::MAX,
        ) {
            let time = ("log_time".to_owned(), Value::TimestampMillis(log_time_ms));
            let mut bytes = Vec::new();

            let pairs: Vec<_> = pairs.into_iter().map(|(a, b)| (a.min(b), a.max(b))).collect();
            let ranges: Vec<_> = pairs
                .iter()
                .map(|&(first, last)| SeqRange { first: first.cast_unsigned(), last: last.cast_unsigned() })
                .collect();
            let items = pairs.iter().map(|&(first, last)| {
                Value::Record(vec![("first".into(), Value::Long(first)), ("last".into(), Value::Long(last))])
            });
            let avro = Value::Record(vec![time.clone(), ("ranges".into(), Value::Array(items.collect()))]);
            ClientRanges::encode(log_time_ms, &ranges, &mut bytes);
            prop_assert_eq!(&bytes, &avro_bytes(schema::INTAKE_RANGES, avro));
            prop_assert_eq!(ClientRanges::decode(&bytes), Ok(ClientRanges { log_time_ms, ranges }));

            let series =
                Series { next_index: next_index.cast_unsigned(), log_time_ms, dropped: dropped.map(|(first, last)| (first.cast_unsigned(), last.cast_unsigned())) };
            let avro = Value::Record(vec![
                ("next_index".into(), Value::Long(next_index)),
                time.clone(),
                ("dropped".into(), match dropped {
                    None => Value::Union(0, Box::new(Value::Null)),
                    Some((first, last)) => Value::Union(1, Box::new(Value::Record(vec![
                        ("first".into(), Value::Long(first)),
                        ("last".into(), Value::Long(last)),
                    ]))),
                }),
            ]);
            bytes.clear();
            series.encode(&mut bytes);
            prop_assert_eq!(&bytes, &avro_bytes(schema::INTAKE_SERIES, avro));
            prop_assert_eq!(Series::decode(&bytes), Ok(series));

            let progress = IntakeProgress { log_time_ms, replay_from: replay_from.cast_unsigned() };
            let avro = Value::Record(vec![time, ("replay_from".into(), Value::Long(replay_from))]);
            bytes.clear();
            progress.encode(&mut bytes);
            prop_assert_eq!(&bytes, &avro_bytes(schema::INTAKE_PROGRESS, avro));
            prop_assert_eq!(IntakeProgress::decode(&bytes), Ok(progress));
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>) {
            let framed = |id: u32| [&[0][..], &id.to_be_bytes(), &bytes].concat();
            let _ = ClientRanges::decode(&framed(schema::INTAKE_RANGES));
            let _ = Series::decode(&framed(schema::INTAKE_SERIES));
            let _ = IntakeProgress::decode(&framed(schema::INTAKE_PROGRESS));
        }
    }

    #[test]
    fn a_block_larger_than_the_bound_is_refused_before_it_is_read() {
        let mut bytes = Vec::new();
        begin(&mut bytes, schema::INTAKE_RANGES);
        put_long(&mut bytes, 0);
        put_long(&mut bytes, i64::MAX);
        assert_eq!(ClientRanges::decode(&bytes), Err(DecodeError::Range("ranges")));
    }
}
