//! The keyspaces of the log, and the partitions in them.
//!
//! `meta` has the layout version, the number of partitions, the start and end of each partition, the stages' input
//! positions, the commit counter, the id of the log, and the list of topics that were created. `log.{topic}.{p}` has the records of a
//! partition by offset; for a compacted topic, `latest.{topic}.{p}` has its newest record of each key that is not
//! deleted. Keyspaces named `view.*` belong to the read models.

use std::ops::Range;

use fjall::config::CompressionPolicy;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions};
use millrace_contracts::{Cleanup, Partitions, Topic};
use uuid::Uuid;

use super::partition::Partition;
use super::wait::EndSignal;
use super::{EmbeddedConfig, codec, damaged};
use crate::LogError;
use crate::topics::{DeclaredTopic, Topics};

/// The prefix of the keyspaces of read models.
pub(super) const VIEW: &str = "view.";
const VERSION: u64 = 1;
/// The configured number of partitions.
const PARTITIONS: &str = "partitions";
/// The names of the topics that were created, separated by newlines.
const CREATED: &str = "topics";
/// The id of the log: it differs from that of every other directory.
const ID: &str = "id";
/// The topics of a directory from before that list.
const FIRST_TOPICS: &str = "analytics.events\nanalytics.state\nanalytics.hourly";
/// The number of commits; the journals are checked against it (`guard`).
pub(super) const COMMITS: &[u8] = b"millrace.commits";

pub(super) struct Layout {
    pub(super) meta: Keyspace,
    /// By topic in the order of the table, then by number.
    partitions: Vec<Partition>,
    topics: Vec<TopicPartitions>,
    pub(super) commits: u64,
    pub(super) id: String,
}

/// The partitions of one topic.
pub(super) struct TopicPartitions {
    name: &'static str,
    /// Their indexes in [`Layout::all`].
    pub(super) indexes: Range<usize>,
    /// Signals that their ends moved. Each topic has its own, so that its readers wake for no other.
    pub(super) ends: EndSignal,
}

/// The key of a stage's input position in `meta`.
pub(super) fn input_key(role: &str, topic: Topic, partition: u32) -> String {
    format!("input/{role}/{}/{partition}", topic.name)
}

/// The key in `meta` of the copy of a read model that a sink's role last wrote.
pub(super) fn copy_key(role: &str, topic: Topic, partition: u32) -> String {
    format!("copy/{role}/{}/{partition}", topic.name)
}

/// The key of a topic's number of partitions in `meta`.
fn partitions_key(topic: Topic) -> String {
    format!("{PARTITIONS}/{}", topic.name)
}

impl Layout {
    /// Opens the keyspaces; creates those of topics that are new in this directory.
    pub(super) fn open(
        database: &Database,
        config: &EmbeddedConfig,
        topics: &Topics,
        new: bool,
    ) -> Result<Self, LogError> {
        let options = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(config.memtable_size.0)
                .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
        };
        let keyspace = |name: &str, new: bool| {
            if !new && !database.keyspace_exists(name) {
                return Err(LogError::damaged(format!("{}: keyspace {name} is missing", config.directory.display())));
            }
            database.keyspace(name, options).map_err(|error| damaged(&config.directory, name, error))
        };
        let meta = keyspace("meta", new)?;
        let stored = |key: &str| read_number(&meta, key.as_bytes());
        let version = stored("version")?;
        if version.is_some_and(|version| version != VERSION) {
            return Err(LogError::refused(format!("{} has a layout of another version", config.directory.display())));
        }
        if !new && version.is_none() {
            return Err(LogError::damaged(format!("{}: the layout is missing in meta", config.directory.display())));
        }
        // A directory may be new and have topics all the same: nothing was appended to them yet.
        let before_lists = if new { "" } else { FIRST_TOPICS };
        let created = read_text(&meta, CREATED)?.unwrap_or_else(|| before_lists.into());
        let is_created = |topic: Topic| created.lines().any(|name| name == topic.name);
        for declared in topics.iter().filter(|declared| is_created(declared.topic)) {
            // A directory from before topics had numbers of their own has one for all.
            let found = match stored(&partitions_key(declared.topic))? {
                Some(found) => Some(found),
                None => stored(PARTITIONS)?,
            };
            if let Some(found) = found
                && found != u64::from(declared.partitions)
            {
                return Err(other_partitions(config, declared, found));
            }
        }
        let (mut partitions, mut of_topics) = (Vec::new(), Vec::new());
        for declared in topics.iter() {
            let (topic, new) = (declared.topic, !is_created(declared.topic));
            let indexes = partitions.len()..partitions.len() + declared.partitions as usize;
            of_topics.push(TopicPartitions { name: topic.name, indexes, ends: EndSignal::default() });
            for number in 0..declared.partitions {
                let log = keyspace(&format!("log.{}.{number}", topic.name), new)?;
                let latest = match topic.cleanup {
                    Cleanup::Compact => Some(keyspace(&format!("latest.{}.{number}", topic.name), new)?),
                    Cleanup::Delete { .. } => None,
                };
                let partition = Partition::new(topic, number, log, latest);
                partition.set_start(stored(&partition.start_key())?.unwrap_or(0));
                partition.set_end(stored(&partition.end_key())?.unwrap_or(0));
                partition.check()?;
                partitions.push(partition);
            }
        }
        // A directory from before ids gets one.
        let known = read_text(&meta, ID)?;
        let is_known = known.is_some();
        let id = known.unwrap_or_else(|| Uuid::now_v7().simple().to_string());
        if version.is_none() || !is_known || !topics.iter().all(|declared| is_created(declared.topic)) {
            let declared = topics.iter().map(|declared| declared.topic.name);
            // Topics of a newer version that ran here before remain in the list.
            let others = created.lines().filter(|name| topics.iter().all(|declared| declared.topic.name != *name));
            let names: Vec<&str> = declared.chain(others).collect();
            let mut batch = database.batch().durability(Some(fjall::PersistMode::SyncAll));
            batch.insert(&meta, "version", VERSION.to_be_bytes());
            batch.insert(&meta, ID, id.as_str());
            batch.insert(&meta, PARTITIONS, u64::from(config.partitions).to_be_bytes());
            for declared in topics.iter() {
                batch.insert(&meta, partitions_key(declared.topic), u64::from(declared.partitions).to_be_bytes());
            }
            batch.insert(&meta, CREATED, names.join("\n"));
            batch.commit().map_err(|error| damaged(meta.path(), "meta", error))?;
        }
        let commits = read_number(&meta, COMMITS)?.unwrap_or(0);
        Ok(Self { meta, partitions, topics: of_topics, commits, id })
    }

    pub(super) fn all(&self) -> &[Partition] {
        &self.partitions
    }

    /// A topic's partitions, by number; none if it does not exist.
    pub(super) fn of(&self, topic: Topic) -> impl Iterator<Item = &Partition> {
        self.topic(topic).into_iter().flat_map(|of_topic| &self.partitions[of_topic.indexes.clone()])
    }

    /// Every keyspace of the log, and those of read models that exist, as (folder, name).
    pub(super) fn keyspaces(&self, database: &Database) -> Result<Vec<(u64, String)>, LogError> {
        let partitions = self.partitions.iter().flat_map(|one| std::iter::once(&one.log).chain(&one.latest));
        let mut keyspaces: Vec<Keyspace> = std::iter::once(&self.meta).chain(partitions).cloned().collect();
        for name in database.list_keyspace_names().iter().filter(|name| name.starts_with(VIEW)) {
            let view = database.keyspace(name, KeyspaceCreateOptions::default);
            keyspaces.push(view.map_err(|error| damaged(self.meta.path(), name, error))?);
        }
        Ok(keyspaces.iter().map(|keyspace| (keyspace.id(), keyspace.name().to_string())).collect())
    }

    /// The index of a partition in [`Layout::all`]; `None` if it does not exist.
    pub(super) fn index(&self, topic: Topic, partition: u32) -> Option<usize> {
        let indexes = &self.topic(topic)?.indexes;
        indexes.clone().nth(partition as usize)
    }

    pub(super) fn topics(&self) -> &[TopicPartitions] {
        &self.topics
    }

    /// A topic's partitions; `None` if it does not exist.
    pub(super) fn topic(&self, topic: Topic) -> Option<&TopicPartitions> {
        self.topics.iter().find(|partitions| partitions.name == topic.name)
    }

    pub(super) fn get(&self, topic: Topic, partition: u32) -> Result<&Partition, LogError> {
        let unknown = || LogError::refused(format!("{}/{partition} does not exist", topic.name));
        self.index(topic, partition).map(|index| &self.partitions[index]).ok_or_else(unknown)
    }
}

fn other_partitions(config: &EmbeddedConfig, declared: &DeclaredTopic, found: u64) -> LogError {
    let (directory, topic) = (config.directory.display(), declared.topic.name);
    let expected = match declared.topic.partitions {
        Partitions::Configured => format!("embedded.partitions is {}", declared.partitions),
        Partitions::Fixed(count) => format!("it must have {count}"),
    };
    let unit = if found == 1 { "partition" } else { "partitions" };
    LogError::refused(format!(
        "{topic} in {directory} has {found} {unit}, and {expected}: users would be counted in two places"
    ))
}

fn read_text(meta: &Keyspace, key: &str) -> Result<Option<String>, LogError> {
    let value = meta.get(key).map_err(|error| damaged(meta.path(), "meta", error))?;
    let lost = |error| LogError::damaged(format!("meta: {key} is not text")).because(error);
    value.map(|value| String::from_utf8(value.to_vec()).map_err(lost)).transpose()
}

pub(super) fn read_number(meta: &Keyspace, key: &[u8]) -> Result<Option<u64>, LogError> {
    let value = meta.get(key).map_err(|error| damaged(meta.path(), "meta", error))?;
    let lost = || LogError::damaged(format!("meta: {} is not a number", String::from_utf8_lossy(key)));
    value.map(|value| codec::number(&value).ok_or_else(lost)).transpose()
}
