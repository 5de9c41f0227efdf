//! The engine in one directory of this machine, on fjall.
//!
//! A record comes in by `append`, waits in a bounded `queue`, and is committed by the one `writer` thread together with
//! all else that waits: one atomic batch, synced, then visible, then answered. `reader`, `stage` and `sink` see only what
//! is synced. `guard` and `journal` refuse damaged data before it is opened, `lock` a second process. What is in the
//! records is not known here; read models keep keyspaces of their own in the same database, named `view.*`.

mod codec;
mod config;
mod guard;
mod journal;
mod layout;
mod lock;
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
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use fjall::{CompressionType, Database};
use millrace_contracts::{Names, TOPICS, Topic};
use tokio_util::sync::CancellationToken;

use crate::{LogError, NewRecord, PartitionInfo, Receipts, RunOptions, Sink, Stage, TopicInfo};
use layout::Layout;
use queue::Queue;
use wait::{Closing, Ends};

pub use config::EmbeddedConfig;
pub(crate) use reader::Reader;

/// The log in one directory of this machine. Cheap to clone; the directory is let go of with the last clone, runner and
/// reader.
#[derive(Clone)]
pub struct EmbeddedLog(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the threads share.
struct Shared {
    config: EmbeddedConfig,
    names: Names,
    layout: Layout,
    database: Database,
    queue: Queue,
    ends: Ends,
    closing: Closing,
    failure: OnceLock<String>,
    disk_full: AtomicBool,
    // Last, so that the directory is let go of when all else is closed.
    _holder: lock::Holder,
}

impl std::fmt::Debug for EmbeddedLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedLog").field("directory", &self.0.shared.config.directory).finish_non_exhaustive()
    }
}

impl EmbeddedLog {
    /// Opens the directory, and makes it when it is not there. Blocking.
    pub fn open(config: EmbeddedConfig, names: Names) -> Result<Self, LogError> {
        let directory = &config.directory;
        let failed = |error: std::io::Error| LogError::Refused(format!("{}: {error}", directory.display()));
        std::fs::create_dir_all(directory).map_err(failed)?;
        let holder = lock::Holder::take(directory)?;
        let checked = guard::check(directory)?;
        let new = checked.highest == 0;
        // fjall asserts on bytes that its checksums do not cover; for us that is damage like any other.
        let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let database = open_database(&config)?;
            let layout = Layout::open(&database, &config, new)?;
            Ok((database, layout))
        }));
        let panicked = |_| {
            Err(LogError::Damaged(
                tables::lost(directory)
                    .unwrap_or_else(|| format!("{}: the tables cannot be read", directory.display())),
            ))
        };
        let (database, layout) = opened.unwrap_or_else(panicked)?;
        checked.confirm(layout.commits)?;
        guard::note_keyspaces(directory, layout.keyspaces()).map_err(failed)?;
        let shared = Arc::new(Shared {
            queue: Queue::new(config.max_queue_records as usize, config.max_queue_bytes.as_usize()),
            config,
            names,
            layout,
            database,
            ends: Ends::default(),
            closing: Closing::default(),
            failure: OnceLock::new(),
            disk_full: AtomicBool::new(false),
            _holder: holder,
        });
        let writer = writer::Writer::new(shared.clone(), checked.synced);
        let (writing, dropping) = (shared.clone(), shared.clone());
        let threads = vec![
            spawn("log-writer", move || {
                let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| writer.run()));
                if ended.is_err() {
                    writing.fail("the writer panicked".into());
                    writing.queue.abandon();
                }
                writing.closing.finish();
            })?,
            spawn("log-retention", move || retention::run(&dropping))?,
        ];
        Ok(Self(Arc::new(Inner { shared, threads: Mutex::new(threads) })))
    }

    /// The database the log is kept in, for read models that keep keyspaces of their own, named `view.*`, in it.
    pub fn database(&self) -> &Database {
        &self.0.shared.database
    }

    pub(crate) fn append(&self, records: &[NewRecord<'_>]) -> Receipts {
        self.0.shared.append(records)
    }

    pub(crate) fn reader(&self, topic: Topic, from: &[(u32, u64)]) -> Result<Reader, LogError> {
        Reader::open(&self.0.shared, topic, from)
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

    /// Opening has made and checked them all.
    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "the port's signature")]
    pub(crate) fn create_topics(&self) -> Result<(), LogError> {
        Ok(())
    }

    #[expect(clippy::unnecessary_wraps, reason = "the port's signature")]
    pub(crate) fn describe(&self) -> Result<Vec<TopicInfo>, LogError> {
        let shared = &self.0.shared;
        let describe = |topic: Topic| TopicInfo {
            topic,
            full_name: shared.names.topic(&topic),
            partitions: shared
                .layout
                .of(topic)
                .map(|held| PartitionInfo { start: held.start(), end: held.end() })
                .collect(),
        };
        Ok(TOPICS.map(describe).to_vec())
    }

    pub(crate) fn partitions(&self) -> u32 {
        self.0.shared.config.partitions
    }

    pub(crate) fn health(&self) -> Result<(), String> {
        let shared = &self.0.shared;
        match shared.failure() {
            Some(why) => Err(why),
            None if shared.closing.has_begun() => Err("the log is closing".into()),
            None if shared.disk_full.load(Ordering::Relaxed) => Err("the disk is at its reserve".into()),
            None => Ok(()),
        }
    }

    pub(crate) async fn close(&self, within: Duration) {
        let shared = self.0.shared.clone();
        shared.close();
        let closed = tokio::task::spawn_blocking(move || shared.closing.wait_until_finished(within));
        if !closed.await.unwrap_or(false) {
            tracing::warn!("the log was not written out within {within:?}");
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
        self.closing.begin();
    }

    fn wait_for_close(&self, within: Duration) -> bool {
        self.closing.wait_until_begun(within)
    }

    /// Why nothing is written any more.
    fn failure(&self) -> Option<String> {
        self.failure.get().cloned()
    }

    /// A failed writer ends the runners, and with them the process: it starts again from what is durable.
    fn check(&self) -> Result<(), LogError> {
        self.failure().map_or(Ok(()), |why| Err(LogError::Refused(why)))
    }

    /// What an error of a runner means here: a failed writer heals by a restart of the process only.
    fn or_failure(&self, error: LogError) -> LogError {
        self.failure().map_or(error, LogError::Refused)
    }

    fn fail(&self, why: String) {
        let _ = self.failure.set(why);
    }

    fn set_disk_full(&self, full: bool) {
        if self.disk_full.swap(full, Ordering::Relaxed) != full {
            tracing::warn!(full, "the disk reached or left its reserve");
        }
    }
}

fn open_database(config: &EmbeddedConfig) -> Result<Database, LogError> {
    Database::builder(&config.directory)
        .cache_size(config.cache_size.0)
        .max_journaling_size(config.journal_size.0)
        .journal_compression(CompressionType::None)
        .worker_threads(2)
        .open()
        .map_err(|error| damaged(&config.directory, "the database", &error))
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, LogError> {
    let thread = std::thread::Builder::new().name(name.into()).spawn(work);
    thread.map_err(|error| LogError::Unavailable(format!("thread: {error}")))
}

/// An error of fjall while something of ours in `folder` is read.
fn damaged(folder: &Path, what: &str, error: &fjall::Error) -> LogError {
    let place = folder.display();
    match (error, tables::lost(folder)) {
        (fjall::Error::Poisoned, _) => {
            LogError::Refused(format!("{place}: {what}: a write failed before; only a restart helps"))
        }
        (_, Some(lost)) => LogError::Damaged(format!("{what}: {lost}")),
        (error, None) => LogError::Damaged(format!("{place}: {what}: {error}")),
    }
}
