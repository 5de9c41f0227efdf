//! The log of one test, on either engine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millrace_contracts::{Names, TOPICS, Topic};
use millrace_log::{
    Batch, EmbeddedConfig, EmbeddedLog, KafkaConfig, KafkaLog, Limits, Log, LogError, NewRecord, Outcome, PollOutcome,
    RunOptions, Stage, Status,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const PARTITIONS: u32 = 3;
/// The timeout of every wait of a test.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// The engine and address of a test's log. A child process can open the same log.
#[derive(Debug, Clone)]
pub(crate) enum Engine {
    Kafka { config: KafkaConfig, prefix: String },
    Embedded { config: EmbeddedConfig, _directory: Option<Arc<tempfile::TempDir>> },
}

impl Engine {
    /// A log on the shared broker, with a topic prefix of its own; `None` without a broker.
    pub(crate) fn kafka(test: &str) -> Option<Self> {
        let brokers = millrace_testkit::kafka(&format!("log conformance, {test}"))?;
        Some(Self::kafka_at(brokers))
    }

    pub(crate) fn kafka_at(brokers: &str) -> Self {
        let config = format!(
            "brokers = {brokers:?}\npartitions = {PARTITIONS}\nreplication_factor = 1\nmin_insync_replicas = 1\n\
             max_queue_records = 100000\nmax_queue_bytes = \"64MiB\"\nlinger = \"1ms\"\nmessage_timeout = \"5s\"\n\
             transaction_timeout = \"6s\"\nstep_interval = \"15ms\"\nsession_timeout = \"6s\"\nproperties = {{}}\n"
        );
        let prefix = format!("{}.", millrace_testkit::unique("log"));
        let mut config: KafkaConfig = toml::from_str(&config).unwrap();
        // A killed member returns at once under its name.
        config.static_members = true;
        Self::Kafka { config, prefix }
    }

    pub(crate) fn embedded() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        Self::Embedded { config: embedded_config(path), _directory: Some(Arc::new(directory)) }
    }

    /// Another log of the same engine.
    pub(crate) fn another(&self) -> Self {
        match self {
            Self::Kafka { config, .. } => Self::kafka_at(&config.brokers),
            Self::Embedded { .. } => Self::embedded(),
        }
    }

    /// The log as text, for a child process.
    pub(crate) fn to_child(&self) -> String {
        match self {
            Self::Kafka { config, prefix } => format!("kafka {} {prefix}", config.brokers),
            Self::Embedded { config, .. } => format!("embedded {}", config.directory.display()),
        }
    }

    pub(crate) fn from_parent(text: &str) -> Self {
        let words: Vec<&str> = text.split(' ').collect();
        match words[..] {
            ["kafka", brokers, prefix] => {
                let Self::Kafka { config, .. } = Self::kafka_at(brokers) else { unreachable!() };
                Self::Kafka { config, prefix: prefix.into() }
            }
            ["embedded", directory] => Self::Embedded { config: embedded_config(directory.into()), _directory: None },
            _ => panic!("{text}"),
        }
    }

    pub(crate) fn names(&self) -> Names {
        match self {
            Self::Kafka { prefix, .. } => Names::new(prefix).unwrap(),
            Self::Embedded { .. } => Names::default(),
        }
    }

    /// Opens the log and creates its topics. On the embedded engine, one at a time.
    pub(crate) async fn open(&self) -> Log {
        let log = self.try_open().unwrap();
        log.create_topics().await.unwrap();
        log
    }

    pub(crate) fn try_open(&self) -> Result<Log, LogError> {
        self.try_open_with(TOPICS)
    }

    /// Opens the log with another table of topics than the product's.
    pub(crate) fn try_open_with(&self, topics: &[Topic]) -> Result<Log, LogError> {
        std::sync::LazyLock::force(&crate::metrics::RECORDER);
        match self {
            Self::Kafka { config, .. } => {
                KafkaLog::open_with_topics(config.clone(), self.names(), topics).map(Log::Kafka)
            }
            Self::Embedded { config, .. } => {
                EmbeddedLog::open_with_topics(config.clone(), &self.names(), topics).map(Log::Embedded)
            }
        }
    }
}

fn embedded_config(directory: PathBuf) -> EmbeddedConfig {
    EmbeddedConfig { directory, partitions: PARTITIONS, ..EmbeddedConfig::default() }
}

/// Appends records to a partition of the events, with the key as value; expects each to be acknowledged.
pub(crate) async fn append(log: &Log, partition: u32, keys: impl IntoIterator<Item = String>) -> Vec<u64> {
    let keys: Vec<String> = keys.into_iter().collect();
    let mut offsets = Vec::new();
    for keys in keys.chunks(1_000) {
        let records: Vec<NewRecord<'_>> = keys
            .iter()
            .map(|key| NewRecord { topic: Topic::EVENTS, partition, key: key.as_bytes(), value: key.as_bytes() })
            .collect();
        for outcome in log.append(&records).await {
            match outcome {
                Outcome::Acknowledged(offset) => offsets.push(offset),
                other => panic!("{other:?}"),
            }
        }
    }
    offsets
}

/// One record read: offset, key, value.
pub(crate) type ReadRecord = (u64, String, Option<String>);

/// Reads `topic` from these positions up to the end that the log reports, by partition.
pub(crate) async fn read_all(log: &Log, topic: Topic, from: &[(u32, u64)]) -> BTreeMap<u32, Vec<ReadRecord>> {
    let (log, from) = (log.clone(), from.to_vec());
    tokio::task::spawn_blocking(move || {
        let mut reader = log.reader(topic, &from).unwrap();
        let mut seen: BTreeMap<u32, Vec<ReadRecord>> =
            from.iter().map(|&(partition, _)| (partition, Vec::new())).collect();
        let mut behind: std::collections::BTreeSet<u32> = seen.keys().copied().collect();
        let mut batch = Batch::default();
        let began = std::time::Instant::now();
        while !behind.is_empty() {
            assert!(began.elapsed() < PATIENCE, "partitions {behind:?} report no end");
            match reader.poll(&mut batch, Limits::default()).unwrap() {
                PollOutcome::Records => {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let records = batch.iter().map(|r| (r.offset, text(r.key), r.value.map(text)));
                    seen.get_mut(&batch.partition()).unwrap().extend(records);
                }
                PollOutcome::CaughtUp { partition, .. } => {
                    behind.remove(&partition);
                }
                PollOutcome::Nothing => {}
            }
        }
        seen
    })
    .await
    .unwrap()
}

pub(crate) fn from_start() -> Vec<(u32, u64)> {
    (0..PARTITIONS).map(|partition| (partition, 0)).collect()
}

/// A stage that runs in the background.
pub(crate) struct Running {
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<Result<(), LogError>>,
}

pub(crate) fn options(role: &str, instance: &str) -> (RunOptions, watch::Receiver<Status>) {
    let (status, seen) = watch::channel(Status::Starting);
    let step = Limits { records: 500, bytes: 1 << 20, wait: Duration::from_millis(50) };
    (RunOptions { role: role.into(), instance: instance.into(), workers: 1, step, status }, seen)
}

pub(crate) fn run_stage(log: &Log, stage: impl Stage, role: &str, instance: &str) -> Running {
    let (options, status) = options(role, instance);
    let (log, stop) = (log.clone(), CancellationToken::new());
    let stopped = stop.clone();
    let task = tokio::spawn(async move { log.run_stage(stage, options, stopped).await });
    Running { status, stop, task }
}

impl Running {
    /// Stops the run and returns its result.
    pub(crate) async fn end(self) -> Result<(), LogError> {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("a stopped runner ends").unwrap()
    }

    /// Waits until a partition is not processed for a reason with these parts, then stops the run.
    pub(crate) async fn isolates(mut self, partition: u32, parts: &[&str]) {
        let isolated = |status: &Status| {
            let Status::Degraded { failed, .. } = status else { return false };
            failed.get(&partition).is_some_and(|why| parts.iter().all(|part| why.contains(part)))
        };
        let waited = tokio::time::timeout(PATIENCE, self.status.wait_for(isolated)).await.map(|waited| waited.is_ok());
        assert_eq!(waited, Ok(true), "{parts:?}: {:?}", self.status.borrow());
        self.end().await.unwrap();
    }

    /// The error that ends the run.
    pub(crate) async fn refusal(self) -> LogError {
        tokio::time::timeout(PATIENCE, self.task).await.expect("the run ends").unwrap().unwrap_err()
    }
}

/// Polls a condition until it is true, at most [`PATIENCE`].
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let polling = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, polling).await.unwrap_or_else(|_| panic!("never: {what}"));
}
