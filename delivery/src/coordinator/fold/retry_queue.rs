//! The messages of a subscription that are in retry, by offset and by time.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use millrace_contracts::topics::Retry;

/// Messages in retry, by offset. A look at those that are due, or to be given up, costs no more than their number.
#[derive(Debug, Clone, Default)]
pub(crate) struct RetryQueue {
    entries: BTreeMap<i64, Retry>,
    /// `None` while nothing is in retry, as in most of very many subscriptions.
    orders: Option<Box<Orders>>,
}

/// The offsets of the messages in other orders.
#[derive(Debug, Clone, Default)]
struct Orders {
    /// As (when it is handed out again in ms since the epoch, offset).
    time: BTreeSet<(i64, i64)>,
    /// As (failed attempts, offset).
    attempts: BTreeSet<(u32, i64)>,
    /// As (whether an attempt failed, when it began in ms since the epoch, offset).
    begin: BTreeSet<(bool, i64, i64)>,
    /// As (status of the last attempt, offset).
    status: BTreeSet<(u16, i64)>,
    /// As (hash of the key, offset).
    key: BTreeSet<(u64, i64)>,
}

static EMPTY: Orders = Orders {
    time: BTreeSet::new(),
    attempts: BTreeSet::new(),
    begin: BTreeSet::new(),
    status: BTreeSet::new(),
    key: BTreeSet::new(),
};

impl Deref for RetryQueue {
    type Target = BTreeMap<i64, Retry>;

    fn deref(&self) -> &Self::Target {
        &self.entries
    }
}

impl RetryQueue {
    pub(crate) fn insert(&mut self, offset: i64, retry: Retry) {
        self.remove(offset);
        let orders = self.orders.get_or_insert_with(Box::default);
        orders.time.insert((retry.next_ms, offset));
        orders.attempts.insert((retry.attempts, offset));
        orders.begin.insert((retry.attempts > 0, retry.first_ms, offset));
        orders.status.extend(status_of(&retry).map(|status| (status, offset)));
        orders.key.extend(retry.key_hash.map(|key| (key, offset)));
        self.entries.insert(offset, retry);
    }

    pub(crate) fn remove(&mut self, offset: i64) {
        let Some(retry) = self.entries.remove(&offset) else { return };
        if self.entries.is_empty() {
            self.orders = None;
        }
        let Some(orders) = &mut self.orders else { return };
        orders.time.remove(&(retry.next_ms, offset));
        orders.attempts.remove(&(retry.attempts, offset));
        orders.begin.remove(&(retry.attempts > 0, retry.first_ms, offset));
        if let Some(status) = status_of(&retry) {
            orders.status.remove(&(status, offset));
        }
        if let Some(key) = retry.key_hash {
            orders.key.remove(&(key, offset));
        }
    }

    fn orders(&self) -> &Orders {
        self.orders.as_deref().unwrap_or(&EMPTY)
    }

    /// Messages with at least so many failed attempts.
    pub(crate) fn with_attempts(&self, min: u32) -> impl Iterator<Item = i64> {
        self.orders().attempts.range((min, i64::MIN)..).map(|(_, offset)| *offset)
    }

    /// Messages that entered retry at this time or before, ms since the epoch: those with a failed attempt, or those without.
    pub(crate) fn begun_by(&self, attempted: bool, ms: i64) -> impl Iterator<Item = i64> {
        let begun = self.orders().begin.range((attempted, i64::MIN, i64::MIN)..=(attempted, ms, i64::MAX));
        begun.map(|(_, _, offset)| *offset)
    }

    /// When the oldest message entered retry, ms since the epoch: of those with a failed attempt, or of those without.
    pub(crate) fn first_begun(&self, attempted: bool) -> Option<i64> {
        let begun = (attempted, i64::MIN, i64::MIN)..=(attempted, i64::MAX, i64::MAX);
        self.orders().begin.range(begun).next().map(|(_, ms, _)| *ms)
    }

    /// When the oldest message of all entered retry, ms since the epoch.
    pub(crate) fn oldest_ms(&self) -> Option<i64> {
        [false, true].into_iter().filter_map(|attempted| self.first_begun(attempted)).min()
    }

    /// Whether a message with this key stands before an offset.
    pub(crate) fn holds_key(&self, key_hash: u64, before: i64) -> bool {
        self.orders().key.range((key_hash, i64::MIN)..(key_hash, before)).next().is_some()
    }

    /// Messages whose last attempt ended with this status.
    pub(crate) fn with_status(&self, status: u16) -> impl Iterator<Item = i64> {
        self.orders().status.range((status, i64::MIN)..=(status, i64::MAX)).map(|(_, offset)| *offset)
    }

    /// Messages that are due, the earliest first.
    pub(crate) fn due(&self, now_ms: i64) -> impl Iterator<Item = i64> {
        self.orders().time.range(..=(now_ms, i64::MAX)).map(|(_, offset)| *offset)
    }

    /// When the first message that is not due will be.
    pub(crate) fn next_ms(&self, now_ms: i64) -> Option<i64> {
        let later = (std::ops::Bound::Excluded((now_ms, i64::MAX)), std::ops::Bound::Unbounded);
        self.orders().time.range(later).next().map(|(ms, _)| *ms)
    }

    /// When the first message of all is due.
    pub(crate) fn first_ms(&self) -> Option<i64> {
        self.orders().time.first().map(|(ms, _)| *ms)
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
        let key_hash = (next_ms % 3 > 0).then_some(next_ms.cast_unsigned() % 3);
        Retry { range, attempts, next_ms, first_ms, key_hash, last, redrive: None, letter: None }
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
            let first = |attempted: bool| {
                let begun = queue.values().filter(|retry| (retry.attempts > 0) == attempted);
                begun.map(|retry| retry.first_ms).min()
            };
            prop_assert_eq!((queue.first_begun(false), queue.first_begun(true)), (first(false), first(true)));
            prop_assert_eq!(queue.oldest_ms(), queue.values().map(|retry| retry.first_ms).min());
            for key in 0..3 {
                let before = |retry: &Retry| retry.key_hash == Some(key) && retry.range.offset < 10;
                prop_assert_eq!(queue.holds_key(key, 10), queue.values().any(before));
            }
            for status in 499..504 {
                prop_assert_eq!(sorted(queue.with_status(status)), scan(&|retry| status_of(retry) == Some(status)));
            }
        }
    }
}
