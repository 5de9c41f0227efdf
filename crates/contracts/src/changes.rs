//! The records of `analytics.state`: changes of the processor's state. Module `state` has their keys.

use crate::codec::{DecodeError, Fields, begin, put_bytes, put_long};
use crate::{UserHash, schema};

/// Users first seen in an hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserDelta;

impl UserDelta {
    /// The maximum number of users per record, so that a value stays below 256 KiB.
    pub const MAX_USERS: usize = (256 * 1024 - 16) / 8;

    /// Appends the framed record value.
    pub fn encode(users: &[UserHash], out: &mut Vec<u8>) {
        begin(out, schema::USER_DELTA);
        put_long(out, i64::try_from(users.len() * 8).unwrap_or(i64::MAX));
        out.reserve(users.len() * 8);
        for user in users {
            out.extend_from_slice(&user.get().to_le_bytes());
        }
    }

    /// Reads a framed record value.
    pub fn decode(value: &[u8]) -> Result<impl Iterator<Item = UserHash>, DecodeError> {
        let mut fields = Fields::open(value, schema::USER_DELTA)?;
        let (users, rest) = fields.bytes("users")?.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(DecodeError::Range("users"));
        }
        fields.finish()?;
        Ok(users.iter().map(|bytes| UserHash::from_raw(u64::from_le_bytes(*bytes))))
    }
}

/// A sketch of an hour's users: a `HyperLogLog` of [`UserSketch::REGISTERS`] registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserSketch;

impl UserSketch {
    /// Number of registers.
    pub const REGISTERS: usize = 1 << 14;

    /// Appends the shorter encoding of the registers: dense (one byte each) or sparse (number and value of those above 0).
    pub fn pack(registers: &[u8; Self::REGISTERS], out: &mut Vec<u8>) {
        let set = registers.iter().filter(|&&value| value > 0).count();
        if set * 3 >= Self::REGISTERS {
            return out.extend_from_slice(registers);
        }
        for (number, &value) in (0_u16..).zip(registers).filter(|&(_, &value)| value > 0) {
            let [low, high] = number.to_le_bytes();
            out.extend_from_slice(&[low, high, value]);
        }
    }

    /// Decodes either encoding into (number, value). The dense one yields registers at 0 as well.
    pub fn unpack(packed: &[u8]) -> Result<impl Iterator<Item = (u16, u8)>, DecodeError> {
        let (dense, (pairs, rest)) = if packed.len() == Self::REGISTERS {
            (packed, Default::default())
        } else {
            (&[][..], packed.as_chunks::<3>())
        };
        let number = |pair: &[u8; 3]| u16::from_le_bytes([pair[0], pair[1]]);
        if !rest.is_empty() || pairs.iter().any(|pair| usize::from(number(pair)) >= Self::REGISTERS) {
            return Err(DecodeError::Range("registers"));
        }
        Ok((0_u16..).zip(dense.iter().copied()).chain(pairs.iter().map(move |pair| (number(pair), pair[2]))))
    }

    /// Appends the framed record value.
    pub fn encode(registers: &[u8; Self::REGISTERS], out: &mut Vec<u8>) {
        begin(out, schema::USER_SKETCH);
        let mut packed = Vec::with_capacity(Self::REGISTERS);
        Self::pack(registers, &mut packed);
        put_bytes(out, &packed);
    }

    /// Reads a framed record value into registers as (number, value).
    pub fn decode(value: &[u8]) -> Result<impl Iterator<Item = (u16, u8)>, DecodeError> {
        let mut fields = Fields::open(value, schema::USER_SKETCH)?;
        let packed = fields.bytes("registers")?;
        fields.finish()?;
        Self::unpack(packed)
    }
}

/// Counters and status of one (hour, partition), without its users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HourTotals {
    /// Number of clicks.
    pub clicks: u64,
    /// Number of impressions.
    pub impressions: u64,
    /// Log time of the last event of the hour, ms since the epoch; [`HourTotals::UNKNOWN`] in old records.
    pub written_at_ms: i64,
    /// Set once a sketch has replaced the exact set of users.
    pub sketched: Option<SketchSwitch>,
}

/// The numbers of users at the moment when a sketch replaced the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SketchSwitch {
    /// The exact number of users.
    pub exact_users: u64,
    /// The estimate of the sketch.
    pub estimate: u64,
}

impl Default for HourTotals {
    fn default() -> Self {
        Self { clicks: 0, impressions: 0, written_at_ms: Self::UNKNOWN, sketched: None }
    }
}

impl HourTotals {
    /// Stands for the log time in records from before log time was recorded.
    pub const UNKNOWN: i64 = -1;

    /// Appends the framed record value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        begin(out, schema::HOUR_TOTALS);
        put_long(out, self.clicks.cast_signed());
        put_long(out, self.impressions.cast_signed());
        put_long(out, self.written_at_ms);
        match self.sketched {
            None => put_long(out, 0),
            Some(SketchSwitch { exact_users, estimate }) => {
                put_long(out, 1);
                put_long(out, exact_users.cast_signed());
                put_long(out, estimate.cast_signed());
            }
        }
    }

    /// Reads a framed record value, or one of its predecessor `HourCounters`.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let (mut fields, old) = match Fields::open(value, schema::HOUR_TOTALS) {
            Err(DecodeError::SchemaId { found: schema::HOUR_COUNTERS, .. }) => {
                (Fields::open(value, schema::HOUR_COUNTERS)?, true)
            }
            opened => (opened?, false),
        };
        let mut totals =
            Self { clicks: fields.count("clicks")?, impressions: fields.count("impressions")?, ..Self::default() };
        if !old {
            totals.written_at_ms = fields.long("written_at")?;
            totals.sketched = match fields.long("sketched")? {
                0 => None,
                1 => Some(SketchSwitch {
                    exact_users: fields.count("exact_users")?,
                    estimate: fields.count("estimate")?,
                }),
                _ => return Err(DecodeError::Range("sketched")),
            };
        }
        fields.finish()?;
        Ok(totals)
    }
}

/// The log time of a partition, and the start of its deduplication window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogTime {
    /// The latest timestamp that the log assigned to a processed record, ms since the epoch.
    pub log_time_ms: i64,
    /// The offset from which a restore reads event ids; `None` if no record of the window has one.
    pub window: Option<IdWindow>,
}

/// The position of a record with an event id, at or before the first one of the deduplication window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdWindow {
    /// Its input offset.
    pub offset: u64,
    /// The log time at it, ms since the epoch.
    pub log_time_ms: i64,
}

impl LogTime {
    /// Appends the framed record value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        begin(out, schema::LOG_TIME);
        put_long(out, self.log_time_ms);
        match self.window {
            None => put_long(out, 0),
            Some(IdWindow { offset, log_time_ms }) => {
                put_long(out, 1);
                put_long(out, offset.cast_signed());
                put_long(out, log_time_ms);
            }
        }
    }

    /// Reads a framed record value.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::open(value, schema::LOG_TIME)?;
        let log_time_ms = fields.long("log_time")?;
        let window = match fields.long("window")? {
            0 => None,
            1 => Some(IdWindow { offset: fields.count("offset")?, log_time_ms: fields.long("log_time")? }),
            _ => return Err(DecodeError::Range("window")),
        };
        fields.finish()?;
        Ok(Self { log_time_ms, window })
    }
}

/// The record that a new owner writes before it restores the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// Random; distinguishes the owner's marker from earlier ones.
    pub nonce: String,
    /// The owner's transactional id; `None` in old records.
    pub transactional_id: Option<String>,
}

impl Marker {
    /// Appends the framed record value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        begin(out, if self.transactional_id.is_some() { schema::OWNER_MARKER } else { schema::MARKER });
        put_bytes(out, self.nonce.as_bytes());
        if let Some(id) = &self.transactional_id {
            put_bytes(out, id.as_bytes());
        }
    }

    /// Reads a framed record value, or one of its predecessor, which has the nonce only.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let (mut fields, owned) = match Fields::open(value, schema::OWNER_MARKER) {
            Err(DecodeError::SchemaId { found: schema::MARKER, .. }) => (Fields::open(value, schema::MARKER)?, false),
            opened => (opened?, true),
        };
        let nonce = fields.string("nonce")?.to_owned();
        let transactional_id = owned.then(|| fields.string("transactional_id").map(str::to_owned)).transpose()?;
        fields.finish()?;
        Ok(Self { nonce, transactional_id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::tests::avro_bytes;
    use apache_avro::types::Value;
    use proptest::prelude::*;

    fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&mut bytes);
        bytes
    }

    fn optional(fields: Option<[(&str, Value); 2]>) -> Value {
        match fields {
            None => Value::Union(0, Box::new(Value::Null)),
            Some(fields) => Value::Union(1, Box::new(Value::Record(fields.map(|(name, v)| (name.into(), v)).into()))),
        }
    }

    proptest! {
        #[test]
        fn users_equal_apache_avro_byte_for_byte(users: Vec<u64>) {
            let hashes: Vec<UserHash> = users.iter().map(|&user| UserHash::from_raw(user)).collect();
            let packed = users.iter().flat_map(|user| user.to_le_bytes()).collect();
            let bytes = encoded(|out| UserDelta::encode(&hashes, out));
            let avro = Value::Record(vec![("users".into(), Value::Bytes(packed))]);
            prop_assert_eq!(&bytes, &avro_bytes(schema::USER_DELTA, avro));
            prop_assert_eq!(UserDelta::decode(&bytes).unwrap().collect::<Vec<_>>(), hashes);
        }

        #[test]
        fn totals_equal_apache_avro_byte_for_byte(
            clicks in 0..i64::MAX,
            impressions in 0..i64::MAX,
            written_at_ms: i64,
            sketched in proptest::option::of((0..i64::MAX, 0..i64::MAX)),
        ) {
            let (long, count) = (|value: i64| Value::Long(value), |value: i64| value.cast_unsigned());
            let totals = HourTotals {
                clicks: count(clicks),
                impressions: count(impressions),
                written_at_ms,
                sketched: sketched.map(|(users, guess)| SketchSwitch { exact_users: count(users), estimate: count(guess) }),
            };
            let bytes = encoded(|out| totals.encode(out));
            let avro = Value::Record(vec![
                ("clicks".into(), long(clicks)),
                ("impressions".into(), long(impressions)),
                ("written_at".into(), Value::TimestampMillis(written_at_ms)),
                ("sketched".into(), optional(sketched.map(|(users, guess)| [("exact_users", long(users)), ("estimate", long(guess))]))),
            ]);
            prop_assert_eq!(&bytes, &avro_bytes(schema::HOUR_TOTALS, avro));
            prop_assert_eq!(HourTotals::decode(&bytes), Ok(totals));

            let old = Value::Record(vec![("clicks".into(), long(clicks)), ("impressions".into(), long(impressions))]);
            let unknown = HourTotals { written_at_ms: HourTotals::UNKNOWN, sketched: None, ..totals };
            prop_assert_eq!(HourTotals::decode(&avro_bytes(schema::HOUR_COUNTERS, old)), Ok(unknown));
        }

        #[test]
        fn log_time_equals_apache_avro_byte_for_byte(
            log_time_ms: i64,
            window in proptest::option::of((0..i64::MAX, any::<i64>())),
        ) {
            let time = LogTime {
                log_time_ms,
                window: window.map(|(offset, log_time_ms)| IdWindow { offset: offset.cast_unsigned(), log_time_ms }),
            };
            let bytes = encoded(|out| time.encode(out));
            let start = |(offset, at)| [("offset", Value::Long(offset)), ("log_time", Value::TimestampMillis(at))];
            let avro = Value::Record(vec![
                ("log_time".into(), Value::TimestampMillis(log_time_ms)),
                ("window".into(), optional(window.map(start))),
            ]);
            prop_assert_eq!(&bytes, &avro_bytes(schema::LOG_TIME, avro));
            prop_assert_eq!(LogTime::decode(&bytes), Ok(time));
        }

        #[test]
        fn a_marker_equals_apache_avro_byte_for_byte(nonce in ".{0,40}", id in proptest::option::of(".{0,40}")) {
            let marker = Marker { nonce: nonce.clone(), transactional_id: id.clone() };
            let bytes = encoded(|out| marker.encode(out));
            let mut avro = vec![("nonce".into(), Value::String(nonce))];
            let schema = if id.is_some() { schema::OWNER_MARKER } else { schema::MARKER };
            avro.extend(id.map(|id| ("transactional_id".into(), Value::String(id))));
            prop_assert_eq!(&bytes, &avro_bytes(schema, Value::Record(avro)));
            prop_assert_eq!(Marker::decode(&bytes), Ok(marker));
        }

        #[test]
        fn a_sketch_round_trips_in_both_encodings(set in prop::collection::hash_map(0..UserSketch::REGISTERS, 1..42_u8, 0..50), dense: bool) {
            let mut registers = [u8::from(dense); UserSketch::REGISTERS];
            for (number, value) in set {
                registers[number] = value;
            }
            let bytes = encoded(|out| UserSketch::encode(&registers, out));
            let packed = encoded(|out| UserSketch::pack(&registers, out));
            let avro = Value::Record(vec![("registers".into(), Value::Bytes(packed.clone()))]);
            prop_assert_eq!(&bytes, &avro_bytes(schema::USER_SKETCH, avro));
            prop_assert_eq!(packed.len() == UserSketch::REGISTERS, dense);
            let mut read = [0; UserSketch::REGISTERS];
            for (number, value) in UserSketch::decode(&bytes).unwrap() {
                read[usize::from(number)] = value;
            }
            prop_assert_eq!(read, registers);
        }

        #[test]
        fn decoding_arbitrary_bytes_does_not_panic(bytes: Vec<u8>, id in 0..12_u8) {
            let mut framed = vec![0, 0, 0, 0, id];
            framed.extend(bytes);
            let _ = UserSketch::decode(&framed).map(Iterator::count);
            let _ = HourTotals::decode(&framed);
            let _ = LogTime::decode(&framed);
        }
    }
}
