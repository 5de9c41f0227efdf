//! The journal under crashes at every point of a write, read from anywhere, and damaged.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use millrace_base::{Size, Span};
use millrace_contracts::{JournalRecord, ProjectionPosition, Sender};
use proptest::prelude::*;

use super::{Entry, Format, From, Journal, JournalConfig, JournalError, JournalReader, verify};

fn config(directory: &Path, format: Format) -> JournalConfig {
    JournalConfig {
        directory: directory.into(),
        name: "main".into(),
        format,
        segment_size: Size(400),
        rotate_every: Span::from_secs(0),
        keep: 0,
    }
}

/// A record of a test: its number, µs since the epoch, payload.
type Numbered = (u64, i64, Vec<u8>);

fn append(journal: &mut Journal, batch: &[Numbered], next_offset: u64) -> Result<(), JournalError> {
    let records = batch.iter().map(|(number, received_at_us, payload)| {
        let sender = Sender { principal: "", client: "a", epoch: None };
        let (seq, crc32c) = (number + 1, crc32c::crc32c(payload));
        (*number, JournalRecord { sender, seq, received_at_us: *received_at_us, crc32c, payload })
    });
    journal.append(records, ProjectionPosition { next_offset, last_record: Some(!next_offset) })
}

fn read(directory: &Path, from: From) -> Vec<Numbered> {
    let (mut reader, mut entry) = (JournalReader::open(directory, from).unwrap(), Entry::default());
    let mut records = Vec::new();
    while let Some(number) = reader.next(&mut entry).unwrap() {
        assert!(entry.is_intact());
        records.push((number, entry.time_us().unwrap(), entry.payload.clone()));
    }
    records
}

/// The files of a directory, without the link.
fn image(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(directory).unwrap().map(Result::unwrap).filter(|file| file.file_type().unwrap().is_file());
    files.map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())).collect()
}

/// Batches with gaps between the numbers, and times that go back now and then.
fn batches() -> impl Strategy<Value = Vec<Vec<Numbered>>> {
    let record =
        (prop_oneof![6 => Just(0_u64), 1 => 1..4_u64], -20..100_i64, prop::collection::vec(any::<u8>(), 0..60));
    prop::collection::vec(prop::collection::vec(record, 1..8), 1..6).prop_map(|batches| {
        let (mut next, mut time) = (7, 1_000_000);
        let mut numbered = |(gap, later, payload)| {
            next += gap + 1;
            time += later;
            (next - 1, time, payload)
        };
        batches.into_iter().map(|batch| batch.into_iter().map(&mut numbered).collect()).collect()
    })
}

fn format() -> impl Strategy<Value = Format> {
    prop_oneof![Just(Format::Text), Just(Format::Framed)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn a_crash_at_any_point_of_a_write_loses_and_doubles_nothing(
        batches in batches(),
        format in format(),
        at in any::<prop::sample::Index>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 8),
        garbage in prop::collection::vec(any::<u8>(), 0..50),
        zeros: bool,
    ) {
        let whole = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(config(whole.path(), format)).unwrap();
        let crash = at.index(batches.len());
        let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
        let next_offset = |batch: &[Numbered]| batch.last().unwrap().0 + 1;
        for (index, batch) in batches.iter().enumerate() {
            if index == crash {
                before = image(whole.path());
            }
            append(&mut journal, batch, next_offset(batch)).unwrap();
            if index == crash {
                after = image(whole.path());
            }
        }
        drop(journal);
        let expected: Vec<Numbered> = batches.concat();
        prop_assert_eq!(&read(whole.path(), From::Start), &expected);
        let found = verify(whole.path()).unwrap();
        prop_assert_eq!((found.problems.clone(), found.records), (vec![], expected.len() as u64), "{:?}", found);

        // Of what the batch wrote, any part may be on the disk; the sidecar may be torn.
        let torn = tempfile::tempdir().unwrap();
        let newest = before.keys().filter_map(|name| name.strip_suffix(".log")).max().unwrap_or_default().to_owned();
        for ((name, new), cut) in after.iter().zip(cuts.iter().cycle()) {
            let old = before.get(name).cloned().unwrap_or_default();
            let bytes = if name == "journal.position" {
                let differs = old.iter().zip(new).position(|(old, new)| old != new).unwrap_or(0);
                let torn = differs + cut.index(60);
                [&new[..torn.min(new.len())], &old[torn.min(old.len())..]].concat()
            } else if *name < newest {
                // Durable as a whole before the position left it.
                new.clone()
            } else {
                let kept = old.len() + cut.index(new.len() - old.len() + 1);
                let mut bytes = new[..kept].to_vec();
                if zeros {
                    bytes[old.len()..].fill(0);
                }
                bytes.extend(&garbage);
                bytes
            };
            fs::write(torn.path().join(name), bytes).unwrap();
        }
        let mut journal = Journal::open(config(torn.path(), format)).unwrap();
        let resumed = journal.position().next_offset;
        let durable = if crash == 0 { 0 } else { next_offset(&batches[crash - 1]) };
        prop_assert_eq!(resumed, durable);
        for batch in &batches[crash..] {
            append(&mut journal, batch, next_offset(batch)).unwrap();
        }
        drop(journal);
        prop_assert_eq!(&read(torn.path(), From::Start), &expected);
        let segments = |directory: &Path| {
            let mut files = image(directory);
            files.remove("journal.position");
            files
        };
        prop_assert_eq!(segments(torn.path()), segments(whole.path()), "byte for byte");
    }

    #[test]
    fn reading_begins_anywhere(batches in batches(), format in format(), record in 0..60_u64, time in 999_900..1_001_500_i64) {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(config(directory.path(), format)).unwrap();
        for batch in &batches {
            append(&mut journal, batch, 99).unwrap();
        }
        let all = batches.concat();
        let expected: Vec<_> = all.iter().filter(|(number, ..)| *number >= record).cloned().collect();
        prop_assert_eq!(read(directory.path(), From::Record(record)), expected);
        let expected: Vec<_> = all.iter().skip_while(|(_, at, _)| *at < time).cloned().collect();
        prop_assert_eq!(read(directory.path(), From::Time(time)), expected);
    }

    #[test]
    fn a_reader_follows(batches in batches(), format in format()) {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(config(directory.path(), format)).unwrap();
        let (mut reader, mut entry) = (JournalReader::open(directory.path(), From::Start).unwrap(), Entry::default());
        prop_assert_eq!(reader.next(&mut entry).unwrap(), None);
        for batch in &batches {
            prop_assert!(!reader.refresh().unwrap());
            append(&mut journal, batch, 99).unwrap();
            prop_assert!(reader.refresh().unwrap());
            for (number, _, payload) in batch {
                prop_assert_eq!(reader.next(&mut entry).unwrap(), Some(*number));
                prop_assert_eq!(&entry.payload, payload);
            }
            prop_assert_eq!(reader.next(&mut entry).unwrap(), None);
        }
    }

    #[test]
    fn every_flipped_bit_is_found(batches in batches(), format in format(), place in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(config(directory.path(), format)).unwrap();
        for batch in &batches {
            append(&mut journal, batch, 99).unwrap();
        }
        drop(journal);
        let mut files = image(directory.path());
        files.remove("journal.position");
        let total: usize = files.values().map(Vec::len).sum();
        let mut at = place.index(total);
        for (name, mut bytes) in files {
            if at < bytes.len() {
                bytes[at] ^= 1 << bit;
                fs::write(directory.path().join(&name), &bytes).unwrap();
                let found = verify(directory.path());
                prop_assert!(!found.as_ref().is_ok_and(|found| found.problem_count == 0), "{} {} {:?}", name, at, found);
                break;
            }
            at -= bytes.len();
        }
    }
}

#[test]
fn segments_end_by_time_and_old_ones_are_removed_if_allowed() {
    let directory = tempfile::tempdir().unwrap();
    let by_time = JournalConfig {
        segment_size: Size::from_mib(1),
        rotate_every: Span::from_secs(60),
        keep: 2,
        ..config(directory.path(), Format::Text)
    };
    let mut journal = Journal::open(by_time).unwrap();
    let minute = 60_000_000;
    for (number, time) in [(0, 5), (1, minute - 1), (2, minute), (3, minute - 2), (4, 3 * minute), (5, 7 * minute)] {
        append(&mut journal, &[(number, time, b"x".to_vec())], number + 1).unwrap();
    }
    let names = |directory: &Path| {
        image(directory).into_keys().filter(|name| name.strip_suffix(".log").is_some()).collect::<Vec<_>>()
    };
    assert_eq!(
        names(directory.path()),
        ["00000000000000000002.log", "00000000000000000004.log", "00000000000000000005.log"]
    );
    let linked = fs::read_link(directory.path().join("current.log")).unwrap();
    assert_eq!(linked.to_str().unwrap(), "00000000000000000005.log");
    assert_eq!(read(directory.path(), From::Start).len(), 4);
    let found = verify(directory.path()).unwrap();
    assert_eq!((found.problem_count, found.segments, found.first_and_last), (0, 3, Some((2, 5))));
}

#[test]
fn gaps_are_reported_and_are_no_problem() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(config(directory.path(), Format::Text)).unwrap();
    let record = |number: u64| (number, 5, b"x".to_vec());
    append(&mut journal, &[record(0), record(1), record(3)], 5).unwrap();
    append(&mut journal, &[record(9)], 10).unwrap();
    let found = verify(directory.path()).unwrap();
    assert_eq!((found.problems, found.gaps, found.gap_count), (vec![], vec![(2, 2), (4, 8)], 2));
    assert_eq!(read(directory.path(), From::Start).iter().map(|record| record.0).collect::<Vec<_>>(), [0, 1, 3, 9]);
}

#[test]
fn a_directory_has_one_writer_and_nothing_is_guessed() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path(), Format::Text);
    assert!(matches!(JournalReader::open(directory.path(), From::Start), Err(JournalError::Missing(_))));
    let mut journal = Journal::open(config.clone()).unwrap();
    assert!(matches!(Journal::open(config.clone()), Err(JournalError::Locked(_))));
    assert_eq!(read(directory.path(), From::Start), []);
    assert_eq!(verify(directory.path()).unwrap().records, 0);
    append(&mut journal, &[(0, 5, b"x".to_vec())], 1).unwrap();
    drop(journal);
    assert!(matches!(Journal::adopt(&config, 7), Err(JournalError::Damaged { .. })));

    let segment = directory.path().join("00000000000000000000.log");
    let bytes = fs::read(&segment).unwrap();
    fs::write(&segment, &bytes[..bytes.len() - 1]).unwrap();
    assert!(matches!(Journal::open(config.clone()), Err(JournalError::Damaged { .. })), "durable bytes are lost");
    fs::write(&segment, bytes).unwrap();
    fs::remove_file(directory.path().join("journal.position")).unwrap();
    assert!(matches!(Journal::open(config), Err(JournalError::Damaged { .. })), "segments without a sidecar");

    let other = tempfile::tempdir().unwrap();
    let config = self::config(other.path(), Format::Text);
    let adopted = Journal::adopt(&config, 7).unwrap();
    assert_eq!(Journal::open(config).unwrap().position(), &adopted);
}

#[test]
fn after_an_error_the_next_write_begins_at_the_position() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(config(directory.path(), Format::Text)).unwrap();
    append(&mut journal, &[(0, 5, b"x".to_vec())], 1).unwrap();
    // A directory stands where the next segment should.
    let long = vec![b'y'; 500];
    append(&mut journal, &[(1, 5, long)], 2).unwrap();
    let obstacle = directory.path().join("00000000000000000002.log");
    fs::create_dir(&obstacle).unwrap();
    let batch = [(2, 5, b"z".to_vec()), (3, 5, b"z".to_vec())];
    assert!(append(&mut journal, &batch, 4).is_err());
    assert_eq!(journal.position().next_offset, 2);
    fs::remove_dir(&obstacle).unwrap();
    append(&mut journal, &batch, 4).unwrap();
    assert_eq!(read(directory.path(), From::Start).len(), 4);
    assert_eq!(verify(directory.path()).unwrap().problem_count, 0);
}
