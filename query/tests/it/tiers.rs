//! Which read model is asked for which hour, over the embedded engine's archive: what it costs, and what is never said.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use fjall::{Database, KeyspaceCreateOptions};
use millrace_base::Span;
use millrace_contracts::{Exactness, Hour, HourlyCount, ProjectionWrite, WriteOutcome};
use millrace_query::{Config, Hours as _, Known, Missed, Reads, Tier, Tiers};
use millrace_store::{Archive, ArchiveWriter, HourlyStore as _, Totals};
use tempfile::TempDir;

use crate::harness::{NOW_MS, config};

const CURRENT: Hour = Hour::of_ms(NOW_MS);

struct Shop {
    tiers: Tiers,
    now_ms: Arc<AtomicI64>,
    writer: ArchiveWriter,
    database: Database,
    at: Option<u64>,
    refills: Arc<AtomicUsize>,
    _directory: TempDir,
}

impl Shop {
    fn new(config: &Config) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::builder(directory.path()).open().unwrap();
        let archive = Archive::embedded(&database, 1).unwrap();
        let writer = archive.writer();
        let now_ms = Arc::new(AtomicI64::new(NOW_MS));
        let clock = Arc::clone(&now_ms);
        let refills = Arc::new(AtomicUsize::new(0));
        let asked = Arc::clone(&refills);
        let refresh = Arc::new(move |_| _ = asked.fetch_add(1, Ordering::SeqCst));
        let reads = Reads { live: None, archive, live_hours: 24, refresh: Some(refresh) };
        let tiers = Tiers::new(reads, config, Arc::new(move || clock.load(Ordering::SeqCst)));
        Self { tiers, now_ms, writer, database, at: None, refills, _directory: directory }
    }

    /// Writes an hour's count as the log's next record has it.
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
        let write = ProjectionWrite { partition: 0, expected: self.at, next, caught_up: true, items: &[count][..] };
        assert_eq!(self.writer.write(&[write]).await, Ok(vec![WriteOutcome::Applied]));
        self.at = Some(next);
    }

    /// The archive is built anew from a log that holds less.
    async fn begin_anew(&mut self, hour: Hour, clicks: u64) {
        let positions = self.database.keyspace("view.position", KeyspaceCreateOptions::default).unwrap();
        positions.remove(0_u32.to_be_bytes()).unwrap();
        self.at = None;
        self.count(hour, clicks).await;
    }

    async fn read(&self, hour: Hour) -> Result<Known, Missed> {
        self.tiers.read(hour, CURRENT).await
    }

    fn pass(&self, ms: i64) {
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

fn config_with(archive_for_ms: u64) -> Config {
    Config { archive_cache_ttl: Span(Duration::from_millis(archive_for_ms)), ..config() }
}

fn clicks(known: Result<Known, Missed>) -> u64 {
    known.unwrap().totals.clicks
}

#[tokio::test]
async fn nothing_is_known_before_the_archive_is_complete() {
    let shop = Shop::new(&config());
    for hour in [CURRENT, CURRENT.plus(-1), CURRENT.plus(1), Hour::from_index(0)] {
        assert_eq!(shop.read(hour).await, Err(Missed::Rebuilding));
    }
    assert_eq!(shop.tiers.bulk(CURRENT.plus(-5), CURRENT, CURRENT).await, Err(Missed::Rebuilding));
}

#[tokio::test]
async fn an_answer_is_used_again_for_a_moment_and_says_how_old_it_is() {
    let mut shop = Shop::new(&config_with(1_000));
    let (past, empty, ancient) = (CURRENT.plus(-30), CURRENT.plus(-29), Hour::from_index(5));
    shop.count(past, 1).await;
    shop.count(CURRENT, 1).await;
    assert_eq!(clicks(shop.read(past).await), 1);
    for hour in [empty, ancient] {
        assert_eq!(shop.read(hour).await.unwrap().totals, Totals::default());
    }
    for hour in [past, empty, ancient, CURRENT] {
        shop.count(hour, 2).await;
    }
    shop.pass(999);
    for (hour, n) in [(past, 1), (empty, 0), (ancient, 0), (CURRENT, 2)] {
        assert_eq!(clicks(shop.read(hour).await), n, "{hour}: the current hour has a body of its own");
    }
    for (back, second) in [(-24, 2), (-25, 1)] {
        let hour = CURRENT.plus(back);
        for (n, said) in [(1, 1), (2, second)] {
            shop.count(hour, n).await;
            assert_eq!(clicks(shop.read(hour).await), said, "{back}: without a Redis the last 24 are read anew");
        }
    }
    assert_eq!(shop.read(ancient).await.unwrap().as_of_ms, NOW_MS, "known then, when it was outside");
    shop.pass(1);
    for hour in [past, empty, ancient] {
        let known = shop.read(hour).await.unwrap();
        assert_eq!((known.totals.clicks, known.as_of_ms, known.tier), (2, NOW_MS + 1_000, Tier::Archive), "{hour}");
    }
}

#[tokio::test]
async fn less_than_was_said_is_not_said() {
    let mut shop = Shop::new(&config());
    let hour = CURRENT.plus(-3);
    for hour in [hour, CURRENT] {
        shop.count(hour, 5).await;
        assert_eq!(clicks(shop.read(hour).await), 5);
    }
    shop.begin_anew(hour, 3).await;
    shop.pass(100);
    for hour in [hour, CURRENT] {
        let known = shop.read(hour).await.unwrap();
        assert_eq!((known.totals.clicks, known.tier, known.stale), (5, Tier::Memory, true), "{hour}");
        assert_eq!(known.as_of_ms, NOW_MS);
    }
    let range = shop.tiers.bulk(hour, CURRENT, CURRENT).await.unwrap();
    assert_eq!((range[0].totals.clicks, range[0].stale), (5, true));
    shop.count(hour, 6).await;
    assert_eq!(clicks(shop.read(hour).await), 6);
}

#[tokio::test]
async fn a_scan_of_old_hours_asks_for_few_refills() {
    let mut shop = Shop::new(&Config { max_refill_rate: 3, ..config() });
    for back in 30..130 {
        shop.count(CURRENT.plus(-back), 1).await;
    }
    for back in 30..130 {
        assert_eq!(clicks(shop.read(CURRENT.plus(-back)).await), 1);
    }
    let asked = shop.refills.load(Ordering::SeqCst);
    assert!((3..100).contains(&asked), "{asked}: three, and as many again in each second that this took");
}

#[tokio::test]
async fn a_range_is_the_same_hours() {
    let mut shop = Shop::new(&config());
    let first = CURRENT.plus(-200);
    for (i, n) in [(0, 1), (3, 4), (199, 7)] {
        shop.count(first.plus(i), n).await;
    }
    let range = shop.tiers.bulk(first.plus(-1), first.plus(200), CURRENT).await.unwrap();
    assert_eq!(range.len(), 201);
    for (i, known) in (-1..).zip(range) {
        assert_eq!(known, shop.read(first.plus(i)).await.unwrap(), "{i}");
    }
}

#[tokio::test]
async fn hours_nobody_has_counted_do_not_touch_the_archive() {
    let mut shop = Shop::new(&config_with(60_000));
    shop.count(CURRENT.plus(-25), 1).await;
    assert_eq!(shop.read(CURRENT.plus(-26)).await.unwrap().totals, Totals::default());
    // Whoever asked it now would find nothing that it knows.
    shop.database
        .keyspace("view.position", KeyspaceCreateOptions::default)
        .unwrap()
        .remove(0_u32.to_be_bytes())
        .unwrap();
    assert_eq!(shop.read(CURRENT.plus(-25)).await, Err(Missed::Rebuilding));
    for i in 0..10_000 {
        for hour in [Hour::from_index(i), CURRENT.plus(i + 1)] {
            assert_eq!(shop.read(hour).await.unwrap().totals, Totals::default());
        }
    }
}
