//! The keyspaces, and where each partition begins and ends.
//!
//! `meta` holds the layout version, the number of partitions, where each partition begins and ends, the stages' input
//! positions, the commit counter, and which topics were made. `log.{topic}.{p}` holds a partition's records by offset, and for a compacted topic
//! `latest.{topic}.{p}` its newest record of each key that is not deleted. Keyspaces named `view.*` are the read models'.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use fjall::config::CompressionPolicy;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions};
use millrace_contracts::{Cleanup, TOPICS, Topic};

use super::{EmbeddedConfig, codec, damaged};
use crate::LogError;

const VERSION: u64 = 1;
/// Names of the topics whose keyspaces were made, with newlines between.
const MADE: &str = "topics";
/// The topics of a directory from before there was a list of them.
const FIRST_TOPICS: &str = "analytics.events\nanalytics.state\nanalytics.hourly";
/// Counts the commits; the journals are held against it (`guard`).
pub(super) const COMMITS: &[u8] = b"millrace.commits";

pub(super) struct Layout {
    pub(super) meta: Keyspace,
    /// By topic in the order of [`TOPICS`], then by partition.
    partitions: Vec<Partition>,
    per_topic: u32,
    pub(super) commits: u64,
}

pub(super) struct Partition {
    pub(super) topic: Topic,
    pub(super) number: u32,
    pub(super) log: Keyspace,
    pub(super) latest: Option<Keyspace>,
    start: AtomicU64,
    /// The end that readers see: everything before it is synced.
    end: AtomicU64,
}

impl Partition {
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

    pub(super) fn start_key(&self) -> String {
        format!("start/{}/{}", self.topic.name, self.number)
    }

    pub(super) fn end_key(&self) -> String {
        format!("end/{}/{}", self.topic.name, self.number)
    }

    pub(super) fn shown(&self) -> String {
        format!("{}/{}", self.topic.name, self.number)
    }
}

/// The key of a stage's input position.
pub(super) fn input_key(role: &str, topic: Topic, partition: u32) -> String {
    format!("input/{role}/{}/{partition}", topic.name)
}

impl Layout {
    /// Opens the keyspaces, and makes those of topics that this directory never had.
    pub(super) fn open(database: &Database, config: &EmbeddedConfig, new: bool) -> Result<Self, LogError> {
        let options = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(config.memtable_size.0)
                .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
        };
        let keyspace = |name: &str, new: bool| {
            if !new && !database.keyspace_exists(name) {
                return Err(LogError::Damaged(format!("{}: keyspace {name} is gone", config.directory.display())));
            }
            database.keyspace(name, options).map_err(|error| damaged(&config.directory, name, &error))
        };
        let meta = keyspace("meta", new)?;
        let stored = |key: &str| read_number(&meta, key.as_bytes());
        let (per_topic, version) = (u64::from(config.partitions), stored("version")?);
        if version.is_some_and(|version| version != VERSION) {
            return Err(LogError::Refused(format!("{} has a layout of another version", config.directory.display())));
        }
        if let Some(found) = stored("partitions")?
            && found != per_topic
        {
            let (directory, topic) = (config.directory.display(), TOPICS[0].name);
            let why = format!(
                "{topic} and the other topics in {directory} have {found} partitions, and embedded.partitions is \
                 {per_topic}: users would be counted in two places"
            );
            return Err(LogError::Refused(why));
        }
        if !new && version.is_none() {
            return Err(LogError::Damaged(format!("{}: the layout is gone from meta", config.directory.display())));
        }
        let made = if new { String::new() } else { read_text(&meta, MADE)?.unwrap_or_else(|| FIRST_TOPICS.into()) };
        let mut partitions = Vec::new();
        for topic in TOPICS {
            let new = !made.lines().any(|name| name == topic.name);
            for number in 0..config.partitions {
                let log = keyspace(&format!("log.{}.{number}", topic.name), new)?;
                let latest = match topic.cleanup {
                    Cleanup::Compact => Some(keyspace(&format!("latest.{}.{number}", topic.name), new)?),
                    Cleanup::Delete { .. } => None,
                };
                let (start, end) = (AtomicU64::new(0), AtomicU64::new(0));
                let partition = Partition { topic, number, log, latest, start, end };
                partition.set_start(stored(&partition.start_key())?.unwrap_or(0));
                partition.set_end(stored(&partition.end_key())?.unwrap_or(0));
                partition.check()?;
                partitions.push(partition);
            }
        }
        let mut known = TOPICS.map(|topic| topic.name).to_vec();
        // A topic of a newer version that ran here before stays known.
        known.extend(made.lines().filter(|name| TOPICS.iter().all(|topic| topic.name != *name)));
        if version.is_none() || known.iter().any(|name| made.lines().all(|made| made != *name)) {
            let mut batch = database.batch().durability(Some(fjall::PersistMode::SyncAll));
            batch.insert(&meta, "version", VERSION.to_be_bytes());
            batch.insert(&meta, "partitions", per_topic.to_be_bytes());
            batch.insert(&meta, MADE, known.join("\n"));
            batch.commit().map_err(|error| damaged(meta.path(), "meta", &error))?;
        }
        let commits = read_number(&meta, COMMITS)?.unwrap_or(0);
        Ok(Self { meta, partitions, per_topic: config.partitions, commits })
    }

    pub(super) fn all(&self) -> &[Partition] {
        &self.partitions
    }

    /// A topic's partitions, by number.
    pub(super) fn of(&self, topic: Topic) -> impl Iterator<Item = &Partition> {
        self.partitions.iter().filter(move |partition| partition.topic.name == topic.name)
    }

    /// Every keyspace of the log, as (folder, name).
    pub(super) fn keyspaces(&self) -> impl Iterator<Item = (u64, String)> {
        let held = self.partitions.iter().flat_map(|held| std::iter::once(&held.log).chain(&held.latest));
        std::iter::once(&self.meta).chain(held).map(|keyspace| (keyspace.id(), keyspace.name().to_string()))
    }

    pub(super) fn index(&self, topic: Topic, partition: u32) -> Option<usize> {
        let topic = TOPICS.iter().position(|declared| declared.name == topic.name)?;
        (partition < self.per_topic).then(|| topic * self.per_topic as usize + partition as usize)
    }

    pub(super) fn get(&self, topic: Topic, partition: u32) -> Result<&Partition, LogError> {
        let unknown = || LogError::Refused(format!("{}/{partition} does not exist", topic.name));
        self.index(topic, partition).map(|index| &self.partitions[index]).ok_or_else(unknown)
    }
}

impl Partition {
    /// What is there must end where `meta` says it ends, and the newest records of keys must be no older than the log's:
    /// a journal that vanished as a whole shows here.
    fn check(&self) -> Result<(), LogError> {
        let (start, end) = (self.start(), self.end());
        let path = self.log.path().display();
        let last = match self.log.last_key_value() {
            None => None,
            Some(guard) => Some(guard.key().map_err(|error| damaged(self.log.path(), &self.shown(), &error))?),
        };
        let found = last.and_then(|key| codec::number(&key)).map_or(start, |last| (last + 1).max(start));
        if found != end {
            let why = format!(
                "{path}: {} ends at {found}, {end} was committed: {} records lost",
                self.shown(),
                end.abs_diff(found)
            );
            return Err(LogError::Damaged(why));
        }
        let Some(latest) = &self.latest else { return Ok(()) };
        // Backwards: a key whose newest record is a tombstone is not in `latest`, and need not be for its older ones.
        let mut deleted = HashSet::new();
        for guard in self.log.range(start.to_be_bytes()..).rev() {
            let (offset, value) =
                guard.into_inner().map_err(|error| damaged(self.log.path(), &self.shown(), &error))?;
            let record = codec::number(&offset).and_then(|offset| codec::decode(offset, &value));
            let Some(record) = record else { return Err(self.broken("a record", start)) };
            let key = latest_key(record.key);
            let newest = latest.get(&key).map_err(|error| damaged(latest.path(), &self.shown(), &error))?;
            let newest = newest.map(|value| value.get(..8).and_then(codec::number));
            let whole = match newest {
                Some(newest) => newest.is_some_and(|newest| (record.offset..end).contains(&newest)),
                None => deleted.contains(&key) || record.value.is_none() && deleted.insert(key),
            };
            if !whole {
                let path = latest.path().display();
                let why = format!("{path}: the newest record of a key, {}@{}, is lost", self.shown(), record.offset);
                return Err(LogError::Damaged(why));
            }
        }
        Ok(())
    }

    /// An error that says where bytes are not what was written.
    pub(super) fn broken(&self, what: &str, offset: u64) -> LogError {
        LogError::Damaged(format!("{}: {what} of {}@{offset} is lost", self.log.path().display(), self.shown()))
    }
}

/// A record's key in a `latest` keyspace; never empty, which fjall would not take.
pub(super) fn latest_key(key: &[u8]) -> Vec<u8> {
    let mut tagged = Vec::with_capacity(key.len() + 1);
    tagged.push(b'k');
    tagged.extend_from_slice(key);
    tagged
}

fn read_text(meta: &Keyspace, key: &str) -> Result<Option<String>, LogError> {
    let value = meta.get(key).map_err(|error| damaged(meta.path(), "meta", &error))?;
    let lost = |_| LogError::Damaged(format!("meta: {key} is no text"));
    value.map(|value| String::from_utf8(value.to_vec()).map_err(lost)).transpose()
}

pub(super) fn read_number(meta: &Keyspace, key: &[u8]) -> Result<Option<u64>, LogError> {
    let value = meta.get(key).map_err(|error| damaged(meta.path(), "meta", &error))?;
    let lost = || LogError::Damaged(format!("meta: {} is no number", String::from_utf8_lossy(key)));
    value.map(|value| codec::number(&value).ok_or_else(lost)).transpose()
}
