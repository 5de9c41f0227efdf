//! One partition: its keyspaces, its bounds, and the check that nothing of it is missing.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use fjall::Keyspace;
use millrace_contracts::Topic;

use super::{codec, damaged};
use crate::LogError;

pub(super) struct Partition {
    pub(super) topic: Topic,
    pub(super) number: u32,
    /// The records, by offset.
    pub(super) log: Keyspace,
    /// The newest record of each key that is not deleted, if the topic is compacted.
    pub(super) latest: Option<Keyspace>,
    start: AtomicU64,
    /// The end that readers see: everything before it is synced.
    end: AtomicU64,
}

impl Partition {
    pub(super) fn new(topic: Topic, number: u32, log: Keyspace, latest: Option<Keyspace>) -> Self {
        Self { topic, number, log, latest, start: AtomicU64::new(0), end: AtomicU64::new(0) }
    }

    pub(super) fn start(&self) -> u64 {
        self.start.load(Ordering::Acquire)
    }

    pub(super) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    pub(super) fn set_start(&self, start: u64) {
        self.start.store(start, Ordering::Release);
    }

    pub(super) fn set_end(&self, end: u64) {
        self.end.store(end, Ordering::Release);
    }

    /// The key of the start in `meta`.
    pub(super) fn start_key(&self) -> String {
        format!("start/{}/{}", self.topic.name, self.number)
    }

    /// The key of the end in `meta`.
    pub(super) fn end_key(&self) -> String {
        format!("end/{}/{}", self.topic.name, self.number)
    }

    /// The partition in messages.
    pub(super) fn shown(&self) -> String {
        format!("{}/{}", self.topic.name, self.number)
    }

    /// Checks that the records end where `meta` records the end, and that the newest records of keys are no older than
    /// the log's: this detects a journal that is missing as a whole.
    pub(super) fn check(&self) -> Result<(), LogError> {
        let (start, end) = (self.start(), self.end());
        let path = self.log.path().display();
        let last = match self.log.last_key_value() {
            None => None,
            Some(guard) => Some(guard.key().map_err(|error| damaged(self.log.path(), &self.shown(), error))?),
        };
        let found = last.and_then(|key| codec::number(&key)).map_or(start, |last| (last + 1).max(start));
        if found != end {
            return Err(LogError::damaged(format!(
                "{path}: {} ends at {found}, {end} was committed: {} records lost",
                self.shown(),
                end.abs_diff(found)
            )));
        }
        let Some(latest) = &self.latest else { return Ok(()) };
        // Backwards: a key whose newest record is a tombstone is not in `latest`, and older ones of it need not be.
        let mut deleted = HashSet::new();
        for guard in self.log.range(start.to_be_bytes()..).rev() {
            let (offset, value) = guard.into_inner().map_err(|error| damaged(self.log.path(), &self.shown(), error))?;
            let record = codec::number(&offset).and_then(|offset| codec::decode(offset, &value));
            let Some(record) = record else { return Err(self.broken("a record", start)) };
            let key = latest_key(record.key);
            let newest = latest.get(&key).map_err(|error| damaged(latest.path(), &self.shown(), error))?;
            let newest = newest.map(|value| value.get(..8).and_then(codec::number));
            let intact = match newest {
                Some(newest) => newest.is_some_and(|newest| (record.offset..end).contains(&newest)),
                None => deleted.contains(&key) || record.value.is_none() && deleted.insert(key),
            };
            if !intact {
                let path = latest.path().display();
                return Err(LogError::damaged(format!(
                    "{path}: the newest record of a key, {}@{}, is lost",
                    self.shown(),
                    record.offset
                )));
            }
        }
        Ok(())
    }

    /// An error for bytes that are not what was written.
    pub(super) fn broken(&self, what: &str, offset: u64) -> LogError {
        LogError::damaged(format!("{}: {what} of {}@{offset} is lost", self.log.path().display(), self.shown()))
    }
}

/// A record's key in a `latest` keyspace. Never empty, which fjall does not accept.
pub(super) fn latest_key(key: &[u8]) -> Vec<u8> {
    let mut tagged = Vec::with_capacity(key.len() + 1);
    tagged.push(b'k');
    tagged.extend_from_slice(key);
    tagged
}
