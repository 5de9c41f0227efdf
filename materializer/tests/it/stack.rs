//! Shared fixtures: a log and stores per test, and helpers to wait for them.

use std::time::Duration;

use millrace_base::{Clock, Size, Span};
use millrace_contracts::{Exactness, Hour, HourlyCount, Names, Topic};
use millrace_log::{KafkaConfig, KafkaLog, Log, NewRecord, Outcome};
use millrace_materializer::{Config, Views};
use millrace_service::health::Health;
use millrace_store::{Archive, HourRead, LiveHours, LiveWindow, PostgresConfig, RedisConfig, SecretUrl, Totals};
use millrace_testkit::Redis;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const PARTITIONS: u32 = 2;
const DEADLINE: Duration = Duration::from_mins(1);
const SUITE: &str = "materializer";

pub(crate) fn config() -> Config {
    let ms = Span::from_millis;
    Config {
        admin: ([127, 0, 0, 1], 0).into(),
        workers: 2,
        max_step_records: 1_000,
        max_step_bytes: Size(1 << 20),
        max_step_time: ms(5),
        archive_interval: ms(10),
        index_interval: ms(10),
        probe_interval: ms(100),
        retry_min_delay: ms(50),
        retry_max_delay: ms(1_000),
    }
}

pub(crate) fn totals(n: u64) -> HourRead {
    HourRead::Complete(Totals { clicks: n, impressions: 0, unique_users: n, exactness: Exactness::Exact })
}

pub(crate) async fn append(log: &Log, hour: Hour, partition: u32, next_offset: u64, clicks: u64) {
    let exactness = Exactness::Exact;
    let unique_users = clicks;
    let count =
        HourlyCount { hour, partition, generation: 1, next_offset, clicks, impressions: 0, unique_users, exactness };
    let (mut value, key) = (Vec::new(), HourlyCount::key(hour, partition));
    count.encode(&mut value);
    let record = NewRecord { topic: Topic::HOURLY, partition, key: key.as_bytes(), value: &value };
    assert!(matches!(log.append(&[record]).await[..], [Outcome::Acknowledged(_)]));
}

/// Polls until the read returns the expected value.
pub(crate) async fn until<E: std::fmt::Debug + PartialEq>(
    expected: HourRead,
    ask: impl AsyncFn() -> Result<HourRead, E>,
) {
    let mut last = None;
    let polling = tokio::time::timeout(DEADLINE, async {
        while last != Some(Ok(expected)) {
            last = Some(ask().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(polling.await.is_ok(), "{expected:?} was expected, {last:?} found");
}

pub(crate) async fn until_ready(health: &Health, ready: bool) {
    let polling = tokio::time::timeout(DEADLINE, async {
        while health.ready() != ready {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(polling.await.is_ok(), "readiness never became {ready}");
}

/// Kafka and PostgreSQL shared by the run, and a Redis per test.
pub(crate) struct Stack {
    pub(crate) log: Log,
    pub(crate) redis: Redis,
    pub(crate) live: LiveHours,
    pub(crate) archive: Archive,
    /// The URL and the schema of the archive.
    pub(crate) postgres: (&'static str, String),
}

impl Stack {
    /// Starts with empty stores and new topics. `None` if a server is not available.
    pub(crate) async fn start() -> Option<Self> {
        let (brokers, postgres) = (millrace_testkit::kafka(SUITE)?, millrace_testkit::postgres(SUITE)?);
        let redis = Redis::start().map_err(|why| millrace_testkit::not_run(SUITE, "Redis", &why)).ok()?;
        let name = millrace_testkit::unique("materializer");
        let names = Names::new(&format!("{name}.")).unwrap();
        let kafka = KafkaConfig {
            brokers: brokers.into(),
            partitions: PARTITIONS,
            replication_factor: 1,
            min_insync_replicas: 1,
            max_queue_records: 50_000,
            max_queue_bytes: Size::from_mib(64),
            linger: Span::from_millis(1),
            message_timeout: Span::from_secs(10),
            transaction_timeout: Span::from_secs(10),
            step_interval: Span::from_millis(15),
            session_timeout: Span::from_secs(10),
            properties: millrace_log::Properties::default(),
            append_acks: millrace_log::AppendAcks::All,
            static_members: false,
        };
        let log = Log::Kafka(KafkaLog::open(kafka, names.clone()).unwrap());
        log.create_topics().await.unwrap();
        let schema = name.replace('-', "_");
        let config = PostgresConfig { url: SecretUrl::from(postgres), schema, ..PostgresConfig::default() };
        let archive = Archive::postgres(&config, PARTITIONS).await.unwrap();
        let redis_config = RedisConfig {
            url: SecretUrl::from(redis.url().as_str()),
            response_timeout: Span::from_millis(500),
            connect_timeout: Span::from_millis(500),
            ..RedisConfig::default()
        };
        let window = LiveWindow::new(24, Clock::system());
        let live = LiveHours::connect(&redis_config, &names, PARTITIONS, window).await.unwrap();
        Some(Self { log, redis, live, archive, postgres: (postgres, config.schema) })
    }

    /// Runs the materializer until the token is canceled.
    pub(crate) fn run(
        &self,
        health: &Health,
        stop: &CancellationToken,
    ) -> JoinHandle<Result<(), millrace_log::LogError>> {
        let views = Views { live: Some(self.live.clone()), archive: self.archive.clone(), index: None };
        let (log, name) = (self.log.clone(), "test".into());
        tokio::spawn(millrace_materializer::run(config(), log, name, views, health.clone(), stop.clone()))
    }
}
