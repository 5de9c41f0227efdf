//! Tiers over the embedded engine's archive: caching, monotonic reads, refill requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use fjall::{Database, KeyspaceCreateOptions};
use millrace_base::{Clock, Span};
use millrace_contracts::{Exactness, Hour, HourlyCount, ProjectionWrite, WriteOutcome};
use millrace_query::{Config, HourCounts, HourReader as _, ReadError, ReadModels, Tier, Tiers};
use millrace_store::{Archive, ArchiveWriter, HourlyStore as _, Totals};
use tempfile::TempDir;

use crate::harness::{NOW_MS, config};

const CURRENT: Hour = Hour::of_ms(NOW_MS);

struct Fixture {
    tiers: Tiers,
    now_ms: Arc<AtomicI64>,
    writer: ArchiveWriter,
    database: Database,
    at: Option<u64>,
    refills: Arc<AtomicUsize>,
    _directory: TempDir,
}

impl Fixture {
    fn new(config: &Config) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::builder(directory.path()).open().unwrap();
        let archive = Archive::embedded(&database, 1).unwrap();
        let writer = archive.writer();
        let now_ms = Arc::new(AtomicI64::new(NOW_MS));
        let clock = Arc::clone(&now_ms);
        let refills = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&refills);
        let refill = Arc::new(move |_| _ = counter.fetch_add(1, Ordering::SeqCst));
        let models = ReadModels { live: None, archive, live_hours: 24, refill: Some(refill), log: Arc::default() };
        let tiers = Tiers::new(models, config, Clock::new(move || clock.load(Ordering::SeqCst)));
        Self { tiers, now_ms, writer, database, at: None, refills, _directory: directory }
    }

    /// Writes the count of an hour as of the next record of the log.
    async fn count(&mut self, hour: Hour, clicks: u64) {
        let next = self.at.map_or(1, |at| at + 1);
        let (generation, impressions, unique_users, exactness) = (1, 0, 1, Exactness::Exact);
        let count = HourlyCount {
            hour,
            partition: 0,
            generation,
            next_offset: next,
            clicks,
            impressions,
            unique_users,
            exactness,
        };
        let write = ProjectionWrite {
            partition: 0,
            expected: self.at,
            next,
            last_record: None,
            caught_up: true,
            counted: None,
            items: &[count][..],
        };
        assert_eq!(self.writer.write(&[write]).await, Ok(vec![WriteOutcome::Applied]));
        self.at = Some(next);
    }

    /// Rebuilds the archive from a log with lower counts.
    async fn rebuild(&mut self, hour: Hour, clicks: u64) {
        let positions = self.database.keyspace("view.position", KeyspaceCreateOptions::default).unwrap();
        positions.remove(0_u32.to_be_bytes()).unwrap();
        self.at = None;
        self.count(hour, clicks).await;
    }

    async fn read(&self, hour: Hour) -> Result<HourCounts, ReadError> {
        self.tiers.read(hour, CURRENT).await
    }

    fn pass(&self, ms: i64) {
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

fn config_with(archive_ttl_ms: u64) -> Config {
    Config { archive_cache_ttl: Span(Duration::from_millis(archive_ttl_ms)), ..config() }
}

fn clicks(counts: Result<HourCounts, ReadError>) -> u64 {
    counts.unwrap().totals.clicks
}

#[tokio::test]
async fn an_incomplete_archive_is_rebuilding() {
    let fixture = Fixture::new(&config());
    for hour in [CURRENT, CURRENT.plus(-1), CURRENT.plus(1), Hour::from_index(0)] {
        assert_eq!(fixture.read(hour).await, Err(ReadError::Rebuilding));
    }
    assert_eq!(fixture.tiers.read_range(CURRENT.plus(-5), CURRENT, CURRENT).await, Err(ReadError::Rebuilding));
}

#[tokio::test]
async fn caches_answers_of_the_archive_with_their_as_of() {
    let mut fixture = Fixture::new(&config_with(1_000));
    let (past, empty, ancient) = (CURRENT.plus(-30), CURRENT.plus(-29), Hour::from_index(5));
    fixture.count(past, 1).await;
    fixture.count(CURRENT, 1).await;
    assert_eq!(clicks(fixture.read(past).await), 1);
    for hour in [empty, ancient] {
        assert_eq!(fixture.read(hour).await.unwrap().totals, Totals::default());
    }
    for hour in [past, empty, ancient, CURRENT] {
        fixture.count(hour, 2).await;
    }
    fixture.pass(999);
    for (hour, n) in [(past, 1), (empty, 0), (ancient, 0), (CURRENT, 2)] {
        assert_eq!(clicks(fixture.read(hour).await), n, "{hour}: only the current hour is not cached");
    }
    for (back, second) in [(-24, 2), (-25, 1)] {
        let hour = CURRENT.plus(back);
        for (n, served) in [(1, 1), (2, second)] {
            fixture.count(hour, n).await;
            assert_eq!(
                clicks(fixture.read(hour).await),
                served,
                "{back}: without Redis the last 24 hours are not cached"
            );
        }
    }
    assert_eq!(
        fixture.read(ancient).await.unwrap().as_of_ms,
        NOW_MS,
        "as of the read of the archive's first and last hour"
    );
    fixture.pass(1);
    for hour in [past, empty, ancient] {
        let counts = fixture.read(hour).await.unwrap();
        assert_eq!((counts.totals.clicks, counts.as_of_ms, counts.tier), (2, NOW_MS + 1_000, Tier::Archive), "{hour}");
    }
}

#[tokio::test]
async fn never_serves_lower_counts_than_before() {
    let mut fixture = Fixture::new(&config());
    let hour = CURRENT.plus(-3);
    for hour in [hour, CURRENT] {
        fixture.count(hour, 5).await;
        assert_eq!(clicks(fixture.read(hour).await), 5);
    }
    fixture.rebuild(hour, 3).await;
    fixture.pass(100);
    for hour in [hour, CURRENT] {
        let counts = fixture.read(hour).await.unwrap();
        assert_eq!((counts.totals.clicks, counts.tier, counts.stale), (5, Tier::Memory, true), "{hour}");
        assert_eq!(counts.as_of_ms, NOW_MS);
    }
    let range = fixture.tiers.read_range(hour, CURRENT, CURRENT).await.unwrap();
    assert_eq!((range[0].totals.clicks, range[0].stale), (5, true));
    fixture.count(hour, 6).await;
    assert_eq!(clicks(fixture.read(hour).await), 6);
}

#[tokio::test]
async fn limits_the_refill_requests_of_a_scan() {
    let mut fixture = Fixture::new(&Config { max_refill_rate: 3, ..config() });
    for back in 30..130 {
        fixture.count(CURRENT.plus(-back), 1).await;
    }
    for back in 30..130 {
        assert_eq!(clicks(fixture.read(CURRENT.plus(-back)).await), 1);
    }
    let sent = fixture.refills.load(Ordering::SeqCst);
    assert!((3..100).contains(&sent), "{sent}: three at first, and three more per second");
}

#[tokio::test]
async fn a_range_has_the_counts_of_its_hours() {
    let mut fixture = Fixture::new(&config());
    let first = CURRENT.plus(-200);
    for (i, n) in [(0, 1), (3, 4), (199, 7)] {
        fixture.count(first.plus(i), n).await;
    }
    let range = fixture.tiers.read_range(first.plus(-1), first.plus(200), CURRENT).await.unwrap();
    assert_eq!(range.len(), 201);
    for (i, counts) in (-1..).zip(range) {
        assert_eq!(counts, fixture.read(first.plus(i)).await.unwrap(), "{i}");
    }
}

#[tokio::test]
async fn empty_hours_outside_the_archive_cost_no_read() {
    let mut fixture = Fixture::new(&config_with(60_000));
    fixture.count(CURRENT.plus(-25), 1).await;
    assert_eq!(fixture.read(CURRENT.plus(-26)).await.unwrap().totals, Totals::default());
    // From now on, a read of the archive fails.
    fixture
        .database
        .keyspace("view.position", KeyspaceCreateOptions::default)
        .unwrap()
        .remove(0_u32.to_be_bytes())
        .unwrap();
    assert_eq!(fixture.read(CURRENT.plus(-25)).await, Err(ReadError::Rebuilding));
    for i in 0..10_000 {
        for hour in [Hour::from_index(i), CURRENT.plus(i + 1)] {
            assert_eq!(fixture.read(hour).await.unwrap().totals, Totals::default());
        }
    }
}
