//! The whole materializer: a log in, its stores out.

use std::collections::BTreeMap;
use std::time::Duration;

use millrace_contracts::{Exactness, Hour, HourlyCount, Names, Topic};
use millrace_log::{EmbeddedConfig, EmbeddedLog, KafkaConfig, KafkaLog, Log, NewRecord, Outcome};
use millrace_materializer::{Config, Views};
use millrace_service::config::{Size, Span};
use millrace_service::health::Health;
use millrace_store::{Answer, Archive, Clock, LiveHours, PostgresConfig, RedisConfig, SecretUrl, Totals, Window};
use tokio_util::sync::CancellationToken;

const PARTITIONS: u32 = 2;
const DEADLINE: Duration = Duration::from_mins(1);
const SUITE: &str = "materializer";

fn config() -> Config {
    let ms = |ms| Span(Duration::from_millis(ms));
    Config {
        admin: ([127, 0, 0, 1], 0).into(),
        workers: 2,
        step_records: 1_000,
        step_bytes: Size(1 << 20),
        step_time: ms(5),
        look_every: ms(100),
        retry_first: ms(50),
        retry_longest: ms(1_000),
    }
}

fn totals(n: u64) -> Answer {
    Answer::Known(Totals { clicks: n, impressions: 0, unique_users: n, exactness: Exactness::Exact })
}

async fn append(log: &Log, hour: Hour, partition: u32, next_offset: u64, clicks: u64) {
    let exactness = Exactness::Exact;
    let unique_users = clicks;
    let count =
        HourlyCount { hour, partition, generation: 1, next_offset, clicks, impressions: 0, unique_users, exactness };
    let (mut value, key) = (Vec::new(), HourlyCount::key(hour, partition));
    count.encode(&mut value);
    let record = NewRecord { topic: Topic::HOURLY, partition, key: key.as_bytes(), value: &value };
    assert!(matches!(log.append(&[record]).await[..], [Outcome::Acknowledged(_)]));
}

/// Polls until the answer is the expected one.
async fn until<E: std::fmt::Debug + PartialEq>(expected: Answer, ask: impl AsyncFn() -> Result<Answer, E>) {
    let mut last = None;
    let polling = tokio::time::timeout(DEADLINE, async {
        while last != Some(Ok(expected)) {
            last = Some(ask().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(polling.await.is_ok(), "{expected:?} was expected, {last:?} found");
}

async fn until_ready(health: &Health, ready: bool) {
    let polling = tokio::time::timeout(DEADLINE, async {
        while health.ready() != ready {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(polling.await.is_ok(), "ready was never {ready}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_reach_both_stores_and_a_lost_one_is_built_again() {
    let (Some(brokers), Some(postgres)) = (millrace_testkit::kafka(SUITE), millrace_testkit::postgres(SUITE)) else {
        return;
    };
    let Ok(mut redis) = millrace_testkit::Redis::start().map_err(|why| millrace_testkit::not_run(SUITE, "Redis", &why))
    else {
        return;
    };
    let name = millrace_testkit::unique("materializer");
    let names = Names::new(&format!("{name}.")).unwrap();
    let kafka = KafkaConfig {
        brokers: brokers.into(),
        partitions: PARTITIONS,
        replication_factor: 1,
        min_insync_replicas: 1,
        queue_records: 10_000,
        queue_kib: 65_536,
        linger_ms: 1,
        message_timeout_ms: 10_000,
        transaction_timeout_ms: 10_000,
        session_timeout_ms: 10_000,
        properties: BTreeMap::new(),
    };
    let log = Log::Kafka(KafkaLog::open(kafka, names.clone()).unwrap());
    log.create_topics().await.unwrap();
    let schema = name.replace('-', "_");
    let postgres = PostgresConfig { url: SecretUrl::from(postgres), schema, ..PostgresConfig::default() };
    let archive = Archive::postgres(&postgres, PARTITIONS).await.unwrap();
    let redis_config = RedisConfig { url: SecretUrl::from(redis.url().as_str()), ..RedisConfig::default() };
    let clock = Clock::system();
    let (hour, old) = (clock.hour(), Hour::of_ms(123));
    let live = LiveHours::connect(&redis_config, &names, PARTITIONS, Window::new(24, clock)).await.unwrap();

    append(&log, hour, 0, 5, 3).await;
    append(&log, old, 1, 4, 1).await;
    let (health, stop) = (Health::new(), CancellationToken::new());
    let views = Views { live: Some(live.clone()), archive: archive.clone() };
    let running = tokio::spawn(millrace_materializer::run(
        config(),
        log.clone(),
        "test".into(),
        views,
        health.clone(),
        stop.clone(),
    ));
    until(totals(3), async || live.hour(hour).await).await;
    until(totals(3), async || archive.hour(hour).await).await;
    until(totals(1), async || archive.hour(old).await).await;
    until(totals(0), async || live.hour(hour.plus(-1)).await).await;
    until_ready(&health, true).await;

    // An update is taken in, by both.
    append(&log, hour, 1, 9, 4).await;
    until(totals(7), async || live.hour(hour).await).await;
    until(totals(7), async || archive.hour(hour).await).await;

    // Redis comes back empty while the log is quiet: it is filled again, and zeros are never said.
    redis.lose_everything();
    until_ready(&health, false).await;
    append(&log, hour, 1, 10, 5).await;
    until(totals(8), async || archive.hour(hour).await).await;
    redis.restart().unwrap();
    until(totals(8), async || live.hour(hour).await).await;
    until_ready(&health, true).await;

    stop.cancel();
    running.await.unwrap().unwrap();
    log.close(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_engine_fills_its_own_archive() {
    let folder = tempfile::tempdir().unwrap();
    let embedded =
        EmbeddedConfig { directory: folder.path().join("data"), partitions: PARTITIONS, ..EmbeddedConfig::default() };
    let embedded = EmbeddedLog::open(embedded, Names::default()).unwrap();
    let archive = Archive::embedded(embedded.database(), PARTITIONS).unwrap();
    let log = Log::Embedded(embedded);
    log.create_topics().await.unwrap();
    let hour = Clock::system().hour();
    append(&log, hour, 0, 5, 3).await;
    let (health, stop) = (Health::new(), CancellationToken::new());
    let views = Views { live: None, archive: archive.clone() };
    let running = tokio::spawn(millrace_materializer::run(
        Config { workers: 1, ..config() },
        log.clone(),
        "test".into(),
        views,
        health.clone(),
        stop.clone(),
    ));
    until(totals(3), async || archive.hour(hour).await).await;
    append(&log, hour, 1, 9, 4).await;
    until(totals(7), async || archive.hour(hour).await).await;
    until_ready(&health, true).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    log.close(Duration::from_secs(5)).await;
}
