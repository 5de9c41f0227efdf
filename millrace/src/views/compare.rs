//! One partition of a store, compared with the log at the store's own position. Pure.
//!
//! The store is looked at first, then the log is read past that position, so every record the store can contain has been
//! seen or was replaced, by compaction, by one beyond the position. A count is judged only if the log has no record of its
//! hour beyond: otherwise it moved since, and is looked at again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use millrace_contracts::{Hour, HourlyCount};
use millrace_store::Part;

use super::report::StoreReport;

/// The log of one partition, as seen from a position.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The newest count of each hour below the position.
    below: BTreeMap<Hour, HourlyCount>,
    /// Hours with a record at or beyond it.
    beyond: BTreeSet<Hour>,
}

impl Seen {
    /// Takes in a record of the log, in any order.
    pub(super) fn add(&mut self, position: u64, offset: u64, count: HourlyCount) {
        if offset >= position {
            self.beyond.insert(count.hour);
            return;
        }
        let newest = self.below.entry(count.hour).or_insert(count);
        if (newest.generation, newest.next_offset) < (count.generation, count.next_offset) {
            *newest = count;
        }
    }
}

/// Judges the counts of `part` in `hours`, and only those of `wanted` if it is given. Answers which moved.
pub(super) fn compare(
    part: &Part,
    seen: &Seen,
    hours: &Range<Hour>,
    wanted: Option<&BTreeSet<Hour>>,
    report: &mut StoreReport,
) -> BTreeSet<Hour> {
    let stored: BTreeMap<Hour, HourlyCount> = part.counts.iter().map(|count| (count.hour, *count)).collect();
    let all: BTreeSet<Hour> = stored.keys().chain(seen.below.keys()).chain(&seen.beyond).copied().collect();
    let mut moved = BTreeSet::new();
    for hour in all {
        if !hours.contains(&hour) || wanted.is_some_and(|wanted| !wanted.contains(&hour)) {
            continue;
        }
        let (log, store) = (seen.below.get(&hour).copied(), stored.get(&hour).copied());
        if log.is_some() && log == store {
            report.equal += 1;
        } else if seen.beyond.contains(&hour) {
            moved.insert(hour);
        } else {
            report.differs(hour, part.partition, log, store);
        }
    }
    moved
}

#[cfg(test)]
mod tests {
    use millrace_contracts::Exactness;
    use proptest::prelude::*;

    use super::*;

    fn count(hour: i64, next_offset: u64, clicks: u64) -> HourlyCount {
        let (hour, exactness) = (Hour::from_index(hour), Exactness::Exact);
        let (generation, impressions, unique_users) = (1, 0, 0);
        HourlyCount { hour, partition: 0, generation, next_offset, clicks, impressions, unique_users, exactness }
    }

    fn part(position: u64, counts: Vec<HourlyCount>) -> Part {
        Part { partition: 0, position: Some(position), complete: true, counts }
    }

    fn judge(part: &Part, seen: &Seen) -> (StoreReport, BTreeSet<Hour>) {
        let mut report = StoreReport::default();
        let hours = Hour::from_index(0)..Hour::from_index(100);
        let moved = compare(part, seen, &hours, None, &mut report);
        (report, moved)
    }

    #[test]
    fn every_kind_of_difference_is_named() {
        let mut seen = Seen::default();
        for (offset, count) in (0..).zip([count(1, 1, 5), count(2, 2, 6), count(3, 3, 7), count(3, 9, 9)]) {
            seen.add(10, offset, count);
        }
        let stored = vec![count(1, 1, 5), count(3, 9, 8), count(4, 4, 4)];
        let (report, moved) = judge(&part(10, stored), &seen);
        assert!(moved.is_empty());
        assert_eq!((report.equal, report.different), (1, 3));
        let found: Vec<_> = report
            .differences
            .iter()
            .map(|difference| (difference.log.is_some(), difference.store.is_some()))
            .collect();
        assert_eq!(found, [(true, false), (true, true), (false, true)], "missing, other numbers, not in the log");
    }

    proptest! {
        /// A store that is the fold of the log up to its position never differs, whatever compaction took and however far
        /// the log went on; one number changed is found, unless its hour moved.
        #[test]
        fn no_false_alarms_and_no_difference_unseen(
            records in prop::collection::vec(0..6_i64, 1..40),
            position in any::<prop::sample::Index>(),
            compacted in any::<prop::sample::Index>(),
            changed in 0..6_i64,
        ) {
            let records: Vec<HourlyCount> = (1..).zip(&records).map(|(n, &hour)| count(hour, n, n)).collect();
            let position = position.index(records.len() + 1);
            let mut stored: BTreeMap<Hour, HourlyCount> = BTreeMap::new();
            for record in &records[..position] {
                stored.insert(record.hour, *record);
            }
            // Compaction drops, below some point, what a later record replaces.
            let compacted = compacted.index(records.len() + 1);
            let position = position as u64;
            let mut seen = Seen::default();
            for (offset, record) in records.iter().enumerate() {
                let replaced = records[offset + 1..].iter().any(|later| later.hour == record.hour);
                if offset >= compacted || !replaced {
                    seen.add(position, offset as u64, *record);
                }
            }
            let (report, moved) = judge(&part(position, stored.values().copied().collect()), &seen);
            prop_assert_eq!(report.different, 0);
            prop_assert_eq!(report.equal + moved.difference(&seen.beyond).count() as u64 + moved.len() as u64,
                stored.keys().chain(&seen.beyond).collect::<BTreeSet<_>>().len() as u64);

            let changed = Hour::from_index(changed);
            if let Some(count) = stored.get_mut(&changed) {
                count.clicks += 1;
                let (report, moved) = judge(&part(position, stored.values().copied().collect()), &seen);
                prop_assert!(report.different == 1 || moved.contains(&changed));
                prop_assert!(!moved.contains(&changed) || seen.beyond.contains(&changed));
            }
        }
    }
}
