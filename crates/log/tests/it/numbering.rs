//! A stage that makes every double or missing step visible: it numbers the records of its partition and puts out the
//! number beside the record's offset.

use millrace_contracts::Topic;
use millrace_log::{Batch, Log, Stage, StageError, Step};

use crate::harness::{PARTITIONS, Seen, from_start, read_all};

pub(crate) struct Numbering;

impl Stage for Numbering {
    /// (partition, records numbered)
    type State = (u32, u64);
    type Undo = u64;

    fn input(&self) -> Topic {
        Topic::EVENTS
    }

    fn changes(&self) -> Topic {
        Topic::STATE
    }

    fn new_state(&self, partition: u32) -> (u32, u64) {
        (partition, 0)
    }

    fn load(&self, state: &mut (u32, u64), key: &[u8], value: &[u8]) -> Result<(), StageError> {
        let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        match (key, number) {
            (b"number", Some(number)) => {
                state.1 = number;
                Ok(())
            }
            _ => Err(StageError::NotOurs { key: String::from_utf8_lossy(key).into(), why: "not a number".into() }),
        }
    }

    fn apply(&self, state: &mut (u32, u64), batch: &Batch, step: &mut Step) -> Result<u64, StageError> {
        let before = state.1;
        for record in batch.iter() {
            state.1 += 1;
            let value = format!("{} {}", state.1, record.offset);
            // A key of its own for each record: compaction leaves them all.
            step.put(Topic::HOURLY, state.0, &value, |out| out.extend_from_slice(value.as_bytes()));
        }
        let number = state.1.to_string();
        step.put(Topic::STATE, state.0, "number", |out| out.extend_from_slice(number.as_bytes()));
        Ok(before)
    }

    fn undo(&self, state: &mut (u32, u64), before: u64) {
        state.1 = before;
    }
}

/// How many records were numbered, after checking that each was, once, in order.
pub(crate) async fn check_numbers(log: &Log) -> u64 {
    let seen = read_all(log, Topic::HOURLY, &from_start()).await;
    let numbered = |records: &Vec<Seen>| {
        let mut last = None;
        for ((_, _, value), nth) in records.iter().zip(1_u64..) {
            let value = value.as_deref().unwrap();
            let (number, offset) = value.split_once(' ').unwrap();
            assert_eq!(number.parse::<u64>().unwrap(), nth, "a record was counted twice, or not at all");
            let offset = offset.parse::<u64>().unwrap();
            assert!(last.is_none_or(|last| last < offset), "out of order");
            last = Some(offset);
        }
        records.len() as u64
    };
    assert_eq!(seen.len(), PARTITIONS as usize);
    seen.values().map(numbered).sum()
}
