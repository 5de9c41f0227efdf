//! The messages of a subscription that are in retry, by offset and by time.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use millrace_contracts::topics::Retry;

/// Messages in retry, by offset. A look at those that are due, or to be given up, costs no more than their number.
#[derive(Debug, Clone, Default)]
pub(crate) struct RetryQueue {
    entries: BTreeMap<i64, Retry>,
    /// As (when it is handed out again in ms since the epoch, offset).
    by_time: BTreeSet<(i64, i64)>,
    /// As (failed attempts, offset).
    by_attempts: BTreeSet<(u32, i64)>,
    /// As (whether an attempt failed, when it began in ms since the epoch, offset).
    by_begin: BTreeSet<(bool, i64, i64)>,
    /// As (status of the last attempt, offset).
    by_status: BTreeSet<(u16, i64)>,
}

impl Deref for RetryQueue {
    type Target = BTreeMap<i64, Retry>;

    fn deref(&self) -> &Self::Target {
        &self.entries
    }
}

impl RetryQueue {
    pub(crate) fn insert(&mut self, offset: i64, retry: Retry) {
        self.remove(offset);
        self.by_time.insert((retry.next_ms, offset));
        self.by_attempts.insert((retry.attempts, offset));
        self.by_begin.insert((retry.attempts > 0, retry.first_ms, offset));
        self.by_status.extend(status_of(&retry).map(|status| (status, offset)));
        self.entries.insert(offset, retry);
    }

    pub(crate) fn remove(&mut self, offset: i64) {
        if let Some(retry) = self.entries.remove(&offset) {
            self.by_time.remove(&(retry.next_ms, offset));
            self.by_attempts.remove(&(retry.attempts, offset));
            self.by_begin.remove(&(retry.attempts > 0, retry.first_ms, offset));
            if let Some(status) = status_of(&retry) {
                self.by_status.remove(&(status, offset));
            }
        }
    }

    /// Messages with at least so many failed attempts.
    pub(crate) fn with_attempts(&self, min: u32) -> impl Iterator<Item = i64> {
        self.by_attempts.range((min, i64::MIN)..).map(|(_, offset)| *offset)
    }

    /// Messages that entered retry at this time or before, ms since the epoch: those with a failed attempt, or those without.
    pub(crate) fn begun_by(&self, attempted: bool, ms: i64) -> impl Iterator<Item = i64> {
        let begun = self.by_begin.range((attempted, i64::MIN, i64::MIN)..=(attempted, ms, i64::MAX));
        begun.map(|(_, _, offset)| *offset)
    }

    /// Messages whose last attempt ended with this status.
    pub(crate) fn with_status(&self, status: u16) -> impl Iterator<Item = i64> {
        self.by_status.range((status, i64::MIN)..=(status, i64::MAX)).map(|(_, offset)| *offset)
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

fn status_of(retry: &Retry) -> Option<u16> {
    retry.last.and_then(|last| last.status)
}

#[cfg(test)]
mod tests {
    use millrace_contracts::topics::{AttemptError, AttemptFailure, SettledRange};
    use proptest::prelude::*;

    use super::*;

    /// Every field that the queue looks at follows from one number.
    fn retry(offset: i64, next_ms: i64) -> Retry {
        let range = SettledRange { after: offset - 1, offset, ordinal_after: 0, ordinal: 1 };
        let attempts = u32::try_from(next_ms % 4).unwrap();
        let status = (next_ms % 2 == 1).then_some(500 + u16::try_from(next_ms % 3).unwrap());
        let last = (attempts > 0).then_some(AttemptFailure { at_ms: next_ms, error: AttemptError::HttpStatus, status });
        let first_ms = next_ms / 2;
        Retry { range, attempts, next_ms, first_ms, key_hash: None, last, redrive: None, letter: None }
    }

    fn sorted(offsets: impl Iterator<Item = i64>) -> Vec<i64> {
        let mut offsets: Vec<i64> = offsets.collect();
        offsets.sort_unstable();
        offsets
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
            let scan = |is: &dyn Fn(&Retry) -> bool| {
                sorted(queue.values().filter(|retry| is(retry)).map(|retry| retry.range.offset))
            };
            for attempts in 0..5 {
                prop_assert_eq!(sorted(queue.with_attempts(attempts)), scan(&|retry| retry.attempts >= attempts));
            }
            for attempted in [false, true] {
                let begun = scan(&|retry| (retry.attempts > 0) == attempted && retry.first_ms <= now_ms);
                prop_assert_eq!(sorted(queue.begun_by(attempted, now_ms)), begun);
            }
            for status in 499..504 {
                prop_assert_eq!(sorted(queue.with_status(status)), scan(&|retry| status_of(retry) == Some(status)));
            }
        }
    }
}
