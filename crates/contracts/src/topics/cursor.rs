//! A subscription's cursor: which offsets are settled.

use serde::{Deserialize, Serialize};

/// Offsets `(after, offset]` of the topic's partition, and the topic's ordinals at both ends. The offsets of a topic are
/// interleaved with those of others, so a range names both ends; ranges merge, and messages that a filter passes over are
/// covered by the range of the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SettledRange {
    /// The range begins behind this offset; -1 is the beginning of the log.
    pub after: i64,
    /// The last offset of the range.
    pub offset: i64,
    /// Messages of the topic up to `after`.
    pub ordinal_after: u64,
    /// Messages of the topic up to `offset`.
    pub ordinal: u64,
}

/// Which offsets of a topic's partition a subscription has settled: everything up to `floor`, and the ranges `above`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Offset of the command that set the cursor (create, seek). Within an epoch the floor only rises.
    pub epoch: u64,
    /// The first floor of the epoch: what is up to it was never handed out; -1: nothing is.
    #[serde(default = "before_everything")]
    pub start: i64,
    /// Everything up to this offset is settled; -1: nothing is.
    pub floor: i64,
    /// Messages of the topic up to `floor`.
    pub floor_ordinal: u64,
    /// Settled ranges above the floor, ascending, disjoint, never adjacent to the floor or to each other.
    pub above: Vec<SettledRange>,
    /// Bytes of the messages that were acknowledged through the earlier system's calls, as it counted them.
    #[serde(default)]
    pub legacy_bytes: u64,
}

fn before_everything() -> i64 {
    -1
}

/// The effect of settling a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// At least the range's last offset was not settled before.
    Now,
    /// The range's last offset was settled already.
    Already,
}

impl Cursor {
    /// Most ranges above the floor; when there are more, nothing further is handed out until a gap closes.
    pub const MAX_ABOVE: usize = 4096;

    /// A cursor of a new epoch, with everything up to `floor` settled.
    pub fn new(epoch: u64, floor: i64, floor_ordinal: u64) -> Self {
        Self { epoch, start: floor, floor, floor_ordinal, above: Vec::new(), legacy_bytes: 0 }
    }

    /// Whether an offset is settled.
    pub fn covers(&self, offset: i64) -> bool {
        if offset <= self.floor {
            return true;
        }
        let index = self.above.partition_point(|range| range.offset < offset);
        self.above.get(index).is_some_and(|range| range.after < offset)
    }

    /// Settles a range.
    pub fn settle(&mut self, range: SettledRange) -> Settled {
        let settled = if self.covers(range.offset) { Settled::Already } else { Settled::Now };
        if range.offset <= self.floor || range.offset <= range.after {
            return settled;
        }
        let mut range = range;
        if range.after < self.floor {
            (range.after, range.ordinal_after) = (self.floor, self.floor_ordinal);
        }
        // The ranges that overlap or touch it.
        let first = self.above.partition_point(|other| other.offset < range.after);
        let last = self.above.partition_point(|other| other.after <= range.offset);
        if first < last {
            let (low, high) = (self.above[first], self.above[last - 1]);
            if low.after < range.after {
                (range.after, range.ordinal_after) = (low.after, low.ordinal_after);
            }
            if high.offset > range.offset {
                (range.offset, range.ordinal) = (high.offset, high.ordinal);
            }
        }
        if range.after <= self.floor {
            (self.floor, self.floor_ordinal) = (range.offset, range.ordinal);
            self.above.drain(..last);
        } else {
            self.above.splice(first..last, [range]);
        }
        settled
    }

    /// Settles everything up to an offset.
    pub fn settle_up_to(&mut self, offset: i64, ordinal: u64) -> Settled {
        self.settle(SettledRange { after: self.floor, ordinal_after: self.floor_ordinal, offset, ordinal })
    }

    /// Messages of the topic that are settled, as ordinals count them.
    pub fn settled_ordinals(&self) -> u64 {
        self.floor_ordinal
            + self.above.iter().map(|range| range.ordinal.saturating_sub(range.ordinal_after)).sum::<u64>()
    }

    /// Whether the gaps above the floor are so many that nothing further may be handed out.
    pub fn is_full(&self) -> bool {
        self.above.len() >= Self::MAX_ABOVE
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Offsets of a topic's messages within the partition.
    fn topic() -> impl Strategy<Value = Vec<i64>> {
        proptest::collection::btree_set(0..200_i64, 1..40).prop_map(|set| set.into_iter().collect())
    }

    fn range(messages: &[i64], from: usize, to: usize) -> SettledRange {
        SettledRange {
            after: if from == 0 { -1 } else { messages[from - 1] },
            offset: messages[to],
            ordinal_after: from as u64,
            ordinal: to as u64 + 1,
        }
    }

    proptest! {
        /// Against a set of settled messages.
        #[test]
        fn equals_a_set_of_settled_messages(messages in topic(), picks in proptest::collection::vec((0..40_usize, 0..6_usize), 0..60)) {
            let mut cursor = Cursor::new(7, -1, 0);
            let mut model: BTreeSet<i64> = BTreeSet::new();
            for (from, length) in picks {
                let from = from % messages.len();
                let to = (from + length).min(messages.len() - 1);
                let expected = if model.contains(&messages[to]) { Settled::Already } else { Settled::Now };
                prop_assert_eq!(cursor.settle(range(&messages, from, to)), expected);
                model.extend(&messages[from..=to]);
                for &message in &messages {
                    prop_assert_eq!(cursor.covers(message), model.contains(&message), "{} in {:?}", message, cursor);
                }
                prop_assert_eq!(cursor.settled_ordinals(), model.len() as u64);
                let prefix = messages.iter().take_while(|message| model.contains(*message)).last().copied().unwrap_or(-1);
                prop_assert_eq!(cursor.floor, prefix);
                let ends: Vec<i64> = cursor.above.iter().flat_map(|range| [range.after, range.offset]).collect();
                prop_assert!(ends.is_sorted_by(|a, b| a < b), "{:?}", cursor);
                prop_assert!(cursor.above.first().is_none_or(|range| range.after > cursor.floor));
            }
        }
    }
}
