//! Restores: the changes that were not deleted, and the replay of the newest input.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millrace_base::{Size, Span};
use millrace_contracts::Topic;
use millrace_log::{Batch, Log, NewRecord, Outcome, Stage, StageError, Status, Step};

use crate::harness::{Engine, PATIENCE, append, read_all, run_stage, until};
use crate::on_both_engines;
use crate::sink::{self, Shared};

on_both_engines!(
    a_deleted_key_is_not_loaded_again,
    the_input_is_replayed_in_bounded_batches_up_to_the_position,
    a_replay_starts_at_the_first_retained_record,
    a_restore_reports_its_progress,
    a_stopped_restore_ends_at_once,
);

/// Stores the value of each key, deletes it if the value is `-`, and records what a restore returns.
#[derive(Clone, Default)]
struct Journal {
    /// The number of records that it needs replayed.
    back: u64,
    observations: Arc<Mutex<Observations>>,
    /// The replay continues once the other end is dropped.
    gate: Option<Arc<Mutex<Receiver<()>>>>,
}

#[derive(Default)]
struct Observations {
    loaded: BTreeMap<String, String>,
    replayed: Vec<(u64, String)>,
    max_batch: usize,
    next: u64,
}

impl Stage for Journal {
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

    fn load(&self, state: &mut u64, key: &[u8], value: &[u8]) -> Result<(), StageError> {
        let (key, value) = (String::from_utf8_lossy(key).into_owned(), String::from_utf8_lossy(value).into_owned());
        if key == "next" {
            *state = value.parse().unwrap();
        } else {
            self.observations.lock().unwrap().loaded.insert(key, value);
        }
        Ok(())
    }

    fn replay_from(&self, state: &u64) -> Option<u64> {
        (self.back > 0 && *state > 0).then(|| state.saturating_sub(self.back))
    }

    fn replay(&self, _: &mut u64, batch: &Batch) {
        if let Some(gate) = &self.gate {
            assert!(gate.lock().unwrap().recv_timeout(PATIENCE).is_err());
        }
        let mut observations = self.observations.lock().unwrap();
        observations.max_batch = observations.max_batch.max(batch.len());
        observations.replayed.extend(batch.iter().map(|r| (r.offset, String::from_utf8_lossy(r.key).into_owned())));
    }

    fn apply(&self, state: &mut u64, batch: &Batch, step: &mut Step) -> Result<u64, StageError> {
        let before = *state;
        for record in batch.iter() {
            let key = String::from_utf8_lossy(record.key);
            match record.value {
                Some(b"-") => step.delete(Topic::STATE, batch.partition(), key),
                value => step.put(Topic::STATE, batch.partition(), key, |out| out.extend(value.unwrap())),
            }
            *state = record.offset + 1;
        }
        let next = state.to_string();
        step.put(Topic::STATE, batch.partition(), "next", |out| out.extend_from_slice(next.as_bytes()));
        Ok(before)
    }

    fn undo(&self, state: &mut u64, before: u64) {
        *state = before;
    }

    fn committed(&self, state: &mut u64, _: u64) {
        self.observations.lock().unwrap().next = *state;
    }
}

async fn write(log: &Log, pairs: &[(&str, &str)]) {
    for (key, value) in pairs {
        let record = NewRecord { topic: Topic::EVENTS, partition: 0, key: key.as_bytes(), value: value.as_bytes() };
        let outcomes = log.append(&[record]).await;
        assert!(matches!(outcomes[..], [Outcome::Acknowledged(_)]), "{outcomes:?}");
    }
}

/// Runs the journal until it reaches `next`; returns what its restore observed.
async fn run(log: &Log, back: u64, next: u64) -> Observations {
    let journal = Journal { back, ..Journal::default() };
    let mut running = run_stage(log, journal.clone(), "journal", "a");
    let at_work = |status: &Status| matches!(status, Status::Running { partitions } if partitions.contains(&0));
    tokio::time::timeout(PATIENCE, running.status.wait_for(at_work)).await.unwrap().unwrap();
    until("everything is read", || async { next == 0 || journal.observations.lock().unwrap().next == next }).await;
    running.end().await.unwrap();
    std::mem::take(&mut *journal.observations.lock().unwrap())
}

/// Closes and opens the log.
async fn reopen(engine: &Engine, log: Log) -> Log {
    log.close(Duration::from_secs(10)).await;
    drop(log);
    engine.open().await
}

fn pairs(observations: &Observations) -> Vec<(&str, &str)> {
    observations.loaded.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

async fn a_deleted_key_is_not_loaded_again(engine: Engine) {
    let log = engine.open().await;
    // In one step and in several; a key that is written after its deletion; one that never existed.
    write(&log, &[("a", "1"), ("b", "1"), ("b", "-"), ("c", "1")]).await;
    run(&log, 0, 4).await;
    write(&log, &[("a", "-"), ("c", "-"), ("c", "2"), ("never", "-")]).await;
    run(&log, 0, 8).await;
    assert_eq!(pairs(&run(&log, 0, 0).await), [("c", "2")]);
    let log = reopen(&engine, log).await;
    assert_eq!(pairs(&run(&log, 0, 0).await), [("c", "2")]);
    write(&log, &[("a", "3"), ("c", "-")]).await;
    run(&log, 0, 10).await;
    let log = reopen(&engine, log).await;
    assert_eq!(pairs(&run(&log, 0, 0).await), [("a", "3")]);
    // A reader of the topic receives the tombstones.
    let state = read_all(&log, Topic::STATE, &[(0, 0)]).await;
    let newest = state[&0].iter().rfind(|(_, key, _)| key == "c").unwrap();
    assert_eq!(newest.2, None);
}

async fn the_input_is_replayed_in_bounded_batches_up_to_the_position(engine: Engine) {
    let log = engine.open().await;
    append(&log, 0, (0..20_000).map(|n| n.to_string())).await;
    run(&log, 0, 20_000).await;
    // More input waits: it is counted, not replayed.
    append(&log, 0, (20_000..21_000).map(|n| n.to_string())).await;
    let observations = run(&log, 15_000, 21_000).await;
    let expected: Vec<(u64, String)> = (5_000..20_000).map(|n| (n, n.to_string())).collect();
    assert!(
        observations.replayed == expected,
        "{} records, {:?}",
        observations.replayed.len(),
        observations.replayed.first()
    );
    assert!(observations.max_batch <= 8_192, "{}", observations.max_batch);
    let observations = run(&log, 1, 0).await;
    assert_eq!(observations.replayed, [(20_999, "20999".to_owned())], "the position follows");
}

async fn a_replay_starts_at_the_first_retained_record(mut engine: Engine) {
    if let Engine::Embedded { config, .. } = &mut engine {
        config.memtable_size = Size::from_mib(1);
    }
    let log = engine.open().await;
    // Incompressible bytes: the embedded engine drops by size on disk.
    for round in 0..10 {
        let value: Vec<u8> = (0..1_000).map(|_| rand::random()).collect();
        let keys: Vec<String> = (0..1_000).map(|n| (round * 1_000 + n).to_string()).collect();
        let record = |key| NewRecord { topic: Topic::EVENTS, partition: 0, key: str::as_bytes(key), value: &value };
        let outcomes = log.append(&keys.iter().map(|key| record(key)).collect::<Vec<_>>()).await;
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Acknowledged(_))));
    }
    run(&log, 0, 10_000).await;
    if let Engine::Embedded { config, .. } = &mut engine {
        (config.retention_bytes, config.retention_check_interval) = (Size::from_mib(1), Span::from_millis(50));
    }
    let log = reopen(&engine, log).await;
    crate::kafka::drop_below(&engine, 9_000).await;
    // The embedded engine drops nothing in a process without consumers.
    let other = Shared::default();
    other.0.lock().unwrap().topic = Some(Topic::LATE);
    let consuming = sink::start_as("other", &log, &other);
    let start = || async { log.describe().await.unwrap()[0].partitions[0].start };
    until("the oldest is dropped", || async { start().await > 0 }).await;
    sink::end(consuming).await.unwrap();
    let observations = run(&log, 10_000, 0).await;
    let (first, last) = (observations.replayed.first().unwrap().0, observations.replayed.last().unwrap().0);
    assert!(first > 0 && last == 9_999 && observations.replayed.len() as u64 == 10_000 - first, "{first} to {last}");
}

async fn a_restore_reports_its_progress(engine: Engine) {
    let log = engine.open().await;
    append(&log, 0, (0..3_000).map(|n| n.to_string())).await;
    run(&log, 0, 3_000).await;
    let (open, gate) = channel();
    let journal = Journal { back: 2_000, gate: Some(Arc::new(Mutex::new(gate))), ..Journal::default() };
    let mut running = run_stage(&log, journal, "journal", "a");
    // It waits before the first replayed record: the changes are loaded, the input is not.
    let half = |status: &Status| {
        matches!(status, Status::Restoring { partitions, progress }
            if partitions.contains(&0) && progress.done > 0 && progress.total >= progress.done + 2_000)
    };
    let seen = tokio::time::timeout(PATIENCE, running.status.wait_for(half)).await.unwrap().unwrap().clone();
    let Status::Restoring { progress, .. } = seen else { unreachable!() };
    assert!(progress.percent() < 100, "{progress:?}");
    drop(open);
    let at_work = |status: &Status| matches!(status, Status::Running { partitions } if partitions.contains(&0));
    tokio::time::timeout(PATIENCE, running.status.wait_for(at_work)).await.unwrap().unwrap();
    running.end().await.unwrap();
}

async fn a_stopped_restore_ends_at_once(engine: Engine) {
    let log = engine.open().await;
    append(&log, 0, (0..20_000).map(|n| n.to_string())).await;
    run(&log, 0, 20_000).await;
    let (open, gate) = channel();
    let journal = Journal { back: 20_000, gate: Some(Arc::new(Mutex::new(gate))), ..Journal::default() };
    let mut running = run_stage(&log, journal.clone(), "journal", "a");
    // It waits before the first of at least three replayed batches.
    let begun = |status: &Status| matches!(status, Status::Restoring { progress, .. } if progress.total >= 20_000);
    tokio::time::timeout(PATIENCE, running.status.wait_for(begun)).await.unwrap().unwrap();
    running.stop.cancel();
    drop(open);
    running.end().await.unwrap();
    let replayed = journal.observations.lock().unwrap().replayed.len();
    assert!(replayed <= 8_192, "{replayed} records");
}

/// Writes a change of 250 KiB for each record, and counts the loaded changes.
#[derive(Clone, Default)]
struct Bulk {
    loaded: Arc<Mutex<(u64, u64)>>,
}

impl Stage for Bulk {
    type State = ();
    type Undo = ();

    fn input(&self) -> Topic {
        Topic::EVENTS
    }

    fn changes(&self) -> Topic {
        Topic::STATE
    }

    fn outputs(&self) -> &'static [Topic] {
        &[]
    }

    fn new_state(&self, _: u32) {}

    fn load(&self, (): &mut (), _: &[u8], value: &[u8]) -> Result<(), StageError> {
        let mut loaded = self.loaded.lock().unwrap();
        (loaded.0, loaded.1) = (loaded.0 + 1, loaded.1 + value.len() as u64);
        Ok(())
    }

    fn apply(&self, (): &mut (), batch: &Batch, step: &mut Step) -> Result<(), StageError> {
        for record in batch.iter() {
            let key = String::from_utf8_lossy(record.key);
            step.put(Topic::STATE, batch.partition(), key, |out| {
                out.extend((0..32_000).flat_map(|_| rand::random::<u64>().to_le_bytes()));
            });
        }
        Ok(())
    }

    fn undo(&self, (): &mut (), (): ()) {}
}

/// Measures a restore of 10 million hashes; run it with `--ignored --nocapture`.
async fn measure(engine: Engine) {
    let log = engine.open().await;
    for partition in 0..crate::harness::PARTITIONS {
        append(&log, partition, (0..105).map(|n| n.to_string())).await;
    }
    let writing = run_stage(&log, Bulk::default(), "bulk", "a");
    let written = || async {
        let state = read_all(&log, Topic::STATE, &crate::harness::from_start()).await;
        state.values().flatten().filter(|(_, key, _)| key.parse::<u32>().is_ok()).count() == 315
    };
    until("all is written", written).await;
    writing.end().await.unwrap();
    let log = reopen(&engine, log).await;
    let (bulk, began) = (Bulk::default(), std::time::Instant::now());
    let mut running = run_stage(&log, bulk.clone(), "bulk", "a");
    let all = |status: &Status| matches!(status, Status::Running { partitions } if partitions.len() == 3);
    running.status.wait_for(all).await.unwrap();
    let (changes, bytes) = *bulk.loaded.lock().unwrap();
    eprintln!("{changes} changes, {} MB restored in {:?}", bytes >> 20, began.elapsed());
    running.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn measure_kafka() {
    if let Some(engine) = Engine::kafka("restore time") {
        measure(engine).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn measure_embedded() {
    measure(Engine::embedded()).await;
}
