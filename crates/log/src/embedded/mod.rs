//! The engine in one directory of this machine, on fjall.
//!
//! `append` puts a record into a bounded `queue`. One `writer` thread commits the whole backlog as one atomic batch:
//! synced, then visible, then acknowledged. `reader`, `stage` and `sink` read synced records only. `guard` and
//! `journal` refuse damaged data before it is opened, `lock` a second process. Read models have keyspaces of their own
//! in the same database, named `view.*`.

mod codec;
mod config;
mod consumers;
mod disk;
mod fetch;
mod group;
mod guard;
mod journal;
mod layout;
mod lock;
mod offsets;
mod partition;
mod queue;
mod reader;
mod restore;
mod retention;
mod sink;
mod stage;
mod tables;
mod wait;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use fjall::{CompressionType, Database};
use millrace_base::Clock;
use millrace_contracts::{Names, ProjectionPosition, TOPICS, Topic};
use tokio_util::sync::CancellationToken;

use crate::topics::{DeclaredTopic, Topics};
use crate::{LogError, NewRecord, PartitionInfo, Receipts, RunOptions, Sink, Stage, TopicInfo};
use consumers::Consumers;
use disk::DiskSpace;
use layout::Layout;
use partition::Partition;
use queue::Queue;
use wait::Shutdown;

pub use config::EmbeddedConfig;
pub(crate) use reader::Reader;

/// The log in one directory of this machine. Cheap to clone; the directory is unlocked when the last clone, runner and
/// reader is dropped.
#[derive(Clone)]
pub struct EmbeddedLog(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Shared by the threads.
struct Shared {
    config: EmbeddedConfig,
    topics: Topics,
    layout: Layout,
    database: Database,
    queue: Queue,
    clock: Clock,
    shutdown: Shutdown,
    /// Set once the writer has failed: nothing is written any more.
    failure: OnceLock<LogError>,
    disk: DiskSpace,
    consumers: Consumers,
    // Last, so that the directory is unlocked after everything else is closed.
    _lock: lock::DirectoryLock,
}

impl std::fmt::Debug for EmbeddedLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedLog").field("directory", &self.0.shared.config.directory).finish_non_exhaustive()
    }
}

impl EmbeddedLog {
    /// Opens the directory; creates it if it is missing. Blocking.
    #[expect(clippy::needless_pass_by_value, reason = "as the Kafka engine, which keeps the names")]
    pub fn open(config: EmbeddedConfig, names: Names) -> Result<Self, LogError> {
        Self::open_with_topics(config, &names, TOPICS)
    }

    /// Opens a log with another table of topics than [`TOPICS`].
    pub fn open_with_topics(config: EmbeddedConfig, names: &Names, topics: &[Topic]) -> Result<Self, LogError> {
        let topics = Topics::new(topics, names, config.partitions);
        let directory = &config.directory;
        let failed =
            |error: std::io::Error| LogError::refused(format!("{}: {error}", directory.display())).because(error);
        std::fs::create_dir_all(directory).map_err(failed)?;
        let lock = lock::DirectoryLock::acquire(directory)?;
        let inspection = guard::check(directory)?;
        let new = inspection.highest == 0;
        // fjall panics on some bytes that its checksums do not cover: this is damage too.
        let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let database = open_database(&config)?;
            let layout = Layout::open(&database, &config, &topics, new)?;
            Ok((database, layout))
        }));
        let panicked = |_| {
            let unreadable = || format!("{}: the tables are unreadable", directory.display());
            Err(LogError::damaged(tables::find_damage(directory).unwrap_or_else(unreadable)))
        };
        let (database, layout) = opened.unwrap_or_else(panicked)?;
        inspection.confirm(layout.commits)?;
        guard::record_keyspaces(directory, layout.keyspaces(&database)?).map_err(failed)?;
        let shared = Arc::new(Shared {
            queue: Queue::new(config.max_queue_records as usize, config.max_queue_bytes.as_usize()),
            disk: DiskSpace::new(&config),
            consumers: Consumers::default(),
            config,
            topics,
            layout,
            database,
            clock: Clock::system(),
            shutdown: Shutdown::default(),
            failure: OnceLock::new(),
            _lock: lock,
        });
        let writer = writer::Writer::new(shared.clone(), inspection.sync_mark);
        let (writing, retaining) = (shared.clone(), shared.clone());
        let threads = vec![
            spawn("log-writer", move || {
                let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| writer.run()));
                if ended.is_err() {
                    writing.fail(LogError::refused("the log's writer panicked"));
                    writing.queue.abandon();
                }
                writing.shutdown.finish();
            })?,
            spawn("log-retention", move || retention::run(&retaining))?,
        ];
        Ok(Self(Arc::new(Inner { shared, threads: Mutex::new(threads) })))
    }

    /// The log's database, for read models with keyspaces of their own in it, named `view.*`.
    pub fn database(&self) -> &Database {
        &self.0.shared.database
    }

    pub(crate) fn id(&self) -> &str {
        &self.0.shared.layout.id
    }

    pub(crate) fn append(&self, records: &[NewRecord<'_>]) -> Receipts {
        self.0.shared.append(records)
    }

    pub(crate) fn reader(&self, topic: Topic, from: &[(u32, u64)]) -> Result<Reader, LogError> {
        Reader::open(&self.0.shared, topic, from)
    }

    pub(crate) fn check_positions(
        &self,
        topic: Topic,
        positions: &[(u32, ProjectionPosition)],
    ) -> Result<(), LogError> {
        reader::check_positions(&self.0.shared, topic, positions)
    }

    pub(crate) async fn run_stage<S: Stage>(
        &self,
        stage: Arc<S>,
        options: RunOptions,
        stop: CancellationToken,
    ) -> Result<(), LogError> {
        stage::run(self.0.shared.clone(), stage, options, stop).await
    }

    pub(crate) async fn run_sink<S: Sink>(
        &self,
        sink: impl Fn() -> S + Send + Sync + 'static,
        options: RunOptions,
        stop: CancellationToken,
    ) -> Result<(), LogError> {
        sink::run(self.0.shared.clone(), sink, options, stop).await
    }

    /// Opening has created and checked them all.
    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "the port's signature")]
    pub(crate) fn create_topics(&self) -> Result<(), LogError> {
        Ok(())
    }

    #[expect(clippy::unnecessary_wraps, reason = "the port's signature")]
    pub(crate) fn describe(&self) -> Result<Vec<TopicInfo>, LogError> {
        let shared = &self.0.shared;
        let info = |partition: &Partition| PartitionInfo { start: partition.start(), end: partition.end() };
        let describe = |declared: &DeclaredTopic| TopicInfo {
            topic: declared.topic,
            full_name: declared.full_name.clone(),
            partitions: shared.layout.of(declared.topic).map(info).collect(),
        };
        Ok(shared.topics.iter().map(describe).collect())
    }

    pub(crate) fn partitions(&self, topic: Topic) -> u32 {
        self.0.shared.topics.get(topic).partitions
    }

    pub(crate) fn health(&self) -> Result<(), String> {
        let shared = &self.0.shared;
        match shared.failure() {
            Some(error) => Err(error.to_string()),
            None if shared.shutdown.has_begun() => Err("the log is shutting down".into()),
            None if shared.disk.is_full() => Err(shared.disk.reason()),
            None => Ok(()),
        }
    }

    pub(crate) async fn close(&self, within: Duration) {
        let shared = self.0.shared.clone();
        shared.close();
        let closed = tokio::task::spawn_blocking(move || shared.shutdown.wait_until_finished(within));
        if !closed.await.unwrap_or(false) {
            tracing::warn!("the log's queue was not written within {within:?}");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.close();
        for thread in self.threads.get_mut().map(std::mem::take).unwrap_or_default() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn close(&self) {
        self.queue.close();
        self.shutdown.begin();
    }

    /// Waits; true if the shutdown has begun.
    fn wait_for_shutdown(&self, within: Duration) -> bool {
        self.shutdown.wait_until_begun(within)
    }

    /// The failure of the writer.
    fn failure(&self) -> Option<LogError> {
        self.failure.get().cloned()
    }

    /// Fails if the writer has failed: this ends the runners, and with them the process, which restarts from what is
    /// durable.
    fn check(&self) -> Result<(), LogError> {
        self.failure().map_or(Ok(()), Err)
    }

    /// Replaces a runner's error by the failure of the writer, if there is one: only a restart of the process overcomes
    /// it.
    fn or_failure(&self, error: LogError) -> LogError {
        self.failure().unwrap_or(error)
    }

    fn fail(&self, error: LogError) {
        let _ = self.failure.set(error);
    }
}

fn open_database(config: &EmbeddedConfig) -> Result<Database, LogError> {
    Database::builder(&config.directory)
        .cache_size(config.cache_size.0)
        .max_journaling_size(config.journal_size.0)
        .journal_compression(CompressionType::None)
        .worker_threads(2)
        .open()
        .map_err(|error| damaged(&config.directory, "the database", error))
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, LogError> {
    let thread = std::thread::Builder::new().name(name.into()).spawn(work);
    thread.map_err(|error| LogError::unavailable(format!("thread: {error}")).because(error))
}

/// An error of fjall while reading `what` in `folder`.
fn damaged(folder: &Path, what: &str, error: fjall::Error) -> LogError {
    let shown = folder.display();
    let failure = match (&error, tables::find_damage(folder)) {
        (fjall::Error::Poisoned, _) => {
            LogError::refused(format!("{shown}: {what}: an earlier write failed; restart the process"))
        }
        (_, Some(damage)) => LogError::damaged(format!("{what}: {damage}")),
        (error, None) => LogError::damaged(format!("{shown}: {what}: {error}")),
    };
    failure.because(error)
}
