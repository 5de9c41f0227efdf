//! A stage that makes every repeated or lost step visible: it numbers the records of its partition and outputs the
//! number with the record's offset.

use millrace_contracts::Topic;
use millrace_log::{Batch, Log, Stage, StageError, Step};

use crate::harness::{PARTITIONS, ReadRecord, from_start, read_all};

pub(crate) struct Numbering;

/// The number of records that it needs replayed after a restore.
const REPLAYED: u64 = 7;

pub(crate) struct Count {
    partition: u32,
    /// The number of records so far.
    number: u64,
    /// The offset after the last record.
    next: u64,
    /// The replayed offsets, from a restore to the next step.
    replayed: Option<Vec<u64>>,
}

impl Stage for Numbering {
    type State = Count;
    type Undo = (u64, u64);

    fn input(&self) -> Topic {
        Topic::EVENTS
    }

    fn changes(&self) -> Topic {
        Topic::STATE
    }

    fn outputs(&self) -> &'static [Topic] {
        &[Topic::HOURLY]
    }

    fn new_state(&self, partition: u32) -> Count {
        Count { partition, number: 0, next: 0, replayed: None }
    }

    fn load(&self, state: &mut Count, key: &[u8], value: &[u8]) -> Result<(), StageError> {
        let text = std::str::from_utf8(value).unwrap_or_default();
        match (key, text.split_once(' ').map(|(number, next)| (number.parse(), next.parse()))) {
            (b"number", Some((Ok(number), Ok(next)))) => {
                (state.number, state.next, state.replayed) = (number, next, Some(Vec::new()));
                Ok(())
            }
            _ => {
                Err(StageError::ForeignChange { key: String::from_utf8_lossy(key).into(), why: "not a number".into() })
            }
        }
    }

    fn replay_from(&self, state: &Count) -> Option<u64> {
        state.replayed.as_ref().map(|_| state.next.saturating_sub(REPLAYED))
    }

    fn replay(&self, state: &mut Count, batch: &Batch) {
        state.replayed.as_mut().unwrap().extend(batch.iter().map(|record| record.offset));
    }

    fn apply(&self, state: &mut Count, batch: &Batch, step: &mut Step) -> Result<(u64, u64), StageError> {
        if let Some(replayed) = state.replayed.take() {
            // Offsets have gaps only where a test made some, and none of those restores.
            let expected: Vec<u64> = (state.next.saturating_sub(REPLAYED)..state.next).collect();
            assert_eq!(replayed, expected, "the last records before the position are replayed");
        }
        let before = (state.number, state.next);
        for record in batch.iter() {
            state.number += 1;
            let value = format!("{} {}", state.number, record.offset);
            // A different key for each record, so that compaction retains all.
            step.put(Topic::HOURLY, state.partition, &value, |out| out.extend_from_slice(value.as_bytes()));
        }
        state.next = batch.next_offset().unwrap();
        let change = format!("{} {}", state.number, state.next);
        step.put(Topic::STATE, state.partition, "number", |out| out.extend_from_slice(change.as_bytes()));
        Ok(before)
    }

    fn undo(&self, state: &mut Count, before: (u64, u64)) {
        (state.number, state.next) = before;
    }
}

/// Returns the number of records counted; checks that each was counted once, in order.
pub(crate) async fn check_numbers(log: &Log) -> u64 {
    let seen = read_all(log, Topic::HOURLY, &from_start()).await;
    let numbered = |records: &Vec<ReadRecord>| {
        let mut last = None;
        // A tombstone is the marker of a restore.
        let values: Vec<&str> = records.iter().filter_map(|(_, _, value)| value.as_deref()).collect();
        for (value, nth) in values.iter().zip(1_u64..) {
            let (number, offset) = value.split_once(' ').unwrap();
            assert_eq!(number.parse::<u64>().unwrap(), nth, "a record was counted twice or not at all");
            let offset = offset.parse::<u64>().unwrap();
            assert!(last.is_none_or(|last| last < offset), "out of order");
            last = Some(offset);
        }
        values.len() as u64
    };
    assert_eq!(seen.len(), PARTITIONS as usize);
    seen.values().map(numbered).sum()
}
