//! Retention drops whole tables; a compacted topic remains complete.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millrace_base::{Size, Span};
use millrace_contracts::Topic;
use millrace_log::{Batch, EmbeddedConfig, Limits, Log, LogError, RunOptions, Stage, StageError, Status, Step};
use tokio_util::sync::CancellationToken;

use crate::support;

async fn start_of(log: &Log, topic: Topic) -> u64 {
    let topics = log.describe().await.unwrap();
    topics.iter().find(|info| info.topic == topic).unwrap().partitions[0].start
}

async fn wait_for_start(log: &Log, topic: Topic) -> u64 {
    wait_for_start_at(log, topic, 1).await
}

async fn wait_for_start_at(log: &Log, topic: Topic, least: u64) -> u64 {
    let began = Instant::now();
    loop {
        let start = start_of(log, topic).await;
        if start >= least {
            return start;
        }
        assert!(began.elapsed() < Duration::from_mins(1), "the start remains {start}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_log_past_its_size_is_truncated_and_reports_its_start() {
    let directory = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig {
        retention_bytes: Size::from_mib(2),
        retention_check_interval: Span::from_millis(50),
        ..support::config(directory.path())
    };
    let log = support::open(&config);
    support::append(&log, Topic::EVENTS, 0..60_000).await;
    support::append(&log, Topic::LATE, 0..60_000).await;
    // A process without consumers drops nothing: it does not know what others have not read.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(start_of(&log, Topic::LATE).await, 0);
    let consumer = Consumer::run(&log, &Held::released()).await;
    let start = wait_for_start(&log, Topic::EVENTS).await;
    consumer.end().await;
    let LogError::Refused(why) = support::read_all(&log, Topic::EVENTS, start - 1).unwrap_err() else {
        panic!("read below the start")
    };
    assert!(why.detail.contains("analytics.events/0"), "{why}");
    drop(log);
    let log = support::open(&EmbeddedConfig { retention_check_interval: Span::from_secs(3_600), ..config });
    let start = start_of(&log, Topic::EVENTS).await;
    let records = support::read_all(&log, Topic::EVENTS, start).unwrap();
    assert_eq!(records.len() as u64, 60_000 - start);
    assert_eq!(records[0].0, start);
    let limits = Limits { wait: Duration::from_mins(1), ..Limits::default() };
    let fetched = log.fetch(Topic::EVENTS, 0, &[0, start - 1, start], limits).unwrap();
    let offsets: Vec<u64> = fetched.records.iter().map(|record| record.offset).collect();
    assert_eq!((offsets, fetched.decided), (vec![start], 3), "what retention dropped is missing");
}

#[tokio::test]
async fn a_compacted_topic_retains_the_newest_of_every_key() {
    let directory = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig {
        max_tail_records: 1_000,
        retention_check_interval: Span::from_millis(50),
        ..support::config(directory.path())
    };
    let log = support::open(&config);
    let consumer = Consumer::run(&log, &Held::released()).await;
    // The first keys are written only once: after retention only `latest` has them.
    support::append(&log, Topic::HOURLY, 0..500).await;
    support::append_as(&log, Topic::HOURLY, 500..20_000, |number| (1_000 + number % 700).to_string()).await;
    wait_for_start(&log, Topic::HOURLY).await;
    consumer.end().await;
    let mut log = Some(log);
    for _ in 0..2 {
        let log = log.take().unwrap_or_else(|| support::open(&config));
        let records = support::read_all(&log, Topic::HOURLY, 0).unwrap();
        assert!(records.is_sorted_by_key(|&(offset, ..)| offset), "by ascending offset");
        assert!(records.len() < 20_000, "compacted");
        let newest: BTreeMap<String, Vec<u8>> = records.into_iter().map(|(_, key, value)| (key, value)).collect();
        assert_eq!(newest.len(), 500 + 700);
        assert_eq!(newest["17"], support::value(17));
        let last = (500..20_000).rfind(|number| number % 700 == 3).unwrap();
        assert_eq!(newest["1003"], support::value(last));
    }
}

/// A stage that is held up until it is released, and that needs a replay of its last records.
#[derive(Clone, Default)]
struct Held {
    released: Arc<AtomicBool>,
    counted: Arc<AtomicU64>,
}

const REPLAYED: u64 = 30_000;

impl Held {
    fn released() -> Self {
        let held = Self::default();
        held.released.store(true, Ordering::Relaxed);
        held
    }
}

/// A stage that runs.
struct Consumer {
    stop: CancellationToken,
    running: tokio::task::JoinHandle<Result<(), LogError>>,
}

impl Consumer {
    async fn run(log: &Log, stage: &Held) -> Self {
        let (status, mut seen) = tokio::sync::watch::channel(Status::Starting);
        let (role, instance) = ("held".into(), "a".into());
        let options = RunOptions { role, instance, workers: 1, step: Limits::default(), status };
        let (log, stage, stop) = (log.clone(), stage.clone(), CancellationToken::new());
        let stopped = stop.clone();
        let running = tokio::spawn(async move { log.run_stage(stage, options, stopped).await });
        seen.wait_for(|status| matches!(status, Status::Running { .. })).await.unwrap();
        Self { stop, running }
    }

    async fn end(self) {
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
    }
}

impl Stage for Held {
    /// The offset after the last record.
    type State = u64;
    type Undo = u64;

    fn input(&self) -> Topic {
        Topic::EVENTS
    }

    fn changes(&self) -> Topic {
        Topic::STATE
    }

    fn outputs(&self) -> &'static [Topic] {
        &[]
    }

    fn new_state(&self, _: u32) -> u64 {
        0
    }

    fn load(&self, _: &mut u64, _: &[u8], _: &[u8]) -> Result<(), StageError> {
        Ok(())
    }

    fn replay_from(&self, next: &u64) -> Option<u64> {
        Some(next.saturating_sub(REPLAYED))
    }

    fn apply(&self, next: &mut u64, batch: &Batch, _: &mut Step) -> Result<u64, StageError> {
        if !self.released.load(Ordering::Relaxed) {
            return Err(StageError::unavailable("held up"));
        }
        Ok(std::mem::replace(next, batch.next_offset().unwrap()))
    }

    fn undo(&self, next: &mut u64, before: u64) {
        *next = before;
    }

    fn committed(&self, next: &mut u64, before: u64) {
        self.counted.fetch_add(*next - before, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_consumer_needs_is_retained() {
    let directory = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig {
        retention_bytes: Size::from_mib(1),
        retention_check_interval: Span::from_millis(50),
        ..support::config(directory.path())
    };
    let log = support::open(&config);
    let stage = Held::default();
    let consumer = Consumer::run(&log, &stage).await;
    support::append(&log, Topic::EVENTS, 0..60_000).await;
    // Nobody consumes this topic, and each run of retention comes to it after the events.
    support::append(&log, Topic::LATE, 0..60_000).await;
    wait_for_start(&log, Topic::LATE).await;
    assert_eq!(start_of(&log, Topic::EVENTS).await, 0, "records that were not counted are gone");
    stage.released.store(true, Ordering::Relaxed);
    assert_eq!(wait_for_start_at(&log, Topic::EVENTS, REPLAYED).await, REPLAYED, "the replay is gone");
    assert_eq!(stage.counted.load(Ordering::Relaxed), 60_000);
    consumer.end().await;
}
