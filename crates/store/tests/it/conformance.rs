//! What every store promises, in one body.

use std::collections::BTreeMap;

use millrace_contracts::{Exactness, Hour, HourlyCount, ProjectionWrite, WriteOutcome};
use millrace_store::{Answer, HourlyStore, Totals};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::{PARTITIONS, Subject, complete, count, known, now, put};

/// Runs every check, each on a fresh store.
pub(crate) async fn conforms<S: Subject>(fresh: impl AsyncFn() -> S) {
    says_nothing_before_it_is_complete(&fresh().await).await;
    moves_only_from_where_it_stands(&fresh().await).await;
    takes_an_unknown_outcome_again(&fresh().await).await;
    answers_each_part_of_a_write(&fresh().await).await;
    is_approximate_when_a_part_is(&fresh().await).await;
    tells_hours_and_partitions_apart(&fresh().await).await;
}

async fn says_nothing_before_it_is_complete<S: Subject>(store: &S) {
    let mut writer = store.writer();
    assert_eq!(store.answer(now()).await, Ok(Answer::Rebuilding));
    for partition in 0..PARTITIONS {
        assert_eq!(writer.position(partition).await, Ok(None));
        let counts = [count(now(), partition, 5, [1, 2, 3])];
        assert_eq!(put(&mut writer, partition, (None, 7), false, &counts).await, Ok(WriteOutcome::Applied));
        assert_eq!(writer.position(partition).await, Ok(Some(7)));
    }
    for partition in 0..PARTITIONS {
        assert_eq!(store.answer(now()).await, Ok(Answer::Rebuilding), "{partition} is not complete");
        assert_eq!(put(&mut writer, partition, (Some(7), 7), true, &[]).await, Ok(WriteOutcome::Applied));
    }
    assert_eq!(store.answer(now()).await, Ok(known([3, 6, 9])));
    assert_eq!(store.answer(now().plus(-1)).await, Ok(Answer::Known(Totals::default())), "now zeros are known");
    let later = [count(now(), 0, 6, [10, 2, 3])];
    assert_eq!(put(&mut writer, 0, (Some(7), 8), false, &later).await, Ok(WriteOutcome::Applied));
    assert_eq!(store.answer(now()).await, Ok(known([12, 6, 9])), "complete once, complete for good");
}

async fn moves_only_from_where_it_stands<S: Subject>(store: &S) {
    let (mut a, mut b) = (store.writer(), store.writer());
    complete(&mut a, [1, 1, 1]).await;
    let by_b = [count(now(), 0, 9, [90, 90, 90])];
    assert_eq!(put(&mut b, 0, (None, 2), true, &by_b).await, Ok(WriteOutcome::PositionMismatch(Some(1))));
    assert_eq!(put(&mut b, 0, (Some(0), 2), true, &by_b).await, Ok(WriteOutcome::PositionMismatch(Some(1))));
    assert_eq!(store.answer(now()).await, Ok(known([3, 3, 3])), "nothing was written");
    assert_eq!(put(&mut b, 0, (Some(1), 2), false, &by_b).await, Ok(WriteOutcome::Applied));
    let by_a = [count(now(), 0, 50, [0, 0, 0])];
    assert_eq!(
        put(&mut a, 0, (Some(1), 3), false, &by_a).await,
        Ok(WriteOutcome::PositionMismatch(Some(2))),
        "a is a zombie now"
    );
    assert_eq!(store.answer(now()).await, Ok(known([92, 92, 92])));
}

async fn takes_an_unknown_outcome_again<S: Subject>(store: &S) {
    let mut writer = store.writer();
    complete(&mut writer, [1, 1, 1]).await;
    let counts = [count(now(), 0, 9, [5, 5, 5])];
    assert_eq!(put(&mut writer, 0, (Some(1), 4), false, &counts).await, Ok(WriteOutcome::Applied));
    assert_eq!(put(&mut writer, 0, (Some(1), 4), false, &counts).await, Ok(WriteOutcome::PositionMismatch(Some(4))));
    assert_eq!(store.answer(now()).await, Ok(known([7, 7, 7])));
}

async fn answers_each_part_of_a_write<S: Subject>(store: &S) {
    let mut writer = store.writer();
    complete(&mut writer, [1, 1, 1]).await;
    let counts: Vec<[HourlyCount; 1]> = (0..PARTITIONS).map(|p| [count(now(), p, 2, [2, 2, 2])]).collect();
    let write = |partition: u32, expected| ProjectionWrite {
        partition,
        expected,
        next: 6,
        caught_up: false,
        items: &counts[partition as usize][..],
    };
    let parts = [write(2, Some(1)), write(0, Some(5)), write(1, None)];
    let expected =
        vec![WriteOutcome::Applied, WriteOutcome::PositionMismatch(Some(1)), WriteOutcome::PositionMismatch(Some(1))];
    assert_eq!(writer.write(&parts).await, Ok(expected));
    assert_eq!(store.answer(now()).await, Ok(known([4, 4, 4])));
    assert_eq!(writer.write(&[]).await, Ok(vec![]));
}

async fn is_approximate_when_a_part_is<S: Subject>(store: &S) {
    let mut writer = store.writer();
    complete(&mut writer, [1, 1, 1]).await;
    let counts = [HourlyCount { exactness: Exactness::Approximate, ..count(now(), 1, 2, [1, 1, 1]) }];
    assert_eq!(put(&mut writer, 1, (Some(1), 2), false, &counts).await, Ok(WriteOutcome::Applied));
    let Ok(Answer::Known(totals)) = store.answer(now()).await else { panic!("known before") };
    assert_eq!(totals.exactness, Exactness::Approximate);
}

async fn tells_hours_and_partitions_apart<S: Subject>(store: &S) {
    let mut writer = store.writer();
    complete(&mut writer, [0, 0, 0]).await;
    let large = i64::MAX.cast_unsigned() / 4;
    let counts = [count(now().plus(-24), 1, 2, [large, 1, 2]), count(now().plus(1), 1, 3, [4, 5, 6])];
    assert_eq!(put(&mut writer, 1, (Some(1), 2), false, &counts).await, Ok(WriteOutcome::Applied));
    assert_eq!(store.answer(now().plus(-24)).await, Ok(known([large, 1, 2])));
    assert_eq!(store.answer(now().plus(1)).await, Ok(known([4, 5, 6])), "events may be early");
    assert_eq!(store.answer(now()).await, Ok(known([0, 0, 0])));
}

/// One write of the property below: counts of a partition, in any order, some of them old.
type Chunk = (u32, Vec<(i64, u32, u64)>);

/// Whatever the order, the repetition and the batching: of each hour the newest value stands.
pub(crate) fn folds_to_the_newest<S: Subject>(
    runtime: &tokio::runtime::Runtime,
    cases: u32,
    fresh: impl AsyncFn() -> S,
) {
    let counts = prop::collection::vec((0..4_i64, 1..3_u32, 0..40_u64), 0..6);
    let chunks = prop::collection::vec((0..PARTITIONS, counts), 0..14);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&chunks, |chunks| runtime.block_on(async { fold_once(&fresh().await, &chunks).await }))
        .unwrap();
}

async fn fold_once<S: Subject>(store: &S, chunks: &[Chunk]) -> Result<(), TestCaseError> {
    let mut writer = store.writer();
    complete(&mut writer, [0, 0, 0]).await;
    let mut positions = [1; PARTITIONS as usize];
    let mut newest: BTreeMap<(Hour, u32), HourlyCount> =
        (0..PARTITIONS).map(|p| ((now(), p), count(now(), p, 1, [0, 0, 0]))).collect();
    for (partition, chunk) in chunks {
        let mut counts: BTreeMap<Hour, HourlyCount> = BTreeMap::new();
        for &(ago, generation, offset) in chunk {
            // The numbers follow from the place, as they do in the log.
            let n = offset * 10 + u64::from(generation);
            let new = HourlyCount { generation, ..count(now().plus(-ago), *partition, offset, [n, n + 1, n + 2]) };
            counts.entry(new.hour).and_modify(|old| *old = newer(*old, new)).or_insert(new);
            newest.entry((new.hour, *partition)).and_modify(|old| *old = newer(*old, new)).or_insert(new);
        }
        let counts: Vec<HourlyCount> = counts.into_values().collect();
        let position = &mut positions[*partition as usize];
        let moved = put(&mut writer, *partition, (Some(*position), *position + 2), false, &counts).await;
        prop_assert_eq!(moved, Ok(WriteOutcome::Applied));
        *position += 2;
    }
    for ago in 0..4 {
        let hour = now().plus(-ago);
        let of_hour = newest.values().filter(|count| count.hour == hour);
        let sum = of_hour.fold([0; 3], |sum, count| {
            [sum[0] + count.clicks, sum[1] + count.impressions, sum[2] + count.unique_users]
        });
        prop_assert_eq!(store.answer(hour).await, Ok(known(sum)));
    }
    Ok(())
}

fn newer(old: HourlyCount, new: HourlyCount) -> HourlyCount {
    if (new.generation, new.next_offset) > (old.generation, old.next_offset) { new } else { old }
}
