//! The messages of a subscription that are in retry, by offset and by time.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use millrace_contracts::topics::Retry;

/// Messages in retry, by offset. A look at those that are due costs no more than their number.
#[derive(Debug, Clone, Default)]
pub(crate) struct RetryQueue {
    by_offset: BTreeMap<i64, Retry>,
    /// As (when it is handed out again in ms since the epoch, offset).
    by_time: BTreeSet<(i64, i64)>,
}

impl Deref for RetryQueue {
    type Target = BTreeMap<i64, Retry>;

    fn deref(&self) -> &Self::Target {
        &self.by_offset
    }
}

impl RetryQueue {
    pub(crate) fn insert(&mut self, offset: i64, retry: Retry) {
        self.remove(offset);
        self.by_time.insert((retry.next_ms, offset));
        self.by_offset.insert(offset, retry);
    }

    pub(crate) fn remove(&mut self, offset: i64) {
        if let Some(retry) = self.by_offset.remove(&offset) {
            self.by_time.remove(&(retry.next_ms, offset));
        }
    }

    /// Messages that are due, the earliest first.
    pub(crate) fn due(&self, now_ms: i64) -> impl Iterator<Item = i64> {
        self.by_time.range(..=(now_ms, i64::MAX)).map(|(_, offset)| *offset)
    }

    /// When the first message that is not due will be.
    pub(crate) fn next_ms(&self, now_ms: i64) -> Option<i64> {
        let later = (std::ops::Bound::Excluded((now_ms, i64::MAX)), std::ops::Bound::Unbounded);
        self.by_time.range(later).next().map(|(ms, _)| *ms)
    }

    /// When the first message of all is due.
    pub(crate) fn first_ms(&self) -> Option<i64> {
        self.by_time.first().map(|(ms, _)| *ms)
    }
}

#[cfg(test)]
mod tests {
    use millrace_contracts::topics::SettledRange;
    use proptest::prelude::*;

    use super::*;

    fn retry(offset: i64, next_ms: i64) -> Retry {
        let range = SettledRange { after: offset - 1, offset, ordinal_after: 0, ordinal: 1 };
        Retry { range, attempts: 0, next_ms, first_ms: 0, key_hash: None, last: None, redrive: None, letter: None }
    }

    proptest! {
        #[test]
        fn equals_a_scan_of_all(changes in proptest::collection::vec((0..20_i64, proptest::option::of(0..10_i64)), 0..60), now_ms in 0..10_i64) {
            let (mut queue, mut model) = (RetryQueue::default(), BTreeMap::new());
            for (offset, next_ms) in changes {
                if let Some(next_ms) = next_ms {
                    queue.insert(offset, retry(offset, next_ms));
                    model.insert(offset, next_ms);
                } else {
                    queue.remove(offset);
                    model.remove(&offset);
                }
            }
            prop_assert_eq!(queue.keys().collect::<Vec<_>>(), model.keys().collect::<Vec<_>>());
            let mut due: Vec<(i64, i64)> =
                model.iter().filter(|(_, ms)| **ms <= now_ms).map(|(offset, ms)| (*ms, *offset)).collect();
            due.sort_unstable();
            prop_assert_eq!(queue.due(now_ms).collect::<Vec<_>>(), due.iter().map(|(_, at)| *at).collect::<Vec<_>>());
            prop_assert_eq!(queue.next_ms(now_ms), model.values().copied().filter(|ms| *ms > now_ms).min());
            prop_assert_eq!(queue.first_ms(), model.values().copied().min());
        }
    }
}
