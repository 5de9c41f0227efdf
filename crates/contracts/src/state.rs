//! Keys of `analytics.state`. What stands under them is in `changes`.

use std::fmt;

use crate::Hour;

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
    /// `{hour}/{p}/s/{snapshot}/{chunk}`: the hour's users as of an offset, in the place of what was written before.
    Snapshot {
        /// The hour the users were seen in.
        hour: Hour,
        /// The partition counted.
        partition: u32,
        /// Every event below this input offset is contained.
        snapshot: u64,
        /// Counts the records of the snapshot from 0.
        chunk: u32,
    },
    /// `{hour}/{p}/c`: the hour's counters.
    Counters {
        /// The hour counted.
        hour: Hour,
        /// The partition counted.
        partition: u32,
    },
    /// `time/{p}`: the log time of the input, and the window of event ids.
    Time(u32),
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
            Self::Snapshot { hour, partition, snapshot, chunk } => write!(f, "{hour}/{partition}/s/{snapshot}/{chunk}"),
            Self::Time(partition) => write!(f, "time/{partition}"),
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
            ("time", partition) => Self::Time(partition),
            ("pos", partition) => Self::Position(partition),
            ("marker", partition) => Self::Marker(partition),
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
    fn keys_read_as_the_design_writes_them() {
        let hour: Hour = "2026-11-21T08Z".parse().unwrap();
        for (key, text) in [
            (StateKey::Users { hour, partition: 3, seq: 12 }, "2026-11-21T08Z/3/d/12"),
            (StateKey::Snapshot { hour, partition: 3, snapshot: 12, chunk: 1 }, "2026-11-21T08Z/3/s/12/1"),
            (StateKey::Counters { hour, partition: 3 }, "2026-11-21T08Z/3/c"),
            (StateKey::Time(3), "time/3"),
            (StateKey::Position(11), "pos/11"),
            (StateKey::Marker(0), "marker/0"),
        ] {
            assert_eq!(key.to_string(), text);
            assert_eq!(StateKey::parse(text.as_bytes()), Some(key));
        }
        for bad in [
            "",
            "pos",
            "pos/x",
            "pos/1/2",
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
