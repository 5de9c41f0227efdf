//! The index of messages follows the log.

use std::time::{Duration, Instant};

use millrace_base::{Size, Span};
use millrace_contracts::topics::{Delay, Message};
use millrace_contracts::{Names, Topic};
use millrace_log::{EmbeddedConfig, EmbeddedLog, Log, LogError, NewRecord, Outcome};
use millrace_materializer::{Config, Views};
use millrace_service::health::Health;
use millrace_store::{Archive, IndexPage, MessageIndex, PostgresConfig, SecretUrl};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::stack::{PARTITIONS, Stack, config, until_ready};

async fn publish(log: &Log, topic_id: u64) -> u64 {
    let value = message(topic_id, b"body");
    let record = NewRecord { topic: Topic::MESSAGES, partition: 1, key: b"t", value: &value };
    match log.append(&[record]).await[..] {
        [Outcome::Acknowledged(offset)] => offset,
        ref other => panic!("{other:?}"),
    }
}

fn message(topic_id: u64, body: &[u8]) -> Vec<u8> {
    let message = Message {
        topic_id,
        published_ms: 0,
        id: "id",
        delay: Delay::None,
        key: None,
        idempotency_key: None,
        nonce: None,
        content_type: "text/plain",
        attributes: Vec::new(),
        body,
    };
    let mut value = Vec::new();
    message.encode(&mut value);
    value
}

async fn until_page(index: &MessageIndex, topic_id: u64, expected: &[u64], end: u64) {
    let expected = IndexPage { offsets: expected.to_vec(), until: end };
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let page = index.page(1, topic_id, 0..end, 100).await.unwrap();
        if page == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{page:?}, not {expected:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn follows(log: Log, archive: Archive, index: MessageIndex) {
    let (first, other, second) = (publish(&log, 7).await, publish(&log, 8).await, publish(&log, 7).await);
    let running = Running::start(&log, &archive, Some(&index));
    until_page(&index, 7, &[first, second], second + 1).await;
    until_page(&index, 8, &[other], second + 1).await;
    let third = publish(&log, 7).await;
    until_page(&index, 7, &[first, second, third], third + 1).await;
    index.reset().await.unwrap();
    let fourth = publish(&log, 7).await;
    until_page(&index, 7, &[first, second, third, fourth], fourth + 1).await;
    until_ready(&running.health, true).await;
    running.end().await;
    log.close(Duration::from_secs(5)).await;
}

fn embedded_config(folder: &TempDir) -> EmbeddedConfig {
    EmbeddedConfig { directory: folder.path().join("data"), partitions: PARTITIONS, ..EmbeddedConfig::default() }
}

async fn open(config: &EmbeddedConfig) -> (Log, Archive, MessageIndex) {
    let embedded = EmbeddedLog::open(config.clone(), Names::default()).unwrap();
    let archive = Archive::embedded(embedded.database(), PARTITIONS).unwrap();
    let index = MessageIndex::embedded(embedded.database()).unwrap();
    let log = Log::Embedded(embedded);
    log.create_topics().await.unwrap();
    (log, archive, index)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_index_follows_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let (log, archive, index) = open(&embedded_config(&folder)).await;
    follows(log, archive, index).await;
}

/// The index was off for longer than the retention.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_the_retention_has_passed_is_built_anew() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = embedded_config(&folder);
    config.memtable_size = Size::from_mib(1);
    let (log, archive, index) = open(&config).await;
    let first = publish(&log, 7).await;
    let running = Running::start(&log, &archive, Some(&index));
    until_page(&index, 7, &[first], first + 1).await;
    running.end().await;
    // Incompressible bytes: the embedded engine drops by size on disk.
    for _ in 0..5 {
        let values: Vec<Vec<u8>> = (0..1_000)
            .map(|_| message(8, &std::iter::repeat_with(|| fastrand::u8(..)).take(1_000).collect::<Vec<_>>()))
            .collect();
        let record = |value| NewRecord { topic: Topic::MESSAGES, partition: 1, key: b"t", value };
        let outcomes = log.append(&values.iter().map(|value| record(value)).collect::<Vec<_>>()).await;
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Acknowledged(_))));
    }
    log.close(Duration::from_secs(5)).await;
    drop((log, archive, index));

    (config.retention_bytes, config.retention_check_interval) = (Size::from_mib(1), Span::from_millis(50));
    let (log, archive, index) = open(&config).await;
    // Retention needs a consumer in the process, whichever it is.
    let running = Running::start(&log, &archive, None);
    let dropped = async {
        while log.start(Topic::MESSAGES, 1).await.unwrap() <= first + 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), dropped).await.expect("the first messages are dropped");
    running.end().await;
    let last = publish(&log, 7).await;
    let running = Running::start(&log, &archive, Some(&index));
    until_page(&index, 7, &[last], last + 1).await;
    until_ready(&running.health, true).await;
    running.end().await;
    log.close(Duration::from_secs(5)).await;
}

/// A materializer.
struct Running {
    health: Health,
    stop: CancellationToken,
    task: JoinHandle<Result<(), LogError>>,
}

impl Running {
    fn start(log: &Log, archive: &Archive, index: Option<&MessageIndex>) -> Self {
        let (health, stop) = (Health::new(), CancellationToken::new());
        let views = Views { live: None, archive: archive.clone(), index: index.cloned() };
        let config = Config { workers: 1, ..config() };
        let running =
            millrace_materializer::run(config, log.clone(), "test".into(), views, health.clone(), stop.clone());
        Self { health, stop, task: tokio::spawn(running) }
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_index_in_postgres_follows_the_log() {
    let Some(stack) = Stack::start().await else { return };
    let (url, schema) = stack.postgres.clone();
    let config = PostgresConfig { url: SecretUrl::from(url), schema, ..PostgresConfig::default() };
    let index = MessageIndex::postgres(&config).await.unwrap();
    follows(stack.log.clone(), stack.archive.clone(), index).await;
}
