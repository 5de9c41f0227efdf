//! Coordinators: each partition of `topics.commands` that this process holds, and the requests about its topics.

mod acknowledge;
mod backlog;
#[cfg(test)]
mod backlog_tests;
mod consent;
mod courier;
mod current;
mod events;
mod explain;
pub(crate) mod fold;
mod housekeeping;
mod index;
mod keyed;
mod letters;
mod messages;
mod polls;
mod publish;
mod pull;
mod push;
mod pushing;
mod rights;
mod sample;
mod seek;
mod serve;
mod shard;
mod stage;
mod takeover;
#[cfg(test)]
mod tests;
mod view;
mod window;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use millrace_base::Clock;
use millrace_contracts::topics::{Call, CallError, Coordinate, Reply};
use millrace_contracts::{Code, Refusal, Topic};
use millrace_log::{Limits, Log, LogError, NewRecord, Outcome, RefusalCause, RunOptions, Status};
use millrace_store::MessageIndex;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use backlog::Backlog;
use shard::Shard;
use stage::Coordination;

use crate::push::{Keyring, PushMetrics, Sender, Targets};

/// Samples in flight: a client waits for each, up to 30 s.
const MAX_SAMPLES: usize = 16;

/// Consent handshakes in flight: a client waits for each, up to 15 s.
const MAX_HANDSHAKES: usize = 16;

/// What a coordinator needs to know of its process.
#[derive(Debug, Clone)]
pub struct CoordinatorConfig {
    /// Where other processes reach it; empty: nowhere.
    pub url: String,
    /// Most bytes of the newest messages in memory, for each partition.
    pub ring_bytes: usize,
    /// Reads of older messages at the same time, of up to 4 MiB each.
    pub max_backlog_reads: usize,
    /// Where the older messages of a topic are; without it they are scanned for.
    pub index: Option<MessageIndex>,
    /// Largest page of a pull in bytes.
    pub max_page_bytes: usize,
    /// Most leases of a subscription.
    pub max_leases: usize,
    /// Most long polls of a process.
    pub max_polls: usize,
    /// Most requests to endpoints in flight; a quarter of them to those that fail or are slow.
    pub max_in_flight: usize,
    /// Where push may connect to.
    pub targets: Targets,
    /// The origin that asks endpoints for their consent.
    pub consent_origin: String,
    /// What seals the secrets of endpoints.
    pub keyring: Arc<Keyring>,
}

/// The coordinators cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client of push: {0}")]
pub struct StartError(#[from] reqwest::Error);

/// The coordinators of this process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Coordinators(Arc<Shared>);

pub(crate) struct Shared {
    log: Log,
    config: CoordinatorConfig,
    clock: Clock,
    runtime: Handle,
    shards: RwLock<BTreeMap<u32, Arc<Shard>>>,
    rings: AtomicU64,
    backlog: Backlog,
    polls: Arc<Semaphore>,
    sender: Sender,
    push_metrics: PushMetrics,
    in_flight: Arc<Semaphore>,
    troubled: Arc<Semaphore>,
    samples: Semaphore,
    handshakes: Semaphore,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Coordinators {
    /// Coordinators over a log. They hold no partition until [`Coordinators::run`].
    ///
    /// # Errors
    /// The system's certificates cannot be loaded.
    pub fn new(log: Log, config: CoordinatorConfig, clock: Clock) -> Result<Self, StartError> {
        let polls = Arc::new(Semaphore::new(config.max_polls));
        let in_flight = Arc::new(Semaphore::new(config.max_in_flight));
        let troubled = Arc::new(Semaphore::new(config.max_in_flight.div_ceil(4)));
        let sender = Sender::new(config.targets.clone())?;
        let backlog = Backlog::new(log.clone(), config.index.clone(), config.max_backlog_reads);
        Ok(Self(Arc::new(Shared {
            log,
            config,
            clock,
            runtime: Handle::current(),
            shards: RwLock::default(),
            rings: AtomicU64::new(0),
            backlog,
            polls,
            sender,
            push_metrics: PushMetrics::register(),
            in_flight,
            troubled,
            samples: Semaphore::new(MAX_SAMPLES),
            handshakes: Semaphore::new(MAX_HANDSHAKES),
        })))
    }

    /// Joins the group, and coordinates the partitions it is assigned until `stop`.
    ///
    /// # Errors
    /// What a fresh start cannot heal.
    pub async fn run(
        &self,
        instance: String,
        status: watch::Sender<Status>,
        stop: CancellationToken,
    ) -> Result<(), LogError> {
        let reading = {
            let (shared, stop) = (self.0.clone(), stop.clone());
            std::thread::Builder::new().name("messages".into()).spawn(move || messages::read_rings(&shared, &stop))
        };
        let reading = reading.map_err(|error| LogError::unavailable(format!("thread: {error}")).because(error))?;
        let options = RunOptions {
            role: "delivery".into(),
            instance,
            workers: 1,
            // A step is one transaction; acknowledgements are answered when they are read, before it.
            step: Limits { records: 10_000, bytes: 8 << 20, wait: Duration::from_millis(5) },
            status,
        };
        let ended = self.0.log.run_stage(Coordination { shared: self.0.clone() }, options, stop.clone()).await;
        stop.cancel();
        let _ = tokio::task::spawn_blocking(move || reading.join()).await;
        ended
    }

    /// Answers a request if this process coordinates its partition.
    ///
    /// # Errors
    /// [`CallError::Elsewhere`] if another process does, or nobody yet; else why the request was refused.
    pub async fn call(&self, call: Call) -> Result<Reply, CallError> {
        let shard = self.0.shard(call.partition).ok_or(CallError::Elsewhere)?;
        {
            let inner = shard.lock();
            if !inner.serves() {
                let refused = |why: &String| CallError::Refused(Refusal::new(Code::Unavailable, why.clone()));
                return Err(inner.refused.as_ref().map_or(CallError::Elsewhere, refused));
            }
        }
        serve::serve(&self.0, &shard, call).await.map_err(CallError::Refused)
    }

    /// The partitions that this process coordinates now.
    ///
    /// # Panics
    /// Never: nothing panics while it holds the lock.
    pub fn partitions(&self) -> Vec<u32> {
        let shards = self.0.shards.read().expect("nothing panics while it is held");
        shards.values().filter(|shard| shard.lock().serves()).map(|shard| shard.partition).collect()
    }
}

impl Coordinate for Coordinators {
    fn call(&self, call: Call) -> Pin<Box<dyn Future<Output = Result<Reply, CallError>> + Send + '_>> {
        Box::pin(self.call(call))
    }
}

impl Shared {
    fn shard(&self, partition: u32) -> Option<Arc<Shard>> {
        self.shards.read().expect("nothing panics while it is held").get(&partition).cloned()
    }

    fn all(&self) -> Vec<Arc<Shard>> {
        self.shards.read().expect("nothing panics while it is held").values().cloned().collect()
    }

    /// The state of a partition is restored: take it over.
    fn assigned(self: &Arc<Self>, shard: &Arc<Shard>) {
        self.shards.write().expect("nothing panics while it is held").insert(shard.partition, shard.clone());
        self.runtime.spawn(takeover::coordinate(self.clone(), shard.clone()));
        self.runtime.spawn(courier::run(self.clone(), shard.clone()));
        self.runtime.spawn(events::run(self.clone(), shard.clone()));
        self.runtime.spawn(housekeeping::run(self.clone(), shard.clone()));
    }

    /// The partition goes to another process.
    fn revoked(&self, shard: &Arc<Shard>) {
        shard.close();
        let mut shards = self.shards.write().expect("nothing panics while it is held");
        if shards.get(&shard.partition).is_some_and(|known| Arc::ptr_eq(known, shard)) {
            shards.remove(&shard.partition);
        }
        drop(shards);
        self.rings_changed();
    }

    fn with_rings(&self) -> Vec<Arc<Shard>> {
        let can_read = |shard: &Arc<Shard>| {
            let inner = shard.lock();
            inner.ring.is_some() && inner.is_whole()
        };
        self.all().into_iter().filter(can_read).collect()
    }

    fn rings_changed(&self) {
        self.rings.fetch_add(1, Ordering::AcqRel);
    }

    fn rings_version(&self) -> u64 {
        self.rings.load(Ordering::Acquire)
    }

    /// Appends one record, as durable as the log can, and waits for its offset.
    async fn append(&self, topic: Topic, partition: u32, key: &[u8], value: &[u8]) -> Result<u64, Refusal> {
        let receipts = self.log.append_replicated(&[NewRecord { topic, partition, key, value }]);
        match receipts.await.first() {
            Some(Outcome::Acknowledged(offset)) => Ok(*offset),
            Some(Outcome::Refused(cause)) => Err(refused_by_log(*cause)),
            Some(Outcome::Unknown) | None => Err(shard::unknown()),
        }
    }
}

/// The log did not take a record.
fn refused_by_log(cause: RefusalCause) -> Refusal {
    let (code, detail) = match cause {
        RefusalCause::Full => (Code::Overloaded, "the queue to the log is full"),
        RefusalCause::TooLarge => (Code::TooLarge, "the record is larger than the log takes"),
        RefusalCause::ShuttingDown => (Code::ShuttingDown, "the process is ending"),
        RefusalCause::Unavailable => (Code::Unavailable, "the log cannot be reached"),
        RefusalCause::DiskFull => (Code::DiskFull, "the log's disk is full"),
    };
    Refusal::new(code, detail)
}
