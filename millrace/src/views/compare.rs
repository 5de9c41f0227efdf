//! One partition of a store, compared with the log at the store's own position. Pure.
//!
//! The store is read first, then the log past that position, so that every record in the store was read from the log or was
//! replaced, by compaction, by one beyond the position. A count is compared only if the log has no record of its hour beyond:
//! otherwise it changed since, and is compared again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use millrace_contracts::{Hour, HourlyCount};
use millrace_store::PartitionSnapshot;

use super::report::StoreReport;

/// The log of one partition, relative to a position.
#[derive(Debug, Default)]
pub(super) struct LogCounts {
    /// The newest count of each hour below the position.
    below: BTreeMap<Hour, HourlyCount>,
    /// Hours with a record at or beyond it.
    beyond: BTreeSet<Hour>,
}

impl LogCounts {
    /// Adds a record of the log, in any order.
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

/// Compares the counts of `part` in `hours`, only those in `wanted` if given. Returns the hours that changed since.
pub(super) fn compare(
    part: &PartitionSnapshot,
    logged: &LogCounts,
    hours: &Range<Hour>,
    wanted: Option<&BTreeSet<Hour>>,
    report: &mut StoreReport,
) -> BTreeSet<Hour> {
    let stored: BTreeMap<Hour, HourlyCount> = part.counts.iter().map(|count| (count.hour, *count)).collect();
    let all: BTreeSet<Hour> = stored.keys().chain(logged.below.keys()).chain(&logged.beyond).copied().collect();
    let mut moved = BTreeSet::new();
    for hour in all {
        if !hours.contains(&hour) || wanted.is_some_and(|wanted| !wanted.contains(&hour)) {
            continue;
        }
        let (log, store) = (logged.below.get(&hour).copied(), stored.get(&hour).copied());
        if log.is_some() && log == store {
            report.equal += 1;
        } else if logged.beyond.contains(&hour) {
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

    fn part(position: u64, counts: Vec<HourlyCount>) -> PartitionSnapshot {
        PartitionSnapshot { partition: 0, position: Some(position), complete: true, counts }
    }

    fn compare_all(part: &PartitionSnapshot, logged: &LogCounts) -> (StoreReport, BTreeSet<Hour>) {
        let mut report = StoreReport::default();
        let hours = Hour::from_index(0)..Hour::from_index(100);
        let moved = compare(part, logged, &hours, None, &mut report);
        (report, moved)
    }

    #[test]
    fn reports_every_kind_of_difference() {
        let mut logged = LogCounts::default();
        for (offset, count) in (0..).zip([count(1, 1, 5), count(2, 2, 6), count(3, 3, 7), count(3, 9, 9)]) {
            logged.add(10, offset, count);
        }
        let stored = vec![count(1, 1, 5), count(3, 9, 8), count(4, 4, 4)];
        let (report, moved) = compare_all(&part(10, stored), &logged);
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
        /// A store that equals the fold of the log up to its position never differs, whatever compaction removed and however far
        /// the log continues; one changed number is found, unless its hour changed since.
        #[test]
        fn reports_exactly_the_differences(
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
            let mut logged = LogCounts::default();
            for (offset, record) in records.iter().enumerate() {
                let replaced = records[offset + 1..].iter().any(|later| later.hour == record.hour);
                if offset >= compacted || !replaced {
                    logged.add(position, offset as u64, *record);
                }
            }
            let (report, moved) = compare_all(&part(position, stored.values().copied().collect()), &logged);
            prop_assert_eq!(report.different, 0);
            prop_assert_eq!(report.equal + moved.difference(&logged.beyond).count() as u64 + moved.len() as u64,
                stored.keys().chain(&logged.beyond).collect::<BTreeSet<_>>().len() as u64);

            let changed = Hour::from_index(changed);
            if let Some(count) = stored.get_mut(&changed) {
                count.clicks += 1;
                let (report, moved) = compare_all(&part(position, stored.values().copied().collect()), &logged);
                prop_assert!(report.different == 1 || moved.contains(&changed));
                prop_assert!(!moved.contains(&changed) || logged.beyond.contains(&changed));
            }
        }
    }
}
