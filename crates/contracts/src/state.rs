//! The processor's state changes, as they stand in `analytics.state`, and their keys.

use std::fmt;

use crate::codec::{DecodeError, Fields, begin, put_bytes, put_long};
use crate::{Hour, UserHash, schema};

/// The key of a state change. Its text is what compaction and `kcat` see; every change of a partition is written to the
/// same partition of the state topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StateKey {
    /// `{hour}/{p}/d/{seq}`: users first seen. `seq` is the input offset after the last event that contributed.
    Users {
        /// The hour the users were seen in.
        hour: Hour,
        /// The partition counted.
        partition: u32,
        /// The input offset after the last event that contributed; unique within the hour and partition.
        seq: u64,
    },
    /// `{hour}/{p}/c`: the hour's counters.
    Counters {
        /// The hour counted.
        hour: Hour,
        /// The partition counted.
        partition: u32,
    },
    /// `pos/{p}`: how far the input is contained in the state.
    Position(u32),
    /// `marker/{p}`: a new owner's marker.
    Marker(u32),
}

impl fmt::Display for StateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Users { hour, partition, seq } => write!(f, "{hour}/{partition}/d/{seq}"),
            Self::Counters { hour, partition } => write!(f, "{hour}/{partition}/c"),
            Self::Position(partition) => write!(f, "pos/{partition}"),
            Self::Marker(partition) => write!(f, "marker/{partition}"),
        }
    }
}

impl StateKey {
    /// Reads a record key; `None` if it is not one of these.
    pub fn parse(key: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(key).ok()?.split('/');
        let parsed = match (parts.next()?, parts.next()?.parse().ok()?) {
            ("pos", partition) => Self::Position(partition),
            ("marker", partition) => Self::Marker(partition),
            (hour, partition) => {
                let hour = hour.parse().ok()?;
                match parts.next()? {
                    "c" => Self::Counters { hour, partition },
                    "d" => Self::Users { hour, partition, seq: parts.next()?.parse().ok()? },
                    _ => return None,
                }
            }
        };
        parts.next().is_none().then_some(parsed)
    }
}

/// Users first seen in an hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsersSeen;

impl UsersSeen {
    /// The most users one record holds, so that a value stays below 256 KiB.
    pub const MAX_USERS: usize = (256 * 1024 - 16) / 8;

    /// Appends the framed record value.
    pub fn encode(users: &[UserHash], out: &mut Vec<u8>) {
        begin(out, schema::USERS_SEEN);
        put_long(out, i64::try_from(users.len() * 8).unwrap_or(i64::MAX));
        out.reserve(users.len() * 8);
        for user in users {
            out.extend_from_slice(&user.get().to_le_bytes());
        }
    }

    /// Reads a framed record value.
    pub fn decode(value: &[u8]) -> Result<impl Iterator<Item = UserHash>, DecodeError> {
        let mut fields = Fields::open(value, schema::USERS_SEEN)?;
        let (users, rest) = fields.bytes("users")?.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(DecodeError::Range("users"));
        }
        fields.finish()?;
        Ok(users.iter().map(|bytes| UserHash::from_raw(u64::from_le_bytes(*bytes))))
    }
}

/// The absolute counters of one (hour, partition).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HourCounters {
    /// Number of clicks.
    pub clicks: u64,
    /// Number of impressions.
    pub impressions: u64,
}

impl HourCounters {
    /// Appends the framed record value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        begin(out, schema::HOUR_COUNTERS);
        put_long(out, self.clicks.cast_signed());
        put_long(out, self.impressions.cast_signed());
    }

    /// Reads a framed record value.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::open(value, schema::HOUR_COUNTERS)?;
        let counters = Self { clicks: fields.count("clicks")?, impressions: fields.count("impressions")? };
        fields.finish()?;
        Ok(counters)
    }
}

/// How far a partition's input is contained in the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The first input offset that is not contained.
    pub next_offset: u64,
}

impl Position {
    /// Appends the framed record value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        begin(out, schema::POSITION);
        put_long(out, self.next_offset.cast_signed());
    }

    /// Reads a framed record value.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::open(value, schema::POSITION)?;
        let position = Self { next_offset: fields.count("next_offset")? };
        fields.finish()?;
        Ok(position)
    }
}

/// A new owner's marker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// Random; tells the owner's marker from its predecessors'.
    pub nonce: String,
}

impl Marker {
    /// Appends the framed record value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        begin(out, schema::MARKER);
        put_bytes(out, self.nonce.as_bytes());
    }

    /// Reads a framed record value.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::open(value, schema::MARKER)?;
        let nonce = fields.string("nonce")?.to_owned();
        fields.finish()?;
        Ok(Self { nonce })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::tests::avro_bytes;
    use apache_avro::types::Value;
    use proptest::prelude::*;

    #[test]
    fn keys_read_as_the_design_writes_them() {
        let hour: Hour = "2026-11-21T08Z".parse().unwrap();
        for (key, text) in [
            (StateKey::Users { hour, partition: 3, seq: 12 }, "2026-11-21T08Z/3/d/12"),
            (StateKey::Counters { hour, partition: 3 }, "2026-11-21T08Z/3/c"),
            (StateKey::Position(11), "pos/11"),
            (StateKey::Marker(0), "marker/0"),
        ] {
            assert_eq!(key.to_string(), text);
            assert_eq!(StateKey::parse(text.as_bytes()), Some(key));
        }
        for bad in ["", "pos", "pos/x", "pos/1/2", "2026-11-21T08Z/3/d", "2026-11-21T08Z/3/e/1", "2026-11-21T08Z/3/c/1"]
        {
            assert_eq!(StateKey::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn equal_apache_avro_byte_for_byte(users: Vec<u64>, clicks in 0..i64::MAX, impressions in 0..i64::MAX, nonce in ".{0,40}") {
            let hashes: Vec<UserHash> = users.iter().map(|&user| UserHash::from_raw(user)).collect();
            let packed = users.iter().flat_map(|user| user.to_le_bytes()).collect();
            let mut bytes = Vec::new();
            UsersSeen::encode(&hashes, &mut bytes);
            prop_assert_eq!(&bytes, &avro_bytes(schema::USERS_SEEN, Value::Record(vec![("users".into(), Value::Bytes(packed))])));
            prop_assert_eq!(UsersSeen::decode(&bytes).unwrap().collect::<Vec<_>>(), hashes);

            let counters = HourCounters { clicks: clicks.cast_unsigned(), impressions: impressions.cast_unsigned() };
            bytes.clear();
            counters.encode(&mut bytes);
            let avro = Value::Record(vec![("clicks".into(), Value::Long(clicks)), ("impressions".into(), Value::Long(impressions))]);
            prop_assert_eq!(&bytes, &avro_bytes(schema::HOUR_COUNTERS, avro));
            prop_assert_eq!(HourCounters::decode(&bytes), Ok(counters));

            let position = Position { next_offset: clicks.cast_unsigned() };
            bytes.clear();
            position.encode(&mut bytes);
            prop_assert_eq!(&bytes, &avro_bytes(schema::POSITION, Value::Record(vec![("next_offset".into(), Value::Long(clicks))])));
            prop_assert_eq!(Position::decode(&bytes), Ok(position));

            let marker = Marker { nonce: nonce.clone() };
            bytes.clear();
            marker.encode(&mut bytes);
            prop_assert_eq!(&bytes, &avro_bytes(schema::MARKER, Value::Record(vec![("nonce".into(), Value::String(nonce))])));
            prop_assert_eq!(Marker::decode(&bytes), Ok(marker));
        }
    }
}
