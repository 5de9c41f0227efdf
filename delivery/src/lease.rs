//! Leases: messages hidden from other readers for a while, in the coordinator's memory. A new coordinator knows none.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// One lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lease {
    /// Its number, never used twice by one coordinator.
    pub(crate) number: u64,
    /// When it ends, ms since the epoch.
    pub(crate) until_ms: i64,
    /// The key of its message.
    pub(crate) key_hash: Option<u64>,
}

/// The leases of one subscription, and how often its unacknowledged messages were handed out in vain.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    by_offset: BTreeMap<i64, Lease>,
    by_end: BTreeMap<(i64, u64), i64>,
    /// As (hash of the key, offset).
    by_key: BTreeSet<(u64, i64)>,
    /// Ended leases of messages that are not acknowledged yet.
    failures: HashMap<i64, u32>,
}

impl Leases {
    /// Whether nothing is known of any message.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_offset.is_empty() && self.failures.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_offset.len()
    }

    pub(crate) fn get(&self, offset: i64) -> Option<Lease> {
        self.by_offset.get(&offset).copied()
    }

    pub(crate) fn holds(&self, offset: i64) -> bool {
        self.by_offset.contains_key(&offset)
    }

    /// Leases of older messages with this key.
    pub(crate) fn blocks_key(&self, key_hash: u64, before: i64) -> bool {
        self.by_key.range((key_hash, i64::MIN)..(key_hash, before)).next().is_some()
    }

    /// How many leases of a message ended without an acknowledgement.
    pub(crate) fn failures(&self, offset: i64) -> u32 {
        self.failures.get(&offset).copied().unwrap_or_default()
    }

    pub(crate) fn insert(&mut self, offset: i64, lease: Lease) {
        self.remove(offset);
        self.by_end.insert((lease.until_ms, lease.number), offset);
        self.by_key.extend(lease.key_hash.map(|key| (key, offset)));
        self.by_offset.insert(offset, lease);
    }

    /// The message was acknowledged, or put into retry.
    pub(crate) fn settle(&mut self, offset: i64) {
        self.remove(offset);
        self.failures.remove(&offset);
    }

    /// Everything up to an offset was settled.
    pub(crate) fn settle_up_to(&mut self, offset: i64) {
        let settled: Vec<i64> = self.by_offset.range(..=offset).map(|(offset, _)| *offset).collect();
        for offset in settled {
            self.settle(offset);
        }
        self.failures.retain(|known, _| *known > offset);
    }

    fn remove(&mut self, offset: i64) -> Option<Lease> {
        let lease = self.by_offset.remove(&offset)?;
        self.by_end.remove(&(lease.until_ms, lease.number));
        if let Some(key) = lease.key_hash {
            self.by_key.remove(&(key, offset));
        }
        Some(lease)
    }

    /// Ends the leases that are over; whether there were any.
    pub(crate) fn expire(&mut self, now_ms: i64) -> bool {
        let mut ended = false;
        while let Some((&(until, _), &offset)) = self.by_end.first_key_value()
            && until <= now_ms
        {
            self.remove(offset);
            *self.failures.entry(offset).or_default() += 1;
            ended = true;
        }
        ended
    }

    /// When the next lease ends, ms since the epoch.
    pub(crate) fn next_end(&self) -> Option<i64> {
        self.by_end.first_key_value().map(|((until, _), _)| *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_hides_its_message_until_it_ends_and_counts_as_a_failure_then() {
        let mut leases = Leases::default();
        leases.insert(5, Lease { number: 1, until_ms: 100, key_hash: Some(7) });
        leases.insert(9, Lease { number: 2, until_ms: 50, key_hash: None });
        assert!(leases.holds(5) && leases.blocks_key(7, 6) && !leases.blocks_key(7, 5));
        assert_eq!(leases.next_end(), Some(50));
        assert!(leases.expire(50));
        assert_eq!((leases.failures(9), leases.failures(5)), (1, 0));
        leases.insert(5, Lease { number: 1, until_ms: 300, key_hash: Some(7) });
        assert!(!leases.expire(299));
        leases.settle_up_to(9);
        assert_eq!((leases.len(), leases.failures(9), leases.next_end()), (0, 0, None));
        assert!(leases.is_empty() && !leases.blocks_key(7, i64::MAX));
    }
}
