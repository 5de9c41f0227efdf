//! Keys of `analytics.state`. Their values are in `changes`; the keys `pos/{p}` and `marker/{p}` beside them are the log's.

use std::fmt;

use crate::Hour;

/// The key of a state change, as text. Every change of an input partition goes to the same partition of the state topic.
///
/// The prefixes `pos/` and `marker/` are reserved for the log's runner (`millrace_log::RunnerKey`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StateKey {
    /// `{hour}/{p}/d/{seq}`: users first seen up to input offset `seq` (exclusive).
    Users {
        /// The hour in which the users were seen.
        hour: Hour,
        /// The input partition.
        partition: u32,
        /// The input offset after the last event that contributed; unique within the hour and partition.
        seq: u64,
    },
    /// `{hour}/{p}/s/{snapshot}/{chunk}`: all users of the hour as of an offset; replaces the deltas before it.
    Snapshot {
        /// The hour in which the users were seen.
        hour: Hour,
        /// The input partition.
        partition: u32,
        /// End of the input contained (exclusive).
        snapshot: u64,
        /// Index of the record within the snapshot, from 0.
        chunk: u32,
    },
    /// `{hour}/{p}/c`: the hour's counters.
    Counters {
        /// The hour.
        hour: Hour,
        /// The input partition.
        partition: u32,
    },
    /// `time/{p}`: the log time of the input, and the window of event ids.
    Time(u32),
    /// `key/{p}`: the key of the partition's hashes. Secret.
    HashKey(u32),
}

impl fmt::Display for StateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Users { hour, partition, seq } => write!(f, "{hour}/{partition}/d/{seq}"),
            Self::Counters { hour, partition } => write!(f, "{hour}/{partition}/c"),
            Self::Snapshot { hour, partition, snapshot, chunk } => write!(f, "{hour}/{partition}/s/{snapshot}/{chunk}"),
            Self::Time(partition) => write!(f, "time/{partition}"),
            Self::HashKey(partition) => write!(f, "key/{partition}"),
        }
    }
}

impl StateKey {
    /// Parses a record key; `None` for any other key.
    pub fn parse(key: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(key).ok()?.split('/');
        let parsed = match (parts.next()?, parts.next()?.parse().ok()?) {
            ("time", partition) => Self::Time(partition),
            ("key", partition) => Self::HashKey(partition),
            (hour, partition) => {
                let hour = hour.parse().ok()?;
                match parts.next()? {
                    "c" => Self::Counters { hour, partition },
                    "d" => Self::Users { hour, partition, seq: parts.next()?.parse().ok()? },
                    "s" => {
                        let (snapshot, chunk) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
                        Self::Snapshot { hour, partition, snapshot, chunk }
                    }
                    _ => return None,
                }
            }
        };
        parts.next().is_none().then_some(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip_as_text() {
        let hour: Hour = "2026-11-21T08Z".parse().unwrap();
        for (key, text) in [
            (StateKey::Users { hour, partition: 3, seq: 12 }, "2026-11-21T08Z/3/d/12"),
            (StateKey::Snapshot { hour, partition: 3, snapshot: 12, chunk: 1 }, "2026-11-21T08Z/3/s/12/1"),
            (StateKey::Counters { hour, partition: 3 }, "2026-11-21T08Z/3/c"),
            (StateKey::Time(3), "time/3"),
            (StateKey::HashKey(3), "key/3"),
        ] {
            assert_eq!(key.to_string(), text);
            assert_eq!(StateKey::parse(text.as_bytes()), Some(key));
        }
        for bad in [
            "",
            "time",
            "time/x",
            "pos/1",
            "marker/1",
            "time/1/2",
            "2026-11-21T08Z/3/d",
            "2026-11-21T08Z/3/e/1",
            "2026-11-21T08Z/3/c/1",
            "2026-11-21T08Z/3/s/1",
            "2026-11-21T08Z/3/s/1/1/1",
        ] {
            assert_eq!(StateKey::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
