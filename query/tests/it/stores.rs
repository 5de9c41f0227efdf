//! Tiers over Redis and PostgreSQL, while either or both are unavailable: who serves, and monotonic reads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use millrace_base::{Clock, Span};
use millrace_contracts::{CountedPosition, Exactness, Hour, HourlyCount, Names, ProjectionWrite, WriteOutcome};
use millrace_query::{Config, HourCounts, HourReader as _, MinPositions, ReadError, ReadModels, Tier, Tiers};
use millrace_store::{Archive, HourlyStore, LiveHours, LiveWindow, PostgresConfig, RedisConfig, SecretUrl};
use millrace_testkit::{Postgres, Redis};

use crate::harness::config;

/// The current hour of every test, even if the hour ends meanwhile.
static CURRENT: LazyLock<Hour> = LazyLock::new(|| Hour::current(&Clock::system()));

struct Servers {
    redis: Redis,
    postgres: Postgres,
    live: LiveHours,
    archive: Archive,
    refills: Arc<AtomicUsize>,
    tiers: Tiers,
}

impl Servers {
    /// Dedicated servers, or `None` if they are not installed.
    async fn start() -> Option<Self> {
        let pause = Span(Duration::from_millis(100));
        let config = Config { breaker_window: 1, breaker_reset_timeout: pause, ..config() };
        Self::with(&config, PostgresConfig::default()).await
    }

    async fn with(config: &Config, postgres_config: PostgresConfig) -> Option<Self> {
        let skip = |why: String| millrace_testkit::not_run("query: stores", "Redis and PostgreSQL", &why);
        let (redis, postgres) = (Redis::start().map_err(skip).ok()?, Postgres::start().map_err(skip).ok()?);
        let names = Names::new(&format!("{}.", millrace_testkit::unique("query"))).unwrap();
        let window = LiveWindow::new(24, Clock::new(|| CURRENT.start_ms() + 1_800_000));
        let settings = RedisConfig { url: SecretUrl::from(&*redis.url()), ..RedisConfig::default() };
        let live = LiveHours::connect(&settings, &names, 1, window).await.unwrap();
        let settings = PostgresConfig { url: SecretUrl::from(&*postgres.url()), ..postgres_config };
        let archive = Archive::postgres(&settings, 1).await.unwrap();
        let refills = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&refills);
        let models = ReadModels {
            live: Some(live.clone()),
            archive: archive.clone(),
            live_hours: 24,
            refill: Some(Arc::new(move |_| {
                counted.fetch_add(1, Ordering::SeqCst);
            })),
            log: Arc::default(),
        };
        let tiers = Tiers::new(models, config, millrace_base::Clock::system());
        Some(Self { redis, postgres, live, archive, refills, tiers })
    }

    async fn read(&self, hour: Hour) -> Result<(u64, Tier, bool), ReadError> {
        let summary = |counts: HourCounts| (counts.totals.clicks, counts.tier, counts.stale);
        self.tiers.read(hour, *CURRENT).await.map(summary)
    }

    /// Reads until the result is the expected one: connections and breakers take a while.
    async fn eventually(&self, hour: Hour, expected: Result<(u64, Tier, bool), ReadError>) {
        let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
        loop {
            let found = self.read(hour).await;
            if found == expected {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{hour}: {found:?}, not {expected:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Writes the clicks of hours as of the position `next` of the log.
async fn write(store: &mut impl HourlyStore, (expected, next): (Option<u64>, u64), hours: &[(Hour, u64)]) {
    let count = |&(hour, clicks): &(Hour, u64)| {
        let (generation, impressions, unique_users, exactness) = (1, 0, 1, Exactness::Exact);
        HourlyCount { hour, partition: 0, generation, next_offset: next, clicks, impressions, unique_users, exactness }
    };
    let counts: Vec<HourlyCount> = hours.iter().map(count).collect();
    let (partition, last_record, caught_up, counted) = (0, None, true, None);
    let write = ProjectionWrite { partition, expected, next, last_record, caught_up, counted, items: &counts[..] };
    assert_eq!(store.write(&[write]).await, Ok(vec![WriteOutcome::Applied]));
}

#[tokio::test]
async fn requests_one_refill_of_an_older_hour_and_reads_it_from_redis() {
    let Some(servers) = Servers::start().await else { return };
    let older = CURRENT.plus(-30);
    for (hour, clicks) in [(older, 3), (*CURRENT, 5)] {
        assert_eq!(servers.read(hour).await, Err(ReadError::Rebuilding), "{clicks}");
    }
    let hours = [(older, 3), (*CURRENT, 5)];
    write(&mut servers.live.writer(), (None, 1), &hours).await;
    write(&mut servers.archive.writer(), (None, 1), &hours).await;
    for _ in 0..3 {
        servers.eventually(older, Ok((3, Tier::Archive, false))).await;
    }
    assert_eq!(servers.refills.load(Ordering::SeqCst), 1);
    assert_eq!(servers.read(*CURRENT).await, Ok((5, Tier::Redis, false)));
    assert_eq!(servers.read(older.plus(-1)).await, Ok((0, Tier::Archive, false)));
    assert_eq!(servers.refills.load(Ordering::SeqCst), 1, "neither zeros nor live hours are refilled");

    let range = servers.tiers.read_range(older.plus(-1), older.plus(2), *CURRENT).await.unwrap();
    assert_eq!(range.iter().map(|counts| counts.totals.clicks).collect::<Vec<_>>(), [0, 3, 0]);

    let parts = servers.archive.snapshot(0..1, older..older.plus(1)).await.unwrap();
    servers.live.fill(older, &parts).await.unwrap();
    servers.eventually(older, Ok((3, Tier::Redis, false))).await;
    write(&mut servers.live.writer(), (Some(1), 2), &[(older, 4)]).await;
    servers.eventually(older, Ok((4, Tier::Redis, false))).await;
    servers.live.reset().await.unwrap();
    servers.eventually(older, Ok((4, Tier::Memory, true))).await;
    write(&mut servers.archive.writer(), (Some(1), 2), &[(older, 4)]).await;
    servers.eventually(older, Ok((4, Tier::Archive, false))).await;
}

#[tokio::test]
async fn each_store_serves_without_the_other() {
    let Some(mut servers) = Servers::start().await else { return };
    let (past, older) = (CURRENT.plus(-1), CURRENT.plus(-30));
    let hours = [(older, 3), (past, 4), (*CURRENT, 5)];
    write(&mut servers.live.writer(), (None, 1), &hours).await;
    write(&mut servers.archive.writer(), (None, 1), &hours).await;
    write(&mut servers.live.writer(), (Some(1), 2), &[(*CURRENT, 6)]).await;
    for (hour, clicks) in [(past, 4), (*CURRENT, 6)] {
        assert_eq!(servers.read(hour).await, Ok((clicks, Tier::Redis, false)));
    }

    // Redis is emptied and rebuilding: the archive serves, but never lower counts than before.
    servers.live.reset().await.unwrap();
    assert_eq!(servers.read(past).await, Ok((4, Tier::Archive, false)));
    assert_eq!(servers.read(*CURRENT).await, Ok((6, Tier::Memory, true)), "the archive has 5");
    write(&mut servers.archive.writer(), (Some(1), 2), &[(*CURRENT, 7)]).await;
    assert_eq!(servers.read(*CURRENT).await, Ok((7, Tier::Archive, true)));

    servers.redis.kill();
    for (hour, clicks, stale) in [(older, 3, false), (past, 4, false), (*CURRENT, 7, true)] {
        servers.eventually(hour, Ok((clicks, Tier::Archive, stale))).await;
    }
    servers.redis.restart().unwrap();
    let hours = [(older, 3), (past, 4), (*CURRENT, 8)];
    let mut writer = servers.live.writer();
    let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
    while writer.position(0).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    write(&mut writer, (writer_position(&servers).await, 3), &hours).await;
    for (hour, clicks) in [(past, 4), (*CURRENT, 8)] {
        servers.eventually(hour, Ok((clicks, Tier::Redis, false))).await;
    }

    servers.postgres.kill();
    for _ in 0..3 {
        servers.eventually(older, Err(ReadError::Unavailable)).await;
        for (hour, clicks) in [(past, 4), (*CURRENT, 8)] {
            assert_eq!(servers.read(hour).await, Ok((clicks, Tier::Redis, false)), "Redis serves without the archive");
        }
    }
    servers.redis.kill();
    for hour in [older, past, *CURRENT] {
        servers.eventually(hour, Err(ReadError::Unavailable)).await;
    }
    servers.postgres.restart().unwrap();
    servers.eventually(older, Ok((3, Tier::Archive, false))).await;
}

#[tokio::test]
async fn serves_the_high_water_mark_when_redis_lags_and_the_archive_is_unavailable() {
    let Some(mut servers) = Servers::start().await else { return };
    let past = CURRENT.plus(-1);
    write(&mut servers.archive.writer(), (None, 2), &[(past, 6)]).await;
    assert_eq!(servers.read(past).await, Ok((6, Tier::Archive, false)));
    write(&mut servers.live.writer(), (None, 1), &[(past, 4)]).await;
    assert_eq!(servers.read(past).await, Ok((6, Tier::Archive, false)), "Redis has 4");
    servers.postgres.kill();
    servers.eventually(past, Ok((6, Tier::Memory, true))).await;
    write(&mut servers.live.writer(), (Some(1), 2), &[(past, 6)]).await;
    assert_eq!(servers.read(past).await, Ok((6, Tier::Redis, false)));
}

#[tokio::test]
async fn events_are_visible_in_redis_while_the_archive_does_not_respond() {
    let long = Span(Duration::from_mins(1));
    let postgres = PostgresConfig { acquire_timeout: long, ..PostgresConfig::default() };
    let Some(mut servers) = Servers::with(&Config { store_timeout: long, ..config() }, postgres).await else { return };
    let (partition, generation, clicks, impressions, unique_users) = (0, 1, 5, 0, 1);
    let (hour, next_offset, exactness) = (*CURRENT, 1, Exactness::Exact);
    let count = HourlyCount { hour, partition, generation, next_offset, clicks, impressions, unique_users, exactness };
    let counted = Some(CountedPosition { partition, next_offset, log_time_ms: 0 });
    let (expected, next, last_record, caught_up) = (None, 1, None, true);
    let write = ProjectionWrite { partition, expected, next, last_record, caught_up, counted, items: &[count][..] };
    assert_eq!(servers.live.writer().write(&[write]).await, Ok(vec![WriteOutcome::Applied]));
    let mut position = MinPositions::default();
    position.add("events/0@0", "events").unwrap();
    // The first connection hangs.
    servers.postgres.freeze();
    let read = servers.tiers.read_at(hour, hour, &position, Duration::from_secs(30));
    tokio::select! {
        read = read => assert_eq!(read.map(|counts| (counts.totals.clicks, counts.tier)), Ok((5, Tier::Redis))),
        () = servers.tiers.follow() => unreachable!("it follows for ever"),
    }
}

/// The position in Redis after a restart: none, unless Redis saved in time.
async fn writer_position(servers: &Servers) -> Option<u64> {
    servers.live.writer().position(0).await.unwrap().map(|position| position.next_offset)
}
