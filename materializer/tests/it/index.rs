//! The index of messages follows the log.

use std::time::Duration;

use millrace_contracts::topics::{Delay, Message};
use millrace_contracts::{Names, Topic};
use millrace_log::{EmbeddedConfig, EmbeddedLog, Log, NewRecord, Outcome};
use millrace_materializer::{Config, Views};
use millrace_service::health::Health;
use millrace_store::{Archive, IndexPage, MessageIndex, PostgresConfig, SecretUrl};
use tokio_util::sync::CancellationToken;

use crate::stack::{PARTITIONS, Stack, config, until_ready};

async fn publish(log: &Log, topic_id: u64) -> u64 {
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
        body: b"body",
    };
    let mut value = Vec::new();
    message.encode(&mut value);
    let record = NewRecord { topic: Topic::MESSAGES, partition: 1, key: b"t", value: &value };
    match log.append(&[record]).await[..] {
        [Outcome::Acknowledged(offset)] => offset,
        ref other => panic!("{other:?}"),
    }
}

async fn until_page(index: &MessageIndex, topic_id: u64, expected: &[u64], end: u64) {
    let expected = IndexPage { offsets: expected.to_vec(), until: end };
    let reached = async {
        while index.page(1, topic_id, 0..end, 100).await.unwrap() != expected {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), reached).await.expect("the index has the page");
}

async fn follows(log: Log, archive: Archive, index: MessageIndex) {
    let (first, other, second) = (publish(&log, 7).await, publish(&log, 8).await, publish(&log, 7).await);
    let (health, stop) = (Health::new(), CancellationToken::new());
    let views = Views { live: None, archive, index: Some(index.clone()) };
    let config = Config { workers: 1, ..config() };
    let running = millrace_materializer::run(config, log.clone(), "test".into(), views, health.clone(), stop.clone());
    let running = tokio::spawn(running);
    until_page(&index, 7, &[first, second], second + 1).await;
    until_page(&index, 8, &[other], second + 1).await;
    let third = publish(&log, 7).await;
    until_page(&index, 7, &[first, second, third], third + 1).await;
    index.reset().await.unwrap();
    let fourth = publish(&log, 7).await;
    until_page(&index, 7, &[first, second, third, fourth], fourth + 1).await;
    until_ready(&health, true).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    log.close(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_index_follows_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let config =
        EmbeddedConfig { directory: folder.path().join("data"), partitions: PARTITIONS, ..EmbeddedConfig::default() };
    let embedded = EmbeddedLog::open(config, Names::default()).unwrap();
    let archive = Archive::embedded(embedded.database(), PARTITIONS).unwrap();
    let index = MessageIndex::embedded(embedded.database()).unwrap();
    let log = Log::Embedded(embedded);
    log.create_topics().await.unwrap();
    follows(log, archive, index).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_index_in_postgres_follows_the_log() {
    let Some(stack) = Stack::start().await else { return };
    let (url, schema) = stack.postgres.clone();
    let config = PostgresConfig { url: SecretUrl::from(url), schema, ..PostgresConfig::default() };
    let index = MessageIndex::postgres(&config).await.unwrap();
    follows(stack.log.clone(), stack.archive.clone(), index).await;
}
