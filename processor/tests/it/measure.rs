//! Benchmarks, ignored by default: `cargo test --release -p millrace-processor --test it measure -- --ignored --nocapture`

#![expect(clippy::print_stdout, reason = "a person reads the result")]

use std::path::PathBuf;
use std::time::Instant;

use millrace_contracts::{EventWindow, Hour, Kind, UserHash};
use millrace_log::{Batch, Record, Stage, Step};
use millrace_processor::{Counting, CountingBounds, PartitionState};

use crate::engine::{encoded, event};

const NOW: i64 = 1_763_712_000_000;
const STEP: u64 = 50_000;

fn counting() -> Counting {
    Counting::new(
        1,
        EventWindow::default(),
        CountingBounds { max_memory: 8 << 30, max_exact_users: 100_000_000, ..CountingBounds::default() },
        PathBuf::new(),
    )
}

/// Batches of `events` events by `users` users, `late` percent of them in one of the 168 hours before; with event ids.
fn batches_with_ids(events: u64, users: u64, late: u64, ids: bool) -> Vec<Batch> {
    let mut batches = Vec::new();
    for first in (0..events / STEP).map(|step| step * STEP) {
        let mut batch = Batch::new(0);
        for offset in first..first + STEP {
            let ago = if offset % 100 < late { 2 + UserHash::of(&offset.to_string()).get() % 168 } else { 0 };
            let user = format!("user-{}", UserHash::of(&format!("{offset}")).get() % users);
            let id = ids.then(|| format!("{offset:032x}"));
            let value = encoded(&event(&user, NOW - ago.cast_signed() * 3_600_000, Kind::Click, id.as_deref()));
            batch.push(Record { offset, timestamp_ms: NOW, key: user.as_bytes(), value: Some(&value) });
        }
        batches.push(batch);
    }
    batches
}

fn batches(events: u64, users: u64, late: u64) -> Vec<Batch> {
    batches_with_ids(events, users, late, false)
}

fn run(counting: &Counting, state: &mut PartitionState, batches: &[Batch]) -> f64 {
    let began = Instant::now();
    for batch in batches {
        let mut step = Step::default();
        let undo = counting.apply(state, batch, &mut step).unwrap();
        counting.committed(state, undo);
    }
    began.elapsed().as_secs_f64()
}

#[test]
#[ignore = "a benchmark"]
fn events_per_second() {
    for (users, late, ids) in [(10_000, 0, false), (1_000_000, 0, false), (1_000_000, 5, false), (1_000_000, 0, true)] {
        let (events, counting) = (4_000_000, counting());
        let batches = batches_with_ids(events, users, late, ids);
        let mut state = counting.new_state(0);
        let cold = run(&counting, &mut state, &batches);
        println!(
            "{users} users, {late} % late, event ids {ids}: {:.2} M events/s, {} MB spilled",
            events as f64 / cold / 1e6,
            state.spilled() >> 20
        );
    }
}

#[test]
#[ignore = "a benchmark"]
fn bytes_per_user_of_a_hot_hour() {
    for users in [100_000, 1_000_000, 1_800_000, 1_900_000, 10_000_000_u64] {
        let (counting, mut state) = (counting(), counting().new_state(0));
        let mut worst = 0.0_f64;
        let mut batch = Batch::new(0);
        for user in 0..users {
            let name = format!("user-{user}");
            let value = encoded(&event(&name, NOW, Kind::Click, None));
            batch.push(Record { offset: user, timestamp_ms: NOW, key: b"", value: Some(&value) });
            if (user + 1) % STEP == 0 {
                run(&counting, &mut state, std::slice::from_ref(&batch));
                batch.clear();
                if user > users / 2 {
                    worst = worst.max(state.memory() as f64 / (user + 1) as f64);
                }
            }
        }
        println!(
            "{users} users: {:.1} bytes each, {worst:.1} at most in the second half",
            state.memory() as f64 / users as f64
        );
    }
}

#[test]
#[ignore = "a benchmark"]
fn lookups_on_disk_and_restore() {
    const USERS: u64 = 1_000_000;
    let counting = counting();
    let (mut state, mut changes) = (counting.new_state(0), Vec::new());
    let mut log = Vec::new();
    for hour in 0..10_i64 {
        let mut batch = Batch::new(0);
        for user in 0..USERS {
            let value = encoded(&event(&format!("user-{user}"), NOW + (hour - 12) * 3_600_000, Kind::Click, None));
            let offset = hour.cast_unsigned() * USERS + user;
            batch.push(Record { offset, timestamp_ms: NOW, key: b"", value: Some(&value) });
        }
        log.push(batch);
    }
    for batch in &log {
        let mut step = Step::default();
        let undo = counting.apply(&mut state, batch, &mut step).unwrap();
        counting.committed(&mut state, undo);
        let written = step.iter().filter(|&(topic, ..)| topic == counting.changes());
        changes.extend(written.map(|(_, _, key, value)| (key.to_vec(), value.unwrap_or_default().to_vec())));
    }
    run(&counting, &mut state, &batches(STEP, 1, 0));
    let lookups = run(&counting, &mut state, &log[..1]);
    println!(
        "lookup in a run: {:.0} ns per event, {} MB in memory",
        lookups / USERS as f64 * 1e9,
        state.memory() >> 20
    );

    let began = Instant::now();
    let mut restored = counting.new_state(0);
    for (key, value) in changes.iter().filter(|(_, value)| !value.is_empty()) {
        counting.load(&mut restored, key, value).unwrap();
    }
    println!("10 M users restored in {:.2} s, {} MB", began.elapsed().as_secs_f64(), restored.memory() >> 20);
    let began = Instant::now();
    run(&counting, &mut restored, &batches(STEP, 1, 0));
    println!("first step after the restore: {:.2} s", began.elapsed().as_secs_f64());
    assert_eq!(restored.totals(Hour::of_ms(NOW - 12 * 3_600_000)).unwrap().2, USERS);
}
