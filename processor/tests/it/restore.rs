//! The changelog: which records the stage writes, how many bytes, and what a restore returns.

use std::path::PathBuf;

use millrace_contracts::{EventWindow, Exactness, Hour, Kind, StateKey, UserHash, partition_of};
use millrace_log::{Batch, Stage, Step};
use millrace_processor::{Counting, CountingBounds, PartitionState};

use crate::engine::{Engine, Input, PARTITION, PARTITIONS, batch_from, batch_of, encoded, event};

const HOUR: i64 = 3_600_000;

fn counting(bounds: CountingBounds) -> Counting {
    Counting::new(PARTITIONS, EventWindow::default(), bounds, PathBuf::new())
}

/// Users of the partition.
fn users() -> impl Iterator<Item = String> {
    (0..).map(|user| format!("user-{user}")).filter(|user| partition_of(UserHash::of(user), PARTITIONS) == PARTITION)
}

fn click(user: &str, hour: i64, log_time: i64) -> Input {
    Input { timestamp_ms: log_time, value: Some(encoded(&event(user, hour * HOUR, Kind::Click, None))), repeat: false }
}

/// Counts the next `max` records of a log.
fn count(engine: &mut Engine, counting: &Counting, state: &mut PartitionState, log: &[Input], max: usize) -> Batch {
    let batch = batch_of(log, engine.next_offset, max);
    engine.step(counting, state, &batch);
    batch
}

#[test]
fn deltas_are_split_into_records_of_bounded_size() {
    let log: Vec<Input> = users().take(80_000).map(|user| click(&user, 0, 0)).collect();
    let (mut engine, counting) = (Engine::default(), counting(CountingBounds::default()));
    count(&mut engine, &counting, &mut counting.new_state(PARTITION), &log, log.len());
    let restored = engine.restore(&counting, &log, true);
    assert_eq!(restored.totals(Hour::of_ms(5)).unwrap(), (80_000, 0, 80_000, Exactness::Exact));
    let chunks = engine.compacted();
    let chunks = chunks.keys().filter(|key| matches!(StateKey::parse(key), Some(StateKey::Users { .. })));
    assert_eq!(chunks.count(), 3);
}

#[test]
fn a_snapshot_replaces_the_deltas_of_a_closed_hour() {
    let (mut engine, counting) = (Engine::default(), counting(CountingBounds::default()));
    let mut log: Vec<Input> = users().take(70_000).map(|user| click(&user, 0, 0)).collect();
    log.push(click(&users().next().unwrap(), 3, 3 * HOUR));
    let mut state = counting.new_state(PARTITION);
    while engine.next_offset < log.len() as u64 {
        count(&mut engine, &counting, &mut state, &log, 1_000);
    }
    let of_first_hour = |engine: &Engine| {
        let mut keys: Vec<String> =
            engine.compacted().keys().map(|key| String::from_utf8(key.to_vec()).unwrap()).collect();
        keys.retain(|key| key.starts_with("1970-01-01T00Z"));
        keys.sort();
        keys
    };
    let snapshot = (0..3).map(|chunk| format!("1970-01-01T00Z/3/s/70001/{chunk}"));
    let expected: Vec<String> = std::iter::once("1970-01-01T00Z/3/c".into()).chain(snapshot).collect();
    assert_eq!(of_first_hour(&engine), expected);
    for compacted in [true, false] {
        let mut restored = engine.clone().restore(&counting, &log, compacted);
        assert_eq!(restored.totals(Hour::of_ms(0)).unwrap(), (70_000, 0, 70_000, Exactness::Exact));
        // A restore alone causes no new snapshot.
        let mut engine = engine.clone();
        log.push(click(&users().next().unwrap(), 3, 3 * HOUR));
        count(&mut engine, &counting, &mut restored, &log, 1);
        assert_eq!(of_first_hour(&engine), expected);
        log.pop();
    }
}

/// A step has the partitions of a worker, and must commit within the timeout of a transaction.
#[test]
fn the_snapshots_of_a_step_are_bounded_over_its_partitions() {
    let counting = counting(CountingBounds { snapshot_bytes: 1, ..CountingBounds::default() });
    let mut log: Vec<Input> = users().take(20).map(|user| click(&user, 0, 0)).collect();
    log.extend(users().take(2).map(|user| click(&user, 3, 3 * HOUR)));
    let mut states = [counting.new_state(PARTITION), counting.new_state(PARTITION)];
    let mut snapshots = Vec::new();
    for (from, until) in [(0, 10), (10, 20), (20, 21), (21, 22)] {
        let mut step = Step::default();
        for state in &mut states {
            let batch = batch_from(&log[from..until], from as u64);
            let undo = counting.apply(state, &batch, &mut step).unwrap();
            counting.committed(state, undo);
        }
        let is_snapshot = |key| matches!(StateKey::parse(key), Some(StateKey::Snapshot { .. }));
        snapshots.push(step.iter().filter(|(_, _, key, value)| value.is_some() && is_snapshot(key)).count());
    }
    assert_eq!(snapshots, [0, 0, 1, 1], "the hour closes with the third step");
}

#[test]
fn late_events_neither_load_nor_rewrite_their_hours() {
    const HOURS: i64 = 168;
    const USERS: usize = 5_000;
    let counting = counting(CountingBounds::default());
    let (mut engine, mut state) = (Engine::default(), counting.new_state(PARTITION));
    let names: Vec<String> = users().take(2 * USERS).collect();
    // A week of hours in sequence.
    let mut log: Vec<Input> = Vec::new();
    for hour in 0..HOURS {
        log.extend(names[..USERS].iter().map(|user| click(user, hour, hour * HOUR)));
        count(&mut engine, &counting, &mut state, &log, USERS);
    }
    // 40 steps of 2,000 events, 5 % of them of any of those hours, by old users and new ones.
    for step in 0..40 {
        let now = HOURS + 3;
        for n in 0..2_000 {
            let (user, hour) =
                if n % 20 == 0 { (n * 7 + step, i64::try_from(n * 31 + step).unwrap() % HOURS) } else { (n, now) };
            log.push(click(&names[user % names.len()], hour, now * HOUR));
        }
        if step == 1 {
            let on_disk = state.spilled();
            let all = HOURS as u64 * USERS as u64 * 8;
            assert!((all * 9 / 10..all * 13 / 10).contains(&on_disk), "{on_disk} of {all}");
            assert!(state.memory() < 2 << 20, "{} bytes in memory", state.memory());
        }
        count(&mut engine, &counting, &mut state, &log, 2_000);
    }
    // Each hour has some 24 late events, far below a quarter of its users, so none spilled again.
    let all = HOURS as u64 * USERS as u64 * 8;
    assert!(state.spilled() < all * 13 / 10, "{} bytes were written", state.spilled());
    let restored = engine.restore(&counting, &log, true);
    for hour in 0..HOURS + 4 {
        assert_eq!(restored.totals(Hour::from_index(hour)).unwrap(), state.totals(Hour::from_index(hour)).unwrap());
    }
}

#[test]
fn memory_is_bounded_and_released() {
    let bounds = CountingBounds { max_memory: 256 << 10, ..CountingBounds::default() };
    let counting = counting(bounds);
    let (mut engine, mut state) = (Engine::default(), counting.new_state(PARTITION));
    let names: Vec<String> = users().take(3_000).collect();
    let log: Vec<Input> = (0..60).flat_map(|hour| names.iter().map(move |user| click(user, hour, 60 * HOUR))).collect();
    while engine.next_offset < log.len() as u64 {
        count(&mut engine, &counting, &mut state, &log, 6_000);
        assert!(state.memory() < (256 << 10) + 400_000, "the bound plus one step: {}", state.memory());
    }
    let other = engine.restore(&counting, &log, false);
    for hour in 0..60 {
        assert_eq!(other.totals(Hour::from_index(hour)).unwrap(), (3_000, 0, 3_000, Exactness::Exact));
    }
    drop(other);
    let alone = state.memory();
    assert!(alone > 0);
    let probe = counting.new_state(0);
    drop(state);
    assert_eq!(probe.memory(), 0);
}

#[test]
fn memory_is_bounded_for_many_small_hours() {
    const HOURS: i64 = 20_000;
    const BOUND: u64 = 16 << 20;
    let bounds = CountingBounds { max_memory: BOUND, ..CountingBounds::default() };
    let counting_live = counting(bounds.clone());
    let (mut engine, mut state) = (Engine::default(), counting_live.new_state(PARTITION));
    let names: Vec<String> = users().take(100).collect();
    let late = HOURS * HOUR;
    // A step's users stay in memory until the next one.
    let most = BOUND + BOUND / 16 + 2 * 200 * 100 * 16;
    for hours in (0..HOURS).step_by(200) {
        let log: Vec<Input> =
            (hours..hours + 200).flat_map(|hour| names.iter().map(move |user| click(user, hour, late))).collect();
        let batch = batch_from(&log, engine.next_offset);
        engine.step(&counting_live, &mut state, &batch);
        assert!(state.memory() < most, "{} bytes after {hours} hours", state.memory());
    }
    let one = |state: &PartitionState, hour| state.totals(Hour::from_index(hour)).unwrap();
    assert_eq!(one(&state, 7), (100, 0, 100, Exactness::Exact));
    let counting_restored = counting(bounds);
    let restored = engine.restore(&counting_restored, &[], true);
    assert!(restored.memory() < most, "{} bytes restored", restored.memory());
    for hour in (0..HOURS).step_by(911) {
        assert_eq!(one(&restored, hour), (100, 0, 100, Exactness::Exact), "{hour}");
    }
}

#[test]
fn hours_without_a_log_time_do_not_expire_at_once() {
    let counting = counting(CountingBounds::default());
    let mut state = counting.new_state(PARTITION);
    // Two clicks and one impression in an old `HourCounters` record (schema id 4).
    counting.load(&mut state, b"1970-01-01T00Z/3/c", &[0, 0, 0, 0, 4, 4, 2]).unwrap();
    let now = 1_000 * 24;
    let log = [click(&users().next().unwrap(), 0, now * HOUR)];
    let stats = Engine::default().step(&counting, &mut state, &batch_of(&log, 0, 1));
    assert_eq!(stats.expired, 0);
    assert_eq!(state.totals(Hour::of_ms(0)).unwrap(), (3, 1, 1, Exactness::Exact));
}

#[test]
fn an_expired_hour_switches_to_a_sketch_without_a_new_count() {
    let counting = counting(CountingBounds { evict_after_ms: 10 * HOUR, ..CountingBounds::default() });
    let (mut engine, mut state) = (Engine::default(), counting.new_state(PARTITION));
    let names: Vec<String> = users().take(1_001).collect();
    let mut log: Vec<Input> = names[..1_000].iter().map(|user| click(user, 0, 0)).collect();
    log.push(click(&names[0], 11, 11 * HOUR));
    count(&mut engine, &counting, &mut state, &log, 1_000);
    count(&mut engine, &counting, &mut state, &log, 1);
    assert_eq!(engine.hourly[&Hour::of_ms(0)].exactness, Exactness::Exact, "no event was counted in it");
    let keys = engine.compacted();
    assert!(
        keys.contains_key(&b"1970-01-01T00Z/3/s/1001/0"[..]) && !keys.contains_key(&b"1970-01-01T00Z/3/d/1000"[..])
    );
    let mut restored = engine.restore(&counting, &log, true);
    log.push(click(&names[1_000], 0, 11 * HOUR));
    let mut other = engine.clone();
    count(&mut engine, &counting, &mut state, &log, 1);
    count(&mut other, &counting, &mut restored, &log, 1);
    let count = engine.hourly[&Hour::of_ms(0)];
    assert_eq!((count.clicks, count.exactness), (1_001, Exactness::Approximate));
    assert!((1_000..=1_003).contains(&count.unique_users), "{}", count.unique_users);
    assert_eq!(engine.hourly, other.hourly);
}
