//! Any interleaving of batches, aborts, restarts, moves and replays gives the same counts.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;

use millrace_contracts::{EventWindow, Exactness, Kind, UserHash, partition_of};
use millrace_log::{Stage, Step};
use millrace_processor::{Bounds, Counting};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::kept::{Input, Kept, PARTITION, PARTITIONS, batch_of, encoded, event};
use crate::reference::Reference;

const HOUR: i64 = 3_600_000;

/// Bounds so tight that a hundred records meet all of them.
fn tight() -> Bounds {
    Bounds {
        exact_users: 20,
        exact_for_ms: 5 * HOUR,
        dedup_records: 15,
        dedup_window_ms: 120_000,
        memory: 2_000,
        spill_users: 3,
        merge_deltas: 4,
        merge_anyway: 9,
        snapshot_bytes: 200,
    }
}

fn counting(bounds: Bounds) -> Counting {
    Counting::new(PARTITIONS, EventWindow::default(), bounds, PathBuf::new())
}

#[derive(Debug, Clone)]
enum Happens {
    Committed(usize),
    Aborted(usize),
    /// The process dies or loses the partition; this or another one takes it up from what is kept.
    Restarted {
        compacted: bool,
        elsewhere: bool,
    },
}

/// Users of the partition, and one who is not.
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
        foreign in prop_oneof![40 => Just(0), 1 => 1..4_u8],
    ) -> (i64, i64, usize, bool, Option<u8>, u8) {
        (later, ago, user, click, id, foreign)
    }
}

fn any_log() -> impl Strategy<Value = Vec<Input>> {
    let users = users();
    prop::collection::vec(any_input(), 1..250).prop_map(move |records| {
        let mut log_time = 100 * HOUR;
        let mut log: Vec<Input> = Vec::new();
        for (later, ago, user, click, id, foreign) in records {
            log_time += later;
            // A repeat has the content of the first one, now and then another.
            let time = if id.is_some() { log_time - log_time % HOUR + i64::from(click) } else { log_time };
            let kind = if click { Kind::Click } else { Kind::Impression };
            let user = if id.is_some() { &users[user % 3] } else { &users[user] };
            let id = id.map(|id| id.to_string());
            let event =
                event(user, time.saturating_sub(ago), if id.is_some() { Kind::Click } else { kind }, id.as_deref());
            let value = match foreign {
                0 => Some(encoded(&event)),
                1 => None,
                2 => Some(b"{}".to_vec()),
                _ => Some(encoded(&millrace_contracts::AnalyticsEvent { user: "a\nb".into(), ..event })),
            };
            // Timestamps of the log may fall; log time does not.
            log.push(Input { timestamp_ms: log_time - later / 2, value });
        }
        log
    })
}

fn anything() -> impl Strategy<Value = Happens> {
    prop_oneof![
        6 => (1..12_usize).prop_map(Happens::Committed),
        2 => (1..12_usize).prop_map(Happens::Aborted),
        1 => any::<(bool, bool)>().prop_map(|(compacted, elsewhere)| Happens::Restarted { compacted, elsewhere }),
    ]
}

/// How often each path was taken.
#[derive(Default)]
struct Hits(BTreeMap<&'static str, u64>);

impl Hits {
    fn add(&mut self, what: &'static str, number: u64) {
        *self.0.entry(what).or_default() += number;
    }
}

/// The whole log in batches of one size, by a process with all the memory it wants.
fn undisturbed(log: &[Input], size: usize, hits: &RefCell<Hits>) -> Kept {
    let counting = counting(Bounds { memory: 1 << 30, spill_users: 1 << 20, ..tight() });
    let (mut kept, mut state) = (Kept::default(), counting.new_state(PARTITION));
    while kept.next_offset < log.len() as u64 {
        let batch = batch_of(log, kept.next_offset, size);
        let told = kept.step(&counting, &mut state, &batch);
        let mut hits = hits.borrow_mut();
        hits.add("duplicates", told.duplicates);
        hits.add("conflicts", told.conflicts);
        hits.add("over bound", told.over_bound);
        hits.add("aged", told.aged);
        hits.add("snapshots", told.snapshots);
    }
    kept
}

fn tell(log: &[Input], story: &[Happens], hits: &RefCell<Hits>) -> Result<(), TestCaseError> {
    let mut counting = counting(tight());
    let (mut kept, mut state) = (Kept::default(), counting.new_state(PARTITION));
    // What the story does not read is read in one batch at its end.
    for happens in story.iter().chain([&Happens::Committed(log.len())]) {
        match *happens {
            Happens::Committed(most) => {
                let batch = batch_of(log, kept.next_offset, most);
                kept.step(&counting, &mut state, &batch);
            }
            Happens::Aborted(most) => {
                let batch = batch_of(log, kept.next_offset, most);
                let undo = counting.apply(&mut state, &batch, &mut Step::default()).unwrap();
                counting.undo(&mut state, undo);
            }
            Happens::Restarted { compacted, elsewhere } => {
                hits.borrow_mut().add("spilled", state.spilled());
                if elsewhere {
                    counting = self::counting(tight());
                }
                state = kept.restore(&counting, log, compacted);
                hits.borrow_mut().add("looked back", u64::from(counting.replay_from(&state).is_some()));
            }
        }
    }
    prop_assert_eq!(kept.next_offset, log.len() as u64);
    hits.borrow_mut().add("tombstones", kept.tombstones);

    let reference = Reference::of(log, &tight());
    prop_assert_eq!(&kept.parked, &reference.parked);
    prop_assert_eq!(kept.hourly.len(), reference.hours.len());
    for (hour, expected) in &reference.hours {
        let count = kept.hourly[hour];
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
    for reason in &kept.parked {
        hits.borrow_mut().add(reason.1.as_str(), 1);
    }
    for size in [1, 7, log.len()] {
        let other = undisturbed(log, size, hits);
        prop_assert_eq!(&other.hourly, &kept.hourly, "batches of {}", size);
        prop_assert_eq!(&other.parked, &kept.parked);
    }
    Ok(())
}

#[test]
fn nothing_that_happens_in_between_changes_a_count() {
    let hits = RefCell::new(Hits::default());
    let mut runner = TestRunner::new(ProptestConfig {
        cases: ProptestConfig::default().cases.max(300),
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let stories = (any_log(), prop::collection::vec(anything(), 1..60));
    runner.run(&stories, |(log, story)| tell(&log, &story, &hits)).unwrap_or_else(|failure| panic!("{failure}"));
    let hits = hits.into_inner().0;
    for path in [
        "duplicates",
        "conflicts",
        "over bound",
        "aged",
        "snapshots",
        "tombstones",
        "spilled",
        "looked back",
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
