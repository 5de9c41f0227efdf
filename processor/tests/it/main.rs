//! The counting stage against a small reference: whatever is interleaved with it, every event counts once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, HashMap, HashSet};

use millrace_contracts::{AnalyticsEvent, Hour, HourlyCount, Kind, StateKey, Topic};
use millrace_log::{Batch, Record, Stage, Step};
use millrace_processor::{Counting, PartitionState};
use proptest::prelude::*;

/// The reference: three numbers an hour, by brute force.
#[derive(Default)]
struct Reference(BTreeMap<Hour, (u64, u64, HashSet<String>)>);

impl Reference {
    fn count(&mut self, event: &AnalyticsEvent) {
        let (clicks, impressions, users) = self.0.entry(Hour::of_ms(event.timestamp_ms)).or_default();
        match event.kind {
            Kind::Click => *clicks += 1,
            Kind::Impression => *impressions += 1,
        }
        users.insert(event.user.clone());
    }

    fn totals(&self) -> BTreeMap<Hour, (u64, u64, u64)> {
        self.0
            .iter()
            .map(|(&hour, (clicks, impressions, users))| (hour, (*clicks, *impressions, users.len() as u64)))
            .collect()
    }
}

/// A log of one partition: what an engine would keep, with the newest record of a key only.
#[derive(Default)]
struct Kept {
    next_offset: u64,
    changes: HashMap<Vec<u8>, Vec<u8>>,
    hourly: BTreeMap<Hour, HourlyCount>,
}

const PARTITION: u32 = 3;

impl Kept {
    fn commit(&mut self, batch: &Batch, step: &Step) {
        for (topic, partition, key, value) in step.iter() {
            assert_eq!(partition, PARTITION);
            if topic == Topic::STATE {
                assert!(StateKey::parse(key).is_some());
                assert!(value.len() <= 256 * 1024);
                self.changes.insert(key.to_vec(), value.to_vec());
            } else {
                let count = HourlyCount::decode(value).unwrap();
                assert_eq!(key, HourlyCount::key(count.hour, PARTITION).as_bytes());
                let before = self.hourly.insert(count.hour, count);
                assert!(before.is_none_or(|before| before.next_offset < count.next_offset), "positions only rise");
            }
        }
        self.next_offset = batch.next_offset().unwrap_or(self.next_offset);
    }

    fn restore(&self) -> PartitionState {
        let mut state = Counting.new_state(PARTITION);
        for (key, value) in &self.changes {
            Counting.load(&mut state, key, value).unwrap();
            // At least once: an overlap is harmless.
            Counting.load(&mut state, key, value).unwrap();
        }
        state
    }

    fn totals(&self) -> BTreeMap<Hour, (u64, u64, u64)> {
        self.hourly.iter().map(|(&hour, count)| (hour, (count.clicks, count.impressions, count.unique_users))).collect()
    }
}

fn batch_of(events: &[AnalyticsEvent], from: u64) -> Batch {
    let mut batch = Batch::new(PARTITION);
    for (event, offset) in events.iter().zip(from..) {
        let mut value = Vec::new();
        event.as_ref().encode(&mut value);
        batch.push(Record { offset, timestamp_ms: 0, key: event.user.as_bytes(), value: Some(&value) });
    }
    batch
}

#[derive(Debug, Clone)]
enum Happens {
    Committed(Vec<AnalyticsEvent>),
    Aborted(Vec<AnalyticsEvent>),
    /// The process dies, before or after a commit; another one restores.
    Restarted,
}

fn any_event() -> impl Strategy<Value = AnalyticsEvent> {
    (0..5_i64, 0..12_u32, any::<bool>()).prop_map(|(hour, user, click)| AnalyticsEvent {
        event_id: None,
        timestamp_ms: hour * 3_600_000 + i64::from(user),
        user: format!("user-{user}"),
        kind: if click { Kind::Click } else { Kind::Impression },
        received_at_ms: 0,
    })
}

fn anything() -> impl Strategy<Value = Happens> {
    let events = || prop::collection::vec(any_event(), 1..20);
    prop_oneof![
        4 => events().prop_map(Happens::Committed),
        2 => events().prop_map(Happens::Aborted),
        1 => Just(Happens::Restarted),
    ]
}

proptest! {
    #[test]
    fn aborts_and_restarts_change_no_count(story in prop::collection::vec(anything(), 1..40)) {
        let (mut reference, mut kept) = (Reference::default(), Kept::default());
        let mut state = Counting.new_state(PARTITION);
        for happens in story {
            match happens {
                Happens::Committed(events) => {
                    let batch = batch_of(&events, kept.next_offset);
                    let mut step = Step::default();
                    Counting.apply(&mut state, &batch, &mut step).unwrap();
                    kept.commit(&batch, &step);
                    for event in &events {
                        reference.count(event);
                    }
                }
                Happens::Aborted(events) => {
                    let undo = Counting.apply(&mut state, &batch_of(&events, kept.next_offset), &mut Step::default()).unwrap();
                    Counting.undo(&mut state, undo);
                }
                Happens::Restarted => state = kept.restore(),
            }
            for (hour, totals) in reference.totals() {
                prop_assert_eq!(state.totals(hour), totals);
            }
        }
        prop_assert_eq!(kept.totals(), reference.totals());
    }
}

#[test]
fn many_new_users_are_written_in_chunks_of_bounded_size() {
    let users = 80_000;
    let events: Vec<AnalyticsEvent> = (0..users)
        .map(|user| AnalyticsEvent {
            event_id: None,
            timestamp_ms: 5,
            user: format!("user-{user}"),
            kind: Kind::Click,
            received_at_ms: 0,
        })
        .collect();
    let (mut kept, mut step) = (Kept::default(), Step::default());
    let batch = batch_of(&events, 0);
    Counting.apply(&mut Counting.new_state(PARTITION), &batch, &mut step).unwrap();
    kept.commit(&batch, &step);
    assert_eq!(kept.restore().totals(Hour::of_ms(5)), (users, 0, users));
    let chunks = kept.changes.keys().filter(|key| matches!(StateKey::parse(key), Some(StateKey::Users { .. })));
    assert_eq!(chunks.count(), 3);
}

#[test]
fn foreign_records_are_left_aside_and_the_rest_counts() {
    let mut batch = batch_of(&[], 0);
    let mut good = Vec::new();
    let event = |timestamp_ms| AnalyticsEvent {
        event_id: None,
        timestamp_ms,
        user: "kek".into(),
        kind: Kind::Impression,
        received_at_ms: 0,
    };
    event(0).as_ref().encode(&mut good);
    let mut before_1970 = Vec::new();
    event(-1).as_ref().encode(&mut before_1970);
    let mut beyond_9999 = Vec::new();
    event(i64::MAX).as_ref().encode(&mut beyond_9999);
    let values: [Option<&[u8]>; 6] =
        [None, Some(b"{}"), Some(&before_1970), Some(&good), Some(&beyond_9999), Some(&good[..9])];
    for (value, offset) in values.into_iter().zip(0..) {
        batch.push(Record { offset, timestamp_ms: 0, key: b"", value });
    }
    let (mut state, mut step) = (Counting.new_state(PARTITION), Step::default());
    Counting.apply(&mut state, &batch, &mut step).unwrap();
    assert_eq!(state.totals(Hour::of_ms(0)), (0, 1, 1));
    assert_eq!(step.iter().filter(|(topic, ..)| *topic == Topic::HOURLY).count(), 1);
}

#[test]
fn a_change_that_is_not_ours_is_refused() {
    let mut state = Counting.new_state(0);
    assert!(Counting.load(&mut state, b"something", b"").is_err());
    assert!(Counting.load(&mut state, b"2026-11-21T08Z/0/c", b"xx").is_err());
}
