//! Measurements, printed; run them with `--ignored --nocapture`.

use std::time::{Duration, Instant};

use millrace_contracts::{Position, Topic};
use millrace_log::{Batch, EmbeddedConfig, Limits, NewRecord, Outcome, RunOptions, Stage, StageError, Status, Step};
use tokio_util::sync::CancellationToken;

use crate::support;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn appends() {
    for (per_call, calls, in_flight) in [(1, 3_000, 1), (1, 200_000, 256), (1_000, 1_000, 1), (1_000, 2_000, 8)] {
        let directory = tempfile::tempdir().unwrap();
        let config =
            EmbeddedConfig { memtable_size: millrace_base::Size::from_mib(8), ..support::config(directory.path()) };
        let log = support::open(&config);
        let value = vec![b'v'; 100];
        let record = NewRecord { topic: Topic::EVENTS, partition: 0, key: b"user-4711", value: &value };
        let records = vec![record; per_call];
        let began = Instant::now();
        let mut waiting = std::collections::VecDeque::new();
        for _ in 0..calls {
            waiting.push_back(log.append(&records));
            if waiting.len() == in_flight {
                let outcomes = waiting.pop_front().unwrap().await;
                assert!(matches!(outcomes[0], Outcome::Acknowledged(_)), "{:?}", outcomes[0]);
            }
        }
        for receipts in waiting {
            receipts.await;
        }
        let per_second = (per_call * calls) as f64 / began.elapsed().as_secs_f64();
        eprintln!("{per_call} per call, {in_flight} in flight: {per_second:.0} records/s synced");
    }
}

/// Outputs one record per step and stores nothing, so that the cost is the engine's.
struct Summing;

impl Stage for Summing {
    type State = u64;
    type Undo = u64;

    fn input(&self) -> Topic {
        Topic::EVENTS
    }

    fn changes(&self) -> Topic {
        Topic::STATE
    }

    fn outputs(&self) -> &'static [Topic] {
        &[Topic::HOURLY]
    }

    fn new_state(&self, _: u32) -> u64 {
        0
    }

    fn load(&self, _: &mut u64, _: &[u8], _: &[u8]) -> Result<(), StageError> {
        Ok(())
    }

    fn apply(&self, state: &mut u64, batch: &Batch, step: &mut Step) -> Result<u64, StageError> {
        let before = *state;
        *state += batch.iter().map(|record| record.value.map_or(0, <[u8]>::len) as u64).sum::<u64>();
        let sum = *state;
        step.put(Topic::HOURLY, batch.partition(), "sum", |out| out.extend_from_slice(&sum.to_be_bytes()));
        Ok(before)
    }

    fn undo(&self, state: &mut u64, before: u64) {
        *state = before;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn stage() {
    const RECORDS: u64 = 2_000_000;
    let directory = tempfile::tempdir().unwrap();
    let config =
        EmbeddedConfig { memtable_size: millrace_base::Size::from_mib(8), ..support::config(directory.path()) };
    let log = support::open(&config);
    let value = vec![b'v'; 100];
    let records = vec![NewRecord { topic: Topic::EVENTS, partition: 0, key: b"user-4711", value: &value }; 1_000];
    for _ in 0..RECORDS / 1_000 {
        log.append(&records).await;
    }
    drop(log);
    let began = Instant::now();
    let log = support::open(&config);
    eprintln!("{RECORDS} records reopened in {:?}", began.elapsed());
    let (status, _) = tokio::sync::watch::channel(Status::Starting);
    let options =
        RunOptions { role: "bench".into(), instance: "1".into(), workers: 1, step: Limits::default(), status };
    let (stop, running) = (CancellationToken::new(), log.clone());
    let stopped = stop.clone();
    let began = Instant::now();
    let task = tokio::spawn(async move { running.run_stage(Summing, options, stopped).await });
    let mut reader = log.reader(Topic::STATE, &[(0, 0)]).unwrap();
    let mut batch = Batch::default();
    let mut position = 0;
    while position < RECORDS {
        reader.poll(&mut batch, Limits { wait: Duration::from_secs(1), ..Limits::default() }).unwrap();
        for record in batch.iter() {
            position = Position::decode(record.value.unwrap()).unwrap().next_offset;
        }
    }
    eprintln!("stage: {:.0} records/s", RECORDS as f64 / began.elapsed().as_secs_f64());
    stop.cancel();
    task.await.unwrap().unwrap();
}

/// The cost of an idle log.
#[tokio::test]
#[ignore = "a measurement"]
async fn idle() {
    let directory = tempfile::tempdir().unwrap();
    let log = support::open(&support::config(directory.path()));
    let ticks = || {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        stat.split(' ').skip(13).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>()
    };
    let before = ticks();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let memory = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    eprintln!("idle for 5 s: {} ticks of 10 ms, {memory}", ticks() - before);
    drop(log);
}
