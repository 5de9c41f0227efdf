//! The catalog of invalid records: each is quarantined with its bytes and the reason, and the partition continues.

use std::path::PathBuf;

use millrace_base::Span;
use millrace_base::limits::{MAX_EVENT_ID_BYTES, MAX_USER_BYTES};
use millrace_contracts::{
    AnalyticsEvent, EventWindow, Hour, Kind, QuarantineReason, QuarantineRecord, Topic, UserHash, partition_of,
};
use millrace_log::{Batch, Record, Stage, Step};
use millrace_processor::{Counting, CountingBounds};

use crate::engine::{encoded, event};

const NOW: i64 = 1_763_712_000_000;

/// A framed event from raw fields.
fn fields(id: &[u8], user: &[u8], kind: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, 1];
    for part in [id, &[2], user, kind, &[2]] {
        bytes.extend_from_slice(part);
    }
    bytes
}

#[test]
fn invalid_records_are_quarantined_with_their_reason_and_the_rest_counts() {
    use QuarantineReason::{InvalidUser, OutsideWindow, Tombstone, Undecodable, WrongPartition};
    let of = |partition| {
        let mut users = (0..100).map(|n| format!("user-{n}"));
        users.find(|user| partition_of(UserHash::of(user), 4) == partition).unwrap()
    };
    let (user, foreign_user) = (of(2), of(1));
    let at = |timestamp_ms| encoded(&event(&user, timestamp_ms, Kind::Click, None));
    let by = |user: &str| encoded(&event(user, NOW, Kind::Click, None));
    let good = at(NOW);
    let kek = [6, b'k', b'e', b'k'];
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        Some(bytes)
    };
    let mut trailing = good.clone();
    trailing.push(0);
    let invalid: Vec<(&str, Option<Vec<u8>>, QuarantineReason)> = vec![
        ("1, 31: no value", None, Tombstone),
        ("empty value", Some(Vec::new()), Undecodable),
        ("3: no magic byte", with(0, 1), Undecodable),
        ("4: an unknown id", with(1, 0x7f), Undecodable),
        ("5: the id of another subject", with(4, 2), Undecodable),
        ("7: truncated", Some(good[..good.len() - 1].to_vec()), Undecodable),
        ("7: only the head", Some(good[..3].to_vec()), Undecodable),
        ("8: trailing bytes", Some(trailing), Undecodable),
        ("9: a kind outside the enum", Some(fields(&[0], &kek, &[4])), Undecodable),
        ("9: a negative kind", Some(fields(&[0], &kek, &[1])), Undecodable),
        ("10: a union index beyond", Some(fields(&[4], &kek, &[0])), Undecodable),
        ("11: a string longer than the rest", Some(fields(&[0], &[100, b'k'], &[0])), Undecodable),
        ("12: a negative length", Some(fields(&[0], &[1], &[0])), Undecodable),
        ("14: a length of 2^62", Some(fields(&[0], &[0xff; 9], &[0])), Undecodable),
        ("16: a number of 11 bytes", Some(fields(&[0x80; 11], &kek, &[0])), Undecodable),
        ("17: invalid UTF-8", Some(fields(&[0], &[4, 0xff, 0xff], &[0])), Undecodable),
        ("19: the last millisecond of i64", Some(at(i64::MAX)), OutsideWindow),
        ("20: beyond the year 9999", Some(at(253_402_300_800_000)), OutsideWindow),
        ("before 1970", Some(at(-1)), OutsideWindow),
        ("older than accept_from", Some(at(999)), OutsideWindow),
        ("beyond future_tolerance", Some(at(NOW + 121_000)), OutsideWindow),
        ("23: a zero in the user", Some(by("a\0b")), InvalidUser),
        ("control characters above ASCII", Some(by("a\u{85}b")), InvalidUser),
        ("24: no user", Some(by("")), InvalidUser),
        ("a user of one byte too many", Some(by(&"u".repeat(MAX_USER_BYTES + 1))), InvalidUser),
        ("25: a user of 1 MB", Some(by(&"u".repeat(1_000_000))), InvalidUser),
        ("26: a user of another partition", Some(by(&foreign_user)), WrongPartition),
        ("33: JSON", Some(br#"{"user":"kek"}"#.to_vec()), Undecodable),
        ("33: Protobuf", Some(vec![0x0a, 3, b'k', b'e', b'k']), Undecodable),
        ("34: an object container file", Some(b"Obj\x01\x04\x14avro.codec".to_vec()), Undecodable),
    ];

    let window = EventWindow { accept_from_ms: 1_000, future_tolerance: Span::from_secs(60) };
    let counting = Counting::new(4, window, CountingBounds::default(), PathBuf::new());
    let (mut state, mut batch, mut step) = (counting.new_state(2), Batch::new(2), Step::default());
    // 2, 29: no key, and a timestamp before the epoch; 27, 28: the stage ignores headers.
    batch.push(Record { offset: 0, timestamp_ms: -1, key: b"", value: Some(&at(1_000)) });
    let accepted = [at(NOW), at(NOW + 120_000)];
    for (offset, value) in (1..).zip(&accepted) {
        batch.push(Record { offset, timestamp_ms: NOW, key: b"", value: Some(value) });
    }
    for (offset, (_, value, _)) in (3..).zip(&invalid) {
        batch.push(Record { offset, timestamp_ms: NOW, key: b"its key", value: value.as_deref() });
    }
    let undo = counting.apply(&mut state, &batch, &mut step).unwrap();
    assert_eq!((undo.stats().counted, undo.stats().quarantined.iter().sum()), (3, invalid.len() as u64));
    assert_eq!(state.totals(Hour::of_ms(NOW)).unwrap().0, 2);

    let copies = step.iter().filter(|(topic, ..)| *topic == Topic::LATE);
    let copies: Vec<_> =
        copies.map(|(_, _, key, value)| (key, QuarantineRecord::decode(value.unwrap()).unwrap())).collect();
    assert_eq!(copies.len(), invalid.len());
    for ((offset, (what, value, reason)), (_, copy)) in (3..).zip(&invalid).zip(&copies) {
        assert_eq!((copy.reason, copy.offset, copy.partition), (*reason, offset, 2), "{what}");
        assert_eq!((copy.log_time_ms, copy.key), (NOW, &b"its key"[..]), "{what}");
        assert_eq!(copy.value, value.as_deref(), "{what}");
        assert_eq!(copy.value_size, value.as_ref().map_or(0, Vec::len) as u64, "{what}");
    }
    let keys: Vec<_> = copies.iter().map(|(key, _)| std::str::from_utf8(key).unwrap()).collect();
    let hours: Vec<_> = keys.iter().filter(|&&key| key != "-").copied().collect();
    let this = Hour::of_ms(NOW).to_string();
    let mut expected = vec!["1970-01-01T00Z", &this];
    expected.extend([&*this; 6]);
    assert_eq!(hours, expected);
}

#[test]
fn foreign_changes_are_refused() {
    let counting = Counting::new(1, EventWindow::default(), CountingBounds::default(), PathBuf::new());
    let mut state = counting.new_state(0);
    for key in ["something", "2026-11-21T08Z/0/c", "2026-11-21T08Z/0/d/1", "2026-11-21T08Z/0/s/1/0", "time/0", "pos/0"]
    {
        assert!(counting.load(&mut state, key.as_bytes(), b"xx").is_err(), "{key}");
    }
}

/// The command service accepts exactly these limits, from the same constants.
#[test]
fn events_at_the_limits_of_the_command_service_count() {
    let counting = Counting::new(1, EventWindow::default(), CountingBounds::default(), PathBuf::new());
    let ids = ["i".repeat(MAX_EVENT_ID_BYTES), "j".into()];
    // One byte per character, two, three and four.
    let users = ["u", "é", "€", "🦀"].map(|c| {
        let user = c.repeat(MAX_USER_BYTES / c.len());
        user.clone() + &"u".repeat(MAX_USER_BYTES - user.len())
    });
    let (mut state, mut batch, mut step) = (counting.new_state(0), Batch::new(0), Step::default());
    for (offset, (user, id)) in (0..).zip(users.iter().flat_map(|user| ids.iter().map(move |id| (user, id)))) {
        let value = encoded(&event(user, NOW, Kind::Click, Some(id)));
        batch.push(Record { offset, timestamp_ms: NOW, key: b"", value: Some(&value) });
    }
    let undo = counting.apply(&mut state, &batch, &mut step).unwrap();
    let expected = (users.len() * ids.len()) as u64;
    assert_eq!((undo.stats().counted, undo.stats().quarantined.iter().sum()), (expected, 0));
}

/// Events outside the window are quarantined either way, but only some prove that processes have different settings.
#[test]
fn events_that_contradict_the_settings_are_reported() {
    const DAY: i64 = 24 * 3_600_000;
    let window = EventWindow { accept_from_ms: NOW - DAY, future_tolerance: Span::from_secs(60) };
    let counting = Counting::new(1, window, CountingBounds::default(), PathBuf::new());
    let disagreement = counting.disagreement();
    let mut state = counting.new_state(0);
    let mut step = |offset, timestamp_ms, received_at_ms| {
        let event = AnalyticsEvent { received_at_ms, ..event("kek", timestamp_ms, Kind::Click, None) };
        let mut batch = Batch::new(0);
        batch.push(Record { offset, timestamp_ms: NOW, key: b"", value: Some(&encoded(&event)) });
        let undo = counting.apply(&mut state, &batch, &mut Step::default()).unwrap();
        let stats = *undo.stats();
        counting.committed(&mut state, undo);
        (stats.quarantined[QuarantineReason::OutsideWindow as usize], stats.contradictions)
    };
    assert_eq!(step(0, NOW, NOW), (0, 0));
    // The clock of the command service is far ahead of log time. By its clock the event is fine.
    assert_eq!(step(1, NOW + DAY, NOW + DAY), (1, 0));
    assert!(!*disagreement.borrow());
    // Older than `accept_from`, or too far ahead of the time of acceptance: another value of the setting let them pass.
    assert_eq!(step(2, NOW - DAY - 1, NOW), (1, 1));
    assert_eq!(step(3, NOW + 200_000, NOW), (1, 1));
    assert!(*disagreement.borrow());
}
