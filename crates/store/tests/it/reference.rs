//! Every store against a small reference implementation, under any order and repetition of writes by two independent
//! writers, with rebuilds.

use std::collections::BTreeMap;

use millrace_contracts::{Hour, HourlyCount, ProjectionWrite, WriteOutcome};
use millrace_store::{HourRead, HourlyStore};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::{PARTITIONS, Subject, count, hour_read, now};

/// The reference state of a partition.
#[derive(Debug, Clone, Default)]
struct Reference {
    position: Option<u64>,
    complete: bool,
    newest: BTreeMap<Hour, HourlyCount>,
}

impl Reference {
    fn write(&mut self, write: &Write) -> WriteOutcome {
        if self.position != write.expected {
            return WriteOutcome::PositionMismatch(self.position);
        }
        if write.expected.is_none() {
            *self = Self::default();
        }
        for new in &write.counts {
            let old = self.newest.entry(new.hour).or_insert(*new);
            if (old.generation, old.next_offset) < (new.generation, new.next_offset) {
                *old = *new;
            }
        }
        (self.position, self.complete) = (Some(write.next), self.complete || write.caught_up);
        WriteOutcome::Applied
    }
}

#[derive(Debug, Clone)]
struct Write {
    partition: u32,
    expected: Option<u64>,
    next: u64,
    caught_up: bool,
    counts: Vec<HourlyCount>,
}

/// A count: its hour before now, generation and offset, which determine its numbers, as in the log.
type CountPosition = (i64, u32, u64);

#[derive(Debug, Clone)]
enum Op {
    /// A write of one writer, at the position it expects: the stored one, or one close to it.
    Write {
        second: bool,
        partition: u32,
        beside: Option<i8>,
        steps: u64,
        caught_up: bool,
        positions: Vec<CountPosition>,
    },
    /// A repetition of an earlier write.
    Again { second: bool, which: prop::sample::Index },
    /// A reset: everything must be rebuilt.
    Reset,
}

fn op() -> impl Strategy<Value = Op> {
    let positions = prop::collection::vec((0..4_i64, 1..3_u32, 0..30_u64), 0..5);
    let beside = prop::option::weighted(0.2, -1..2_i8);
    prop_oneof![
        12 => (any::<bool>(), 0..PARTITIONS, beside, 0..4_u64, any::<bool>(), positions).prop_map(
            |(second, partition, beside, steps, caught_up, positions)| Op::Write {
                second, partition, beside, steps, caught_up, positions,
            }
        ),
        4 => (any::<bool>(), any::<prop::sample::Index>()).prop_map(|(second, which)| Op::Again { second, which }),
        1 => Just(Op::Reset),
    ]
}

fn counts(partition: u32, positions: &[CountPosition]) -> Vec<HourlyCount> {
    let mut newest: BTreeMap<Hour, HourlyCount> = BTreeMap::new();
    for &(ago, generation, offset) in positions {
        let n = offset * 10 + u64::from(generation);
        let new = HourlyCount { generation, ..count(now().plus(-ago), partition, offset, [n, n + 1, n + 2]) };
        let old = newest.entry(new.hour).or_insert(new);
        if (old.generation, old.next_offset) < (new.generation, new.next_offset) {
            *old = new;
        }
    }
    newest.into_values().collect()
}

/// After every operation, reads and outcomes equal those of the reference.
pub(crate) fn equals_the_reference<S: Subject>(
    runtime: &tokio::runtime::Runtime,
    cases: u32,
    fresh: impl AsyncFn() -> S,
) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&prop::collection::vec(op(), 1..40), |ops| runtime.block_on(async { run(&fresh().await, &ops).await }))
        .unwrap();
}

async fn run<S: Subject>(store: &S, ops: &[Op]) -> Result<(), TestCaseError> {
    let mut writers = [store.writer(), store.writer()];
    let mut reference = vec![Reference::default(); PARTITIONS as usize];
    let mut made: Vec<Write> = Vec::new();
    for op in ops {
        let (second, write) = match op {
            Op::Write { second, partition, beside, steps, caught_up, positions } => {
                let stored = reference[*partition as usize].position;
                let expected = match beside {
                    None => stored,
                    Some(offset) => stored.map(|stored| stored.saturating_add_signed(i64::from(*offset))),
                };
                let next = expected.unwrap_or(0) + steps;
                let (partition, caught_up) = (*partition, *caught_up);
                let counts = counts(partition, positions);
                (*second, Write { partition, expected, next, caught_up, counts })
            }
            Op::Again { which, .. } if made.is_empty() => {
                let _ = which;
                continue;
            }
            Op::Again { second, which } => {
                let write: &Write = which.get(&made);
                (*second, write.clone())
            }
            Op::Reset => {
                store.reset().await.unwrap();
                for partition in &mut reference {
                    (partition.position, partition.complete) = (None, false);
                }
                check(store, &reference).await?;
                continue;
            }
        };
        let expected = reference[write.partition as usize].write(&write);
        let Write { partition, expected: from, next, caught_up, ref counts } = write;
        let part = ProjectionWrite {
            partition,
            expected: from,
            next,
            last_record: Some(!next),
            caught_up,
            counted: None,
            items: &counts[..],
        };
        let written = writers[usize::from(second)].write(&[part]).await;
        prop_assert_eq!(written, Ok(vec![expected]), "{:?}", &write);
        made.push(write);
        check(store, &reference).await?;
    }
    Ok(())
}

async fn check<S: Subject>(store: &S, reference: &[Reference]) -> Result<(), TestCaseError> {
    for ago in 0..4 {
        let hour = now().plus(-ago);
        let expected = if reference.iter().all(|partition| partition.complete) {
            let of_hour = reference.iter().filter_map(|partition| partition.newest.get(&hour));
            hour_read(of_hour.fold([0; 3], |sum, count| {
                [sum[0] + count.clicks, sum[1] + count.impressions, sum[2] + count.unique_users]
            }))
        } else {
            HourRead::Rebuilding
        };
        prop_assert_eq!(store.read(hour).await, Ok(expected), "{}", hour);
    }
    Ok(())
}
