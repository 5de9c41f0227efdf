//! Users and event ids that collide under the public hash: they count apart, and the key that keeps them apart is part of
//! the state.

use std::path::PathBuf;

use millrace_contracts::{EventWindow, Exactness, Hour, Kind, StateKey, UserDelta, UserHash, partition_of};
use millrace_log::{Stage, Step};
use millrace_processor::{Counting, CountingBounds, PartitionState};

use crate::engine::{Engine, Input, PARTITION, PARTITIONS, batch_of, encoded, event};

fn counting() -> Counting {
    Counting::new(PARTITIONS, EventWindow::default(), CountingBounds::default(), PathBuf::new())
}

fn click(user: &str, id: Option<&str>) -> Input {
    Input { timestamp_ms: 0, value: Some(encoded(&event(user, 0, Kind::Click, id))), repeat: false }
}

/// Clicks and unique users of the first hour.
fn totals(state: &PartitionState) -> (u64, u64) {
    let (clicks, _, users, exactness) = state.totals(Hour::of_ms(0)).unwrap();
    assert_eq!(exactness, Exactness::Exact);
    (clicks, users)
}

/// Different users of the partition that have one hash under rapidhash v3 with its public secrets: where the second
/// block's last word equals the state after the first block, the state becomes zero, whatever the word before it is.
fn colliding_users() -> impl Iterator<Item = String> {
    const SECRETS: [u64; 2] = [0x8bb8_4b93_962e_acc9, 0x4b33_a62e_d433_d4a3];
    let mix = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
        let low = product as u64;
        low ^ (product >> 64) as u64
    };
    let word = |text: &str| u64::from_le_bytes(text.as_bytes().try_into().unwrap());
    let blocks = (0..1_000_000_u32).find_map(|number| {
        let block = format!("{number:016}");
        let state = mix(word(&block[..8]) ^ SECRETS[1], word(&block[8..]) ^ mix(SECRETS[1], SECRETS[0]));
        let text = String::from_utf8(state.to_le_bytes().to_vec()).ok()?;
        (!text.chars().any(char::is_control)).then_some((block, text))
    });
    let (block, state) = blocks.unwrap();
    let user = move |number: u32, tail: u32| format!("{block}{number:08}{state}{tail:016}");
    let own = |tail: &u32| partition_of(UserHash::of(&user(0, *tail)), PARTITIONS) == PARTITION;
    let tail = (0..1_000).find(own).unwrap();
    (0..).map(move |number| user(number, tail))
}

#[test]
fn users_that_collide_under_the_public_hash_count_apart() {
    let users: Vec<String> = colliding_users().take(1_000).collect();
    assert!(users.iter().all(|user| UserHash::of(user) == UserHash::of(&users[0])));
    let log: Vec<Input> = users.iter().map(|user| click(user, None)).collect();
    let (counting, mut engine) = (counting(), Engine::default());
    let mut state = counting.new_state(PARTITION);
    engine.step(&counting, &mut state, &batch_of(&log, 0, log.len()));
    assert_eq!(totals(&state), (1_000, 1_000));
    // Other processes hash with the same key.
    let restored = engine.restore(&self::counting(), &log, true);
    assert_eq!(totals(&restored), (1_000, 1_000));
}

#[test]
fn a_user_with_the_hash_of_another_does_not_swallow_its_events() {
    let log: Vec<Input> = colliding_users().take(2).map(|user| click(&user, Some("order-1"))).collect();
    let (counting, mut engine) = (counting(), Engine::default());
    let mut state = counting.new_state(PARTITION);
    let stats = engine.step(&counting, &mut state, &batch_of(&log, 0, log.len()));
    assert_eq!((totals(&state), stats.duplicates), ((2, 2), 0));
}

#[test]
fn the_key_is_recorded_once_and_decides_the_same_after_aborts_and_restores() {
    let user = colliding_users().next().unwrap();
    let log = [click(&user, Some("a")), click(&user, Some("a")), click(&user, Some("b"))];
    let (counting, mut engine) = (counting(), Engine::default());
    let mut state = counting.new_state(PARTITION);
    let is_key = |key: &[u8]| StateKey::parse(key) == Some(StateKey::HashKey(PARTITION));
    // An aborted step has recorded nothing, so the next one does.
    for _ in 0..2 {
        let mut step = Step::default();
        let undo = counting.apply(&mut state, &batch_of(&log, 0, 1), &mut step).unwrap();
        assert_eq!(step.iter().filter(|(_, _, key, _)| is_key(key)).count(), 1);
        counting.undo(&mut state, undo);
    }
    engine.step(&counting, &mut state, &batch_of(&log, 0, 1));
    // The duplicate comes after a restore in another process.
    let counting = self::counting();
    let mut state = engine.restore(&counting, &log, true);
    let mut step = Step::default();
    counting.apply(&mut state, &batch_of(&log, 1, 2), &mut step).unwrap();
    assert_eq!(totals(&state), (2, 1));
    assert!(!step.iter().any(|(_, _, key, _)| is_key(key)), "a second key");
    assert_eq!(engine.compacted().keys().filter(|key| is_key(key)).count(), 1);
}

/// Other hashes would count the users of its hours twice.
#[test]
fn state_of_a_version_without_keys_keeps_its_hashes() {
    let user = colliding_users().next().unwrap();
    let mut users = Vec::new();
    UserDelta::encode(&[UserHash::of(&user)], &mut users);
    let counting = counting();
    let mut state = counting.new_state(PARTITION);
    counting.load(&mut state, b"1970-01-01T00Z/3/d/1", &users).unwrap();
    let mut step = Step::default();
    counting.apply(&mut state, &batch_of(&[click(&user, None)], 0, 1), &mut step).unwrap();
    assert_eq!(totals(&state), (1, 1));
    assert!(!step.iter().any(|(_, _, key, _)| StateKey::parse(key) == Some(StateKey::HashKey(PARTITION))));
}
