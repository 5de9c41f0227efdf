//! Any interleaving of batches, aborts, restarts, rebalances and replays gives the same counts.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;

use millrace_contracts::{EventWindow, Exactness, HashKey, Kind, UserHash, partition_of};
use millrace_log::{Stage, Step};
use millrace_processor::{Counting, CountingBounds};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::engine::{Engine, Input, PARTITION, PARTITIONS, batch_of, encoded, event};
use crate::reference::Reference;

const HOUR: i64 = 3_600_000;

/// Bounds so tight that a hundred records reach all of them.
fn tight() -> CountingBounds {
    CountingBounds {
        max_exact_users: 20,
        evict_after_ms: 5 * HOUR,
        max_dedup_records: 15,
        dedup_window_ms: 120_000,
        max_memory: 2_000,
        min_spill_users: 3,
        merge_deltas: 4,
        max_deltas: 9,
        snapshot_bytes: 200,
    }
}

fn counting(bounds: CountingBounds) -> Counting {
    // One key, since sketches of one log are compared.
    Counting::new(PARTITIONS, EventWindow::default(), bounds, PathBuf::new()).with_hash_key(HashKey([7; 16]))
}

#[derive(Debug, Clone)]
enum Action {
    Commit(usize),
    Abort(usize),
    /// The process dies or loses the partition; the same or another process restores it.
    Restart {
        compacted: bool,
        elsewhere: bool,
    },
}

/// Users of the partition, and one of another partition.
fn users() -> Vec<String> {
    let of = |own: bool| {
        let names = (0..).map(|user| format!("user-{user}"));
        names.filter(move |user| (partition_of(UserHash::of(user), PARTITIONS) == PARTITION) == own)
    };
    of(true).take(45).chain(of(false).take(1)).collect()
}

prop_compose! {
    fn any_input()(
        later in prop_oneof![30 => 0..3_000_i64, 6 => 0..100_000_i64, 2 => HOUR..3 * HOUR, 1 => 5 * HOUR..12 * HOUR],
        ago in prop_oneof![20 => 0..HOUR, 8 => HOUR..9 * HOUR, 1 => -2 * HOUR..0, 1 => Just(i64::MAX)],
        user in prop_oneof![12 => 0..30_usize, 6 => 0..46_usize],
        click: bool,
        id in prop_oneof![3 => Just(None), 1 => (0..5_u8).prop_map(Some)],
        invalid in prop_oneof![40 => Just(0), 1 => 1..4_u8],
        repeats in prop_oneof![15 => Just(None), 1 => (1..8_usize).prop_map(Some)],
    ) -> (i64, i64, usize, bool, Option<u8>, u8, Option<usize>) {
        (later, ago, user, click, id, invalid, repeats)
    }
}

fn any_log() -> impl Strategy<Value = Vec<Input>> {
    let users = users();
    prop::collection::vec(any_input(), 1..250).prop_map(move |records| {
        let mut log_time = 100 * HOUR;
        let mut log: Vec<Input> = Vec::new();
        for (later, ago, user, click, id, invalid, repeats) in records {
            log_time += later;
            // A duplicate has the content of the first event, sometimes another one.
            let time = if id.is_some() { log_time - log_time % HOUR + i64::from(click) } else { log_time };
            let kind = if click { Kind::Click } else { Kind::Impression };
            let user = if id.is_some() { &users[user % 3] } else { &users[user] };
            let id = id.map(|id| id.to_string());
            let event =
                event(user, time.saturating_sub(ago), if id.is_some() { Kind::Click } else { kind }, id.as_deref());
            let value = match invalid {
                0 => Some(encoded(&event)),
                1 => None,
                2 => Some(b"{}".to_vec()),
                _ => Some(encoded(&millrace_contracts::AnalyticsEvent { user: "a\nb".into(), ..event })),
            };
            // Timestamps of the log may decrease; log time does not.
            let timestamp_ms = log_time - later / 2;
            let earlier =
                repeats.and_then(|back| log.get(log.len().checked_sub(back)?)).map(|input| input.value.clone());
            let repeat = earlier.is_some();
            log.push(Input { timestamp_ms, value: earlier.unwrap_or(value), repeat });
        }
        log
    })
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (1..12_usize).prop_map(Action::Commit),
        2 => (1..12_usize).prop_map(Action::Abort),
        1 => any::<(bool, bool)>().prop_map(|(compacted, elsewhere)| Action::Restart { compacted, elsewhere }),
    ]
}

/// How often the test reached each path.
#[derive(Default)]
struct Hits(BTreeMap<&'static str, u64>);

impl Hits {
    fn add(&mut self, what: &'static str, number: u64) {
        *self.0.entry(what).or_default() += number;
    }
}

/// Counts the whole log in batches of one size, with unbounded memory and without interruptions.
fn uninterrupted(log: &[Input], size: usize, hits: &RefCell<Hits>) -> Engine {
    let counting = counting(CountingBounds { max_memory: 1 << 30, min_spill_users: 1 << 20, ..tight() });
    let (mut engine, mut state) = (Engine::default(), counting.new_state(PARTITION));
    while engine.next_offset < log.len() as u64 {
        let batch = batch_of(log, engine.next_offset, size);
        let stats = engine.step(&counting, &mut state, &batch);
        let mut hits = hits.borrow_mut();
        hits.add("duplicates", stats.duplicates);
        hits.add("conflicts", stats.conflicts);
        hits.add("over bound", stats.over_bound);
        hits.add("expired", stats.expired);
        hits.add("snapshots", stats.snapshots);
    }
    engine
}

fn check(log: &[Input], actions: &[Action], hits: &RefCell<Hits>) -> Result<(), TestCaseError> {
    let mut counting = counting(tight());
    let (mut engine, mut state) = (Engine::default(), counting.new_state(PARTITION));
    // One last batch reads the rest.
    for action in actions.iter().chain([&Action::Commit(log.len())]) {
        match *action {
            Action::Commit(max) => {
                let batch = batch_of(log, engine.next_offset, max);
                engine.step(&counting, &mut state, &batch);
            }
            Action::Abort(max) => {
                let batch = batch_of(log, engine.next_offset, max);
                let undo = counting.apply(&mut state, &batch, &mut Step::default()).unwrap();
                counting.undo(&mut state, undo);
            }
            Action::Restart { compacted, elsewhere } => {
                hits.borrow_mut().add("spilled", state.spilled());
                if elsewhere {
                    counting = self::counting(tight());
                }
                state = engine.restore(&counting, log, compacted);
                hits.borrow_mut().add("replayed", u64::from(counting.replay_from(&state).is_some()));
            }
        }
    }
    prop_assert_eq!(engine.next_offset, log.len() as u64);
    hits.borrow_mut().add("repeats", log.iter().filter(|input| input.repeat).count() as u64);
    hits.borrow_mut().add("tombstones", engine.tombstones);

    let reference = Reference::of(log, &tight());
    prop_assert_eq!(&engine.quarantined, &reference.quarantined);
    prop_assert_eq!(engine.hourly.len(), reference.hours.len());
    for (hour, expected) in &reference.hours {
        let count = engine.hourly[hour];
        prop_assert_eq!((count.clicks, count.impressions), (expected.clicks, expected.impressions), "{}", hour);
        prop_assert_eq!(count.next_offset, expected.next_offset);
        let users = expected.users.len() as u64;
        match expected.switched_at {
            None => prop_assert_eq!((count.exactness, count.unique_users), (Exactness::Exact, users), "{}", hour),
            Some(exact) => {
                prop_assert_eq!(count.exactness, Exactness::Approximate, "{}", hour);
                prop_assert!(count.unique_users >= exact as u64 && count.unique_users.abs_diff(users) <= 2);
                hits.borrow_mut().add("approximate", 1);
            }
        }
    }
    for reason in &engine.quarantined {
        hits.borrow_mut().add(reason.1.as_str(), 1);
    }
    for size in [1, 7, log.len()] {
        let other = uninterrupted(log, size, hits);
        prop_assert_eq!(&other.hourly, &engine.hourly, "batches of {}", size);
        prop_assert_eq!(&other.quarantined, &engine.quarantined);
    }
    Ok(())
}

#[test]
fn no_interleaving_changes_a_count() {
    let hits = RefCell::new(Hits::default());
    let mut runner = TestRunner::new(ProptestConfig {
        cases: ProptestConfig::default().cases.max(300),
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let cases = (any_log(), prop::collection::vec(any_action(), 1..60));
    runner.run(&cases, |(log, actions)| check(&log, &actions, &hits)).unwrap_or_else(|failure| panic!("{failure}"));
    let hits = hits.into_inner().0;
    for path in [
        "repeats",
        "duplicates",
        "conflicts",
        "over bound",
        "expired",
        "snapshots",
        "tombstones",
        "spilled",
        "replayed",
        "approximate",
        "outside_window",
        "undecodable",
        "invalid_user",
        "wrong_partition",
        "tombstone",
    ] {
        assert!(hits.get(path).is_some_and(|&number| number > 0), "{path} never happened: {hits:?}");
    }
}
