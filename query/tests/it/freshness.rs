//! Tiers behind a log of the embedded engine: what is cached, what is stale, and reads that wait for a position.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use millrace_base::{Clock, Span};
use millrace_contracts::{CountedPosition, Exactness, Hour, HourlyCount, Names, ProjectionWrite, Topic, WriteOutcome};
use millrace_log::{EmbeddedConfig, EmbeddedLog, Log, NewRecord, Outcome};
use millrace_query::{Config, HourReader as _, MinPositions, ReadError, ReadModels, Tiers};
use millrace_store::{Archive, ArchiveWriter, HourlyStore as _};
use tempfile::TempDir;

use crate::harness::{NOW_MS, config};

const CURRENT: Hour = Hour::of_ms(NOW_MS);
/// Of no live hour.
const OLDER: Hour = Hour::from_index(5);
const LONG: Duration = Duration::from_mins(1);

struct Fixture {
    tiers: Arc<Tiers>,
    log: Log,
    writer: ArchiveWriter,
    at: Option<u64>,
    _directory: TempDir,
}

impl Fixture {
    async fn new(config: &Config) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = EmbeddedConfig {
            directory: directory.path().join("data"),
            min_free_disk: millrace_base::Size(0),
            ..EmbeddedConfig::default()
        };
        let log = EmbeddedLog::open(settings, Names::default()).unwrap();
        let archive = Archive::embedded(log.database(), 1).unwrap();
        let (writer, log) = (archive.writer(), Log::Embedded(log));
        let opened = Arc::new(OnceLock::from(log.clone()));
        let models = ReadModels { live: None, archive, live_hours: 24, refill: None, log: opened };
        // A clock that stands still: nothing leaves the cache by its age.
        let tiers = Arc::new(Tiers::new(models, config, Clock::new(|| NOW_MS)));
        let followed = Arc::clone(&tiers);
        tokio::spawn(async move { followed.follow().await });
        let mut fixture = Self { tiers, log, writer, at: None, _directory: directory };
        fixture.write(OLDER, 0, None).await;
        fixture
    }

    /// Appends an event. Returns its position.
    async fn append(&self) -> MinPositions {
        let record = NewRecord { topic: Topic::EVENTS, partition: 0, key: b"k", value: b"v" };
        let [Outcome::Acknowledged(offset)] = self.log.append(&[record]).await[..] else { panic!("not acknowledged") };
        position(offset)
    }

    /// Writes clicks of an hour, and how many events are counted.
    async fn write(&mut self, hour: Hour, clicks: u64, counted: Option<u64>) {
        let next = self.at.map_or(1, |at| at + 1);
        let (generation, impressions, unique_users, exactness) = (1, 0, 1, Exactness::Exact);
        let (partition, next_offset, last_record, caught_up) = (0, next, None, true);
        let count =
            HourlyCount { hour, partition, generation, next_offset, clicks, impressions, unique_users, exactness };
        let counted = counted.map(|next_offset| CountedPosition { partition, next_offset, log_time_ms: NOW_MS });
        let write = ProjectionWrite {
            partition,
            expected: self.at,
            next,
            last_record,
            caught_up,
            counted,
            items: &[count][..],
        };
        assert_eq!(self.writer.write(&[write]).await, Ok(vec![WriteOutcome::Applied]));
        self.at = Some(next);
    }

    async fn clicks(&self, hour: Hour) -> u64 {
        self.tiers.read(hour, CURRENT).await.unwrap().totals.clicks
    }

    async fn until(&self, what: &str, mut holds: impl FnMut(&Tiers) -> bool) {
        let deadline = tokio::time::Instant::now() + LONG;
        while !holds(&self.tiers) {
            assert!(tokio::time::Instant::now() < deadline, "{what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn position(offset: u64) -> MinPositions {
    let mut positions = MinPositions::default();
    positions.add(&format!("millrace.analytics.events/0@{offset}"), "millrace.analytics.events").unwrap();
    positions
}

fn cached_for_ever() -> Config {
    Config { archive_cache_ttl: Span(LONG), ..config() }
}

#[tokio::test]
async fn a_read_with_a_position_waits_for_a_store_that_has_it() {
    let mut fixture = Fixture::new(&cached_for_ever()).await;
    for (hour, clicks) in [(OLDER, 3), (CURRENT, 4)] {
        let position = fixture.append().await;
        let early = fixture.tiers.read_at(hour, CURRENT, &position, Duration::ZERO).await;
        assert_eq!(early, Err(ReadError::NotYetVisible));
        let tiers = Arc::clone(&fixture.tiers);
        let wanted = position.clone();
        let waiting = tokio::spawn(async move { tiers.read_at(hour, CURRENT, &wanted, LONG).await });
        let tiers = Arc::clone(&fixture.tiers);
        let wanted = position.clone();
        let range = tokio::spawn(async move { tiers.range_at(&wanted, LONG).await });
        // Counts without the end of their step are not known to contain the event.
        fixture.write(hour, clicks - 1, None).await;
        let early = fixture.tiers.read_at(hour, CURRENT, &position, Duration::ZERO).await;
        assert_eq!(early, Err(ReadError::NotYetVisible));
        assert!(!waiting.is_finished());
        fixture.write(hour, clicks, Some(clicks - 2)).await;
        assert_eq!(waiting.await.unwrap().unwrap().totals.clicks, clicks);
        assert_eq!(range.await.unwrap(), Ok(()));
        assert_eq!(
            fixture.tiers.read_at(hour, CURRENT, &position, Duration::ZERO).await.unwrap().totals.clicks,
            clicks
        );
    }
}

/// Any number of requests may read the current hour with a position, and each reads the archive.
#[tokio::test]
async fn reads_of_the_archive_with_a_position_are_bounded() {
    let config = Config { max_archive_reads: 0, store_timeout: Span(Duration::from_millis(20)), ..config() };
    let mut fixture = Fixture::new(&config).await;
    let position = fixture.append().await;
    fixture.write(CURRENT, 1, Some(1)).await;
    assert_eq!(fixture.clicks(CURRENT).await, 1, "one request at a time");
    assert_eq!(fixture.tiers.read_at(CURRENT, CURRENT, &position, LONG).await, Err(ReadError::Overloaded));
}

#[tokio::test]
async fn counts_are_not_cached_past_an_event_that_is_known() {
    let mut fixture = Fixture::new(&cached_for_ever()).await;
    let outside = Hour::from_index(50_000);
    for hour in [OLDER, outside] {
        assert_eq!(fixture.clicks(hour).await, 0);
    }
    let position = fixture.append().await;
    for hour in [OLDER, outside] {
        assert_eq!(fixture.clicks(hour).await, 0, "not counted yet");
        fixture.write(hour, 1, None).await;
        assert_eq!(fixture.clicks(hour).await, 1, "an answer that lacks an event is not cached");
    }
    fixture.write(OLDER, 2, Some(1)).await;
    assert_eq!(fixture.tiers.read_at(OLDER, CURRENT, &position, LONG).await.unwrap().totals.clicks, 2);
    // Without an event such a write does not happen.
    fixture.write(OLDER, 3, None).await;
    assert_eq!(fixture.clicks(OLDER).await, 2, "an answer with all events is cached");
    fixture.append().await;
    assert_eq!(fixture.clicks(OLDER).await, 3, "up to the next event");
}

#[tokio::test]
async fn a_store_that_lacks_an_event_for_long_is_stale_whoever_counts() {
    let config = Config { stale_after: Span(Duration::from_millis(300)), ..config() };
    let mut fixture = Fixture::new(&config).await;
    fixture.append().await;
    fixture.write(CURRENT, 1, Some(1)).await;
    for _ in 0..2 {
        fixture.append().await;
    }
    fixture
        .until("the number of events", |tiers| {
            tiers.notice().is_some_and(|notice| notice.starts_with("counting ") && notice.ends_with("2 events waiting"))
        })
        .await;
    for hour in [CURRENT, OLDER, CURRENT.plus(-2)] {
        let counts = fixture.tiers.read(hour, CURRENT).await.unwrap();
        assert!(counts.stale, "{hour}");
        assert_eq!(counts.coverage.up_to_ms, Some(NOW_MS), "{hour}: the log time of the last event counted");
    }
    assert!(fixture.tiers.read_range(OLDER, OLDER.plus(1), CURRENT).await.unwrap()[0].stale);
    fixture.write(CURRENT, 3, Some(3)).await;
    fixture.until("it catches up", |tiers| tiers.notice().is_none()).await;
    let counts = fixture.tiers.read(CURRENT, CURRENT).await.unwrap();
    assert_eq!((counts.totals.clicks, counts.stale), (3, false));
}
