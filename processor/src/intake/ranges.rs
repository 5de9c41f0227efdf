//! The numbers that a client has used, as ranges.

use millrace_contracts::{ClientRanges, SeqRange};

/// At most [`ClientRanges::MAX`] ranges; the one that grew last stands last, and the first is forgotten first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ranges(Vec<SeqRange>);

impl Ranges {
    pub(super) fn new(ranges: Vec<SeqRange>) -> Self {
        Self(ranges)
    }

    pub(super) fn as_slice(&self) -> &[SeqRange] {
        &self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn contains(&self, seq: u64) -> bool {
        self.0.iter().rev().any(|range| (range.first..=range.last).contains(&seq))
    }

    /// Adds a number that is in no range.
    pub(super) fn insert(&mut self, seq: u64) {
        if let Some(last) = self.0.last_mut()
            && last.last + 1 == seq
            && !self.0[..self.0.len() - 1].iter().any(|range| range.first == seq + 1)
        {
            let last = self.0.last_mut().expect("seen above");
            last.last = seq;
            return;
        }
        let mut grown = SeqRange { first: seq, last: seq };
        self.0.retain(|range| {
            let (below, above) = (range.last + 1 == seq, range.first == seq + 1);
            if below {
                grown.first = range.first;
            }
            if above {
                grown.last = range.last;
            }
            !below && !above
        });
        if self.0.len() == ClientRanges::MAX {
            self.0.remove(0);
        }
        self.0.push(grown);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_hold_what_was_put_in(numbers in prop::collection::vec(1..40_u64, 0..60)) {
            let (mut ranges, mut set) = (Ranges::default(), std::collections::BTreeSet::new());
            for number in numbers {
                prop_assert_eq!(ranges.contains(number), set.contains(&number));
                if set.insert(number) {
                    ranges.insert(number);
                }
                let mut sorted = ranges.as_slice().to_vec();
                sorted.sort_by_key(|range| range.first);
                // Apart by at least one number, or they would be one range.
                prop_assert!(sorted.windows(2).all(|two| two[0].last + 1 < two[1].first), "{:?}", sorted);
                let last = ranges.as_slice().last().unwrap();
                prop_assert!((last.first..=last.last).contains(&number) || set.contains(&number));
            }
            prop_assert!((1..40).all(|number| ranges.contains(number) == set.contains(&number)));
        }
    }

    #[test]
    fn the_range_that_rested_longest_is_forgotten() {
        let mut ranges = Ranges::default();
        for number in (1..=64).map(|n| n * 10) {
            ranges.insert(number);
        }
        ranges.insert(11);
        ranges.insert(1_000);
        assert_eq!(ranges.as_slice().len(), 64);
        assert_eq!([10, 11, 20, 30].map(|number| ranges.contains(number)), [true, true, false, true]);
        ranges.insert(i64::MAX.cast_unsigned());
        assert_eq!(ranges.as_slice().len(), 64);
    }
}
