//! Directories of earlier versions: missing topics are created, lost ones refused.

use std::path::Path;

use fjall::{Database, PersistMode};
use millrace_contracts::{TOPICS, Topic};
use millrace_log::{EmbeddedConfig, LogError};

use crate::support;

/// The topics of the first version.
const FIRST: [Topic; 3] = [Topic::EVENTS, Topic::STATE, Topic::HOURLY];

/// Changes a closed directory directly by fjall.
fn change(config: &EmbeddedConfig, change: impl FnOnce(&Database)) {
    let database = Database::builder(&config.directory).open().unwrap();
    change(&database);
    database.persist(PersistMode::SyncAll).unwrap();
}

fn remove(database: &Database, topic: Topic) {
    for name in [format!("log.{}.0", topic.name), format!("latest.{}.0", topic.name)] {
        if database.keyspace_exists(&name) {
            let keyspace = database.keyspace(&name, Default::default).unwrap();
            database.delete_keyspace(keyspace).unwrap();
        }
    }
}

fn meta(database: &Database) -> fjall::Keyspace {
    database.keyspace("meta", Default::default).unwrap()
}

/// Makes a directory as the first version did: with its topics, and without a list of them.
async fn make_first(directory: &Path) -> EmbeddedConfig {
    let config = support::config(directory);
    let log = support::open(&config);
    support::append(&log, Topic::EVENTS, 0..100).await;
    drop(log);
    change(&config, |database| {
        TOPICS.iter().filter(|topic| !FIRST.contains(topic)).for_each(|topic| remove(database, *topic));
        meta(database).remove("topics").unwrap();
    });
    // Its list of keyspaces has only its own.
    relist(&config, |name| FIRST.iter().any(|topic| name.contains(topic.name)) || name == "meta");
    config
}

fn relist(config: &EmbeddedConfig, keep: impl Fn(&str) -> bool) {
    let path = config.directory.join("keyspaces.list");
    let text = std::fs::read_to_string(&path).unwrap();
    let retained = |line: &&str| line.split_once(' ').is_some_and(|(_, name)| keep(name));
    let list: Vec<&str> = text.lines().skip(1).filter(retained).collect();
    let list = list.join("\n");
    std::fs::write(&path, format!("{:08x}\n{list}", crc32fast::hash(list.as_bytes()))).unwrap();
}

#[tokio::test]
async fn missing_topics_are_created_in_an_old_directory() {
    let directory = tempfile::tempdir().unwrap();
    let config = make_first(directory.path()).await;
    for _ in 0..2 {
        let log = support::open(&config);
        assert_eq!(support::read_all(&log, Topic::EVENTS, 0).unwrap().len(), 100);
        for topic in TOPICS {
            support::read_all(&log, *topic, 0).unwrap();
        }
    }
}

#[tokio::test]
async fn a_missing_topic_is_refused_with_a_list_and_without() {
    for (without_list, topic) in [(true, Topic::HOURLY), (false, Topic::HOURLY), (false, TOPICS[TOPICS.len() - 1])] {
        let directory = tempfile::tempdir().unwrap();
        let config = make_first(directory.path()).await;
        if !without_list {
            drop(support::open(&config));
        }
        change(&config, |database| remove(database, topic));
        // Even if the list of keyspaces does not have it.
        relist(&config, |name| !name.contains(topic.name));
        let LogError::Damaged(why) = support::try_open(&config).unwrap_err() else { panic!("not damaged") };
        assert!(why.detail.contains(topic.name) && why.detail.contains("missing"), "{why}");
    }
}
