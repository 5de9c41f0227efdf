//! The keys that the runner writes into a stage's topic of changes: its position and its marker.
//!
//! The prefixes `pos/` and `marker/` are reserved in every topic of changes; any other key is the stage's own.

use std::fmt;

/// A key of the runner, as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RunnerKey {
    /// `pos/{p}`: the position of input partition p that the state contains
    /// ([`Position`](millrace_contracts::Position)).
    Position(u32),
    /// `marker/{p}`: the marker of a new owner ([`Marker`](millrace_contracts::Marker)).
    Marker(u32),
}

const POSITION: &str = "pos/";
const MARKER: &str = "marker/";

impl RunnerKey {
    /// Parses a record key; `None` for any other key.
    pub fn parse(key: &[u8]) -> Option<Self> {
        let number = |prefix: &str| -> Option<u32> {
            std::str::from_utf8(key.strip_prefix(prefix.as_bytes())?).ok()?.parse().ok()
        };
        number(POSITION).map(Self::Position).or_else(|| number(MARKER).map(Self::Marker))
    }

    /// Whether a key begins with a reserved prefix, so that a stage must not write it.
    pub fn is_reserved(key: &[u8]) -> bool {
        [POSITION, MARKER].iter().any(|prefix| key.starts_with(prefix.as_bytes()))
    }
}

impl fmt::Display for RunnerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Position(partition) => write!(f, "{POSITION}{partition}"),
            Self::Marker(partition) => write!(f, "{MARKER}{partition}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip_as_text() {
        for (key, text) in [(RunnerKey::Position(11), "pos/11"), (RunnerKey::Marker(0), "marker/0")] {
            assert_eq!(key.to_string(), text);
            assert_eq!(RunnerKey::parse(text.as_bytes()), Some(key));
        }
        for other in ["", "pos", "pos/", "pos/x", "pos/1/2", "marker/-1", "time/1", "2026-11-21T08Z/3/c"] {
            assert_eq!(RunnerKey::parse(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn the_prefix_decides_whether_a_key_is_reserved() {
        assert!([&b"pos/1"[..], b"pos/x", b"marker/1/2"].iter().all(|key| RunnerKey::is_reserved(key)));
        assert!(![&b"position/1"[..], b"pos", b"time/1"].iter().any(|key| RunnerKey::is_reserved(key)));
    }
}
