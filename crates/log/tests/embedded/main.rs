//! The embedded engine alone: damage, kills, retention, a full disk, failed commits, one process per directory.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, missing_docs, reason = "tests fail by panicking")]

mod bench;
mod damage;
mod failing;
mod kill;
mod layout;
mod retention;
mod support;

use millrace_contracts::{Names, Topic};
use millrace_log::{EmbeddedConfig, EmbeddedLog, Log, LogError, NewRecord, Outcome, RefusalCause};

#[test]
fn a_second_process_is_refused_and_the_holder_named() {
    let directory = tempfile::tempdir().unwrap();
    let log = support::open(&support::config(directory.path()));
    let refused = EmbeddedLog::open(support::config(directory.path()), Names::default()).unwrap_err();
    let LogError::Refused(why) = refused else { panic!("{refused:?}") };
    assert!(why.detail.contains(&format!("pid {}", std::process::id())), "{why}");
    drop(log);
    support::open(&support::config(directory.path()));
}

#[tokio::test]
async fn below_min_free_disk_appends_are_refused_and_reads_continue() {
    let directory = tempfile::tempdir().unwrap();
    let config = support::config(directory.path());
    let log = support::open(&config);
    support::append(&log, Topic::EVENTS, 0..100).await;
    drop(log);
    let log = support::open(&EmbeddedConfig { min_free_disk: millrace_base::Size::from_gib(1 << 20), ..config });
    let record = NewRecord { topic: Topic::EVENTS, partition: 0, key: b"k", value: b"v" };
    assert_eq!(log.append(&[record]).await, [Outcome::Refused(RefusalCause::DiskFull)]);
    assert!(log.health().is_err());
    assert_eq!(support::read_all(&log, Topic::EVENTS, 0).unwrap().len(), 100);
}

#[test]
fn settings_have_bounds_and_defaults_within_them() {
    let mut config = EmbeddedConfig::default();
    assert_eq!(config.validate(), []);
    (config.partitions, config.max_queue_bytes, config.journal_size) =
        (0, millrace_base::Size(1), millrace_base::Size(1));
    let keys: Vec<String> = config.validate().into_iter().map(|violation| violation.key).collect();
    assert_eq!(keys, ["partitions", "max_queue_bytes", "journal_size"]);
    let _: fn(&Log, Topic) -> u32 = Log::partitions;
}
