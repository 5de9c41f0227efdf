//! Repeats: records that their producer wrote twice, because it lost the first acknowledgment and the log took the second
//! for a new record.
//!
//! librdkafka raises its epoch when a record expires unreported, and sends again what was in flight with it, under new
//! sequence numbers: the broker cannot recognize that. So each record carries the id of its producer's life and a number
//! of its own, and a stage drops numbers that it has read. What it remembers commits with its position.

use millrace_contracts::{NumberRange, Position, ProducerRecords};

use crate::fault;

/// A producer without a record for this long is forgotten: its repeats come within the timeout of a record, a minute.
const FORGET_AFTER_MS: i64 = 15 * 60_000;

/// The number of a record among those of its producer, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordNumber {
    /// The id of the producer's life in the partition.
    pub(crate) producer: u64,
    pub(crate) number: u64,
}

impl RecordNumber {
    pub(crate) fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.producer) << 64 | u128::from(self.number)).to_be_bytes()
    }

    /// `None` for bytes that are not a number.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (producer, number) = bytes.split_first_chunk::<8>()?;
        let number = u64::from_be_bytes(number.try_into().ok()?);
        // The state has it as a long, and the next one too.
        (number < i64::MAX.cast_unsigned()).then_some(Self { producer: u64::from_be_bytes(*producer), number })
    }
}

/// The numbers read from one partition of a stage's input. Bounded: what it forgets counts as not read, so that a repeat
/// may count twice, and no record is lost.
#[derive(Debug, Default)]
pub(crate) struct Producers(Vec<ProducerRecords>);

impl Producers {
    /// As restored with a position.
    pub(crate) fn new(records: Vec<ProducerRecords>) -> Self {
        Self(records)
    }

    /// What to store with a position.
    pub(crate) fn records(&self) -> &[ProducerRecords] {
        &self.0
    }

    /// Adds the number of a record that was read; true if it was added before.
    pub(crate) fn is_repeat(&mut self, of: RecordNumber, timestamp_ms: i64) -> bool {
        let known = self.0.iter_mut().find(|records| records.producer == of.producer);
        let repeat = if let Some(records) = known {
            records.seen_at_ms = records.seen_at_ms.max(timestamp_ms);
            add(records, of.number)
        } else {
            self.forget(timestamp_ms);
            let mut records =
                ProducerRecords { producer: of.producer, seen_at_ms: timestamp_ms, next: 0, missing: Vec::new() };
            add(&mut records, of.number);
            self.0.push(records);
            false
        };
        repeat && !fault::sabotaged("sabotage::skip-producer-numbers")
    }

    /// Makes room for another producer.
    fn forget(&mut self, now_ms: i64) {
        self.0.retain(|records| records.seen_at_ms.saturating_add(FORGET_AFTER_MS) >= now_ms);
        if self.0.len() >= Position::MAX_PRODUCERS {
            let oldest = (0..self.0.len()).min_by_key(|&index| self.0[index].seen_at_ms);
            self.0.swap_remove(oldest.expect("the list is full"));
        }
    }
}

/// Adds a number; true if it was added before. Numbers come in any order: without idempotence a producer's retries reorder
/// its records.
fn add(records: &mut ProducerRecords, number: u64) -> bool {
    let missing = &mut records.missing;
    if number >= records.next {
        if number > records.next {
            missing.push(NumberRange { first: records.next, last: number - 1 });
        }
        records.next = number + 1;
    } else {
        let found = missing.iter().position(|range| (range.first..=range.last).contains(&number));
        let Some(index) = found else { return true };
        let range = missing.remove(index);
        if number < range.last {
            missing.insert(index, NumberRange { first: number + 1, ..range });
        }
        if range.first < number {
            missing.insert(index, NumberRange { last: number - 1, ..range });
        }
    }
    if missing.len() > Position::MAX_MISSING {
        // What is between the two oldest ranges counts as missing as well.
        let oldest = missing.remove(0);
        missing[0].first = oldest.first;
    }
    false
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn number(producer: u64, number: u64) -> RecordNumber {
        RecordNumber { producer, number }
    }

    #[test]
    fn what_is_sent_again_behind_an_expired_record_is_a_repeat() {
        let mut producers = Producers::default();
        // 2 expired before it was written; 3 and 4 were written and are sent again.
        for (next, repeat) in [(0, false), (1, false), (3, false), (4, false), (3, true), (4, true), (5, false)] {
            assert_eq!(producers.is_repeat(number(7, next), 0), repeat, "{next}");
        }
        assert!(!producers.is_repeat(number(8, 3), 0), "another life of a producer has numbers of its own");
        assert!(!producers.is_repeat(number(7, 2), 0), "a number that comes late is no repeat");
        assert!(producers.records()[0].missing.is_empty());
    }

    #[test]
    fn producers_are_forgotten_in_time_and_beyond_the_bound() {
        let mut producers = Producers::default();
        for producer in 0..2 * Position::MAX_PRODUCERS as u64 {
            assert!(!producers.is_repeat(number(producer, 0), producer.cast_signed()));
        }
        assert_eq!(producers.records().len(), Position::MAX_PRODUCERS);
        let newest = 2 * Position::MAX_PRODUCERS as u64 - 1;
        assert!(producers.is_repeat(number(newest, 0), 0));
        assert!(!producers.is_repeat(number(newest + 1, 0), newest.cast_signed() + FORGET_AFTER_MS));
        assert_eq!(producers.records().len(), 2);
    }

    proptest! {
        #[test]
        fn a_number_round_trips(producer: u64, number in 0..i64::MAX.cast_unsigned()) {
            let record = RecordNumber { producer, number };
            prop_assert_eq!(RecordNumber::from_bytes(&record.to_bytes()), Some(record));
            prop_assert_eq!(RecordNumber::from_bytes(&record.to_bytes()[1..]), None);
            prop_assert_eq!(RecordNumber::from_bytes(&number.to_be_bytes()), None);
        }

        /// In any order, with any gaps: no first record is a repeat, whatever is forgotten. And within the bounds each
        /// second one is.
        #[test]
        fn no_first_record_is_a_repeat(numbers in prop::collection::vec((0..3_u64, 0..200_u64), 0..600)) {
            let (mut producers, mut read, mut forgot) = (Producers::default(), HashSet::new(), false);
            for (producer, one) in numbers {
                let first = read.insert((producer, one));
                let repeat = producers.is_repeat(number(producer, one), 0);
                prop_assert!(!(first && repeat), "{producer}/{one} was dropped");
                prop_assert!(first || repeat || forgot, "{producer}/{one} counts twice");
                for records in producers.records() {
                    prop_assert!(records.missing.len() <= Position::MAX_MISSING);
                    prop_assert!(records.missing.is_sorted_by(|a, b| a.last < b.first));
                    let missing: u64 = records.missing.iter().map(|range| range.last - range.first + 1).sum();
                    let count = read.iter().filter(|(producer, _)| *producer == records.producer).count() as u64;
                    forgot |= records.next - missing != count;
                }
            }
        }
    }
}
