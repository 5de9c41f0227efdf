//! The conformance suite of every store.

use std::collections::BTreeMap;

use millrace_contracts::{
    CountedPosition, Exactness, Hour, HourlyCount, ProjectionPosition, ProjectionWrite, WriteOutcome,
};
use millrace_store::{HourRead, HourlyStore, Totals};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::{PARTITIONS, Subject, complete, count, hour_read, now, position, put};

/// Runs every check, each on a fresh store.
pub(crate) async fn conforms<S: Subject>(fresh: impl AsyncFn() -> S) {
    returns_no_counts_before_it_is_complete(&fresh().await).await;
    writes_only_at_the_expected_position(&fresh().await).await;
    accepts_a_repeated_write(&fresh().await).await;
    returns_one_outcome_per_partition(&fresh().await).await;
    is_approximate_if_one_partition_is(&fresh().await).await;
    separates_hours_and_partitions(&fresh().await).await;
    has_the_identity_of_its_position(&fresh().await).await;
    has_what_is_counted(&fresh().await).await;
}

async fn returns_no_counts_before_it_is_complete<S: Subject>(store: &S) {
    let mut writer = store.writer();
    assert_eq!(store.read(now()).await, Ok(HourRead::Rebuilding));
    for partition in 0..PARTITIONS {
        assert_eq!(position(&mut writer, partition).await, Ok(None));
        let counts = [count(now(), partition, 5, [1, 2, 3])];
        assert_eq!(put(&mut writer, partition, (None, 7), false, &counts).await, Ok(WriteOutcome::Applied));
        assert_eq!(position(&mut writer, partition).await, Ok(Some(7)));
    }
    for partition in 0..PARTITIONS {
        assert_eq!(store.read(now()).await, Ok(HourRead::Rebuilding), "{partition} is not complete");
        assert_eq!(put(&mut writer, partition, (Some(7), 7), true, &[]).await, Ok(WriteOutcome::Applied));
    }
    assert_eq!(store.read(now()).await, Ok(hour_read([3, 6, 9])));
    assert_eq!(
        store.read(now().plus(-1)).await,
        Ok(HourRead::Complete(Totals::default())),
        "a complete store returns zeros"
    );
    let later = [count(now(), 0, 6, [10, 2, 3])];
    assert_eq!(put(&mut writer, 0, (Some(7), 8), false, &later).await, Ok(WriteOutcome::Applied));
    assert_eq!(store.read(now()).await, Ok(hour_read([12, 6, 9])), "a complete store stays complete");
}

async fn writes_only_at_the_expected_position<S: Subject>(store: &S) {
    let (mut a, mut b) = (store.writer(), store.writer());
    complete(&mut a, [1, 1, 1]).await;
    let by_b = [count(now(), 0, 9, [90, 90, 90])];
    assert_eq!(put(&mut b, 0, (None, 2), true, &by_b).await, Ok(WriteOutcome::PositionMismatch(Some(1))));
    assert_eq!(put(&mut b, 0, (Some(0), 2), true, &by_b).await, Ok(WriteOutcome::PositionMismatch(Some(1))));
    assert_eq!(store.read(now()).await, Ok(hour_read([3, 3, 3])), "nothing was written");
    assert_eq!(put(&mut b, 0, (Some(1), 2), false, &by_b).await, Ok(WriteOutcome::Applied));
    let by_a = [count(now(), 0, 50, [0, 0, 0])];
    assert_eq!(
        put(&mut a, 0, (Some(1), 3), false, &by_a).await,
        Ok(WriteOutcome::PositionMismatch(Some(2))),
        "a is a zombie now"
    );
    assert_eq!(store.read(now()).await, Ok(hour_read([92, 92, 92])));
}

async fn accepts_a_repeated_write<S: Subject>(store: &S) {
    let mut writer = store.writer();
    complete(&mut writer, [1, 1, 1]).await;
    let counts = [count(now(), 0, 9, [5, 5, 5])];
    assert_eq!(put(&mut writer, 0, (Some(1), 4), false, &counts).await, Ok(WriteOutcome::Applied));
    assert_eq!(put(&mut writer, 0, (Some(1), 4), false, &counts).await, Ok(WriteOutcome::PositionMismatch(Some(4))));
    assert_eq!(store.read(now()).await, Ok(hour_read([7, 7, 7])));
}

async fn returns_one_outcome_per_partition<S: Subject>(store: &S) {
    let mut writer = store.writer();
    complete(&mut writer, [1, 1, 1]).await;
    let counts: Vec<[HourlyCount; 1]> = (0..PARTITIONS).map(|p| [count(now(), p, 2, [2, 2, 2])]).collect();
    let write = |partition: u32, expected| ProjectionWrite {
        partition,
        expected,
        next: 6,
        last_record: None,
        caught_up: false,
        counted: None,
        items: &counts[partition as usize][..],
    };
    let parts = [write(2, Some(1)), write(0, Some(5)), write(1, None)];
    let expected =
        vec![WriteOutcome::Applied, WriteOutcome::PositionMismatch(Some(1)), WriteOutcome::PositionMismatch(Some(1))];
    assert_eq!(writer.write(&parts).await, Ok(expected));
    assert_eq!(store.read(now()).await, Ok(hour_read([4, 4, 4])));
    assert_eq!(writer.write(&[]).await, Ok(vec![]));
}

async fn is_approximate_if_one_partition_is<S: Subject>(store: &S) {
    let mut writer = store.writer();
    complete(&mut writer, [1, 1, 1]).await;
    let counts = [HourlyCount { exactness: Exactness::Approximate, ..count(now(), 1, 2, [1, 1, 1]) }];
    assert_eq!(put(&mut writer, 1, (Some(1), 2), false, &counts).await, Ok(WriteOutcome::Applied));
    let Ok(HourRead::Complete(totals)) = store.read(now()).await else { panic!("incomplete") };
    assert_eq!(totals.exactness, Exactness::Approximate);
}

async fn separates_hours_and_partitions<S: Subject>(store: &S) {
    let mut writer = store.writer();
    complete(&mut writer, [0, 0, 0]).await;
    let large = i64::MAX.cast_unsigned() / 4;
    let counts = [count(now().plus(-24), 1, 2, [large, 1, 2]), count(now().plus(1), 1, 3, [4, 5, 6])];
    assert_eq!(put(&mut writer, 1, (Some(1), 2), false, &counts).await, Ok(WriteOutcome::Applied));
    assert_eq!(store.read(now().plus(-24)).await, Ok(hour_read([large, 1, 2])));
    assert_eq!(store.read(now().plus(1)).await, Ok(hour_read([4, 5, 6])), "events may be early");
    assert_eq!(store.read(now()).await, Ok(hour_read([0, 0, 0])));
}

async fn has_the_identity_of_its_position<S: Subject>(store: &S) {
    let mut writer = store.writer();
    for (expected, next, last_record) in
        [(None, 4, None), (Some(4), 5, Some(0)), (Some(5), 6, Some(u64::MAX)), (Some(6), 6, None)]
    {
        let (partition, caught_up, counted) = (1, false, None);
        let write = ProjectionWrite { partition, expected, next, last_record, caught_up, counted, items: &[][..] };
        assert_eq!(writer.write(&[write]).await, Ok(vec![WriteOutcome::Applied]));
        let stored = ProjectionPosition { next_offset: next, last_record };
        assert_eq!(store.writer().position(1).await, Ok(Some(stored)));
    }
}

async fn has_what_is_counted<S: Subject>(store: &S) {
    let mut writer = store.writer();
    complete(&mut writer, [1, 1, 1]).await;
    assert_eq!(store.counted().await, Ok(vec![None; PARTITIONS as usize]));
    let at = |next_offset| Some(CountedPosition { partition: 1, next_offset, log_time_ms: -7 });
    // A write without the end of a step leaves what is counted, and so does one that is refused; a rebuild forgets it.
    for (expected, next, counted, caught_up, then) in [
        (Some(1), 4, at(9), false, at(9)),
        (Some(4), 5, None, false, at(9)),
        (Some(4), 6, at(12), false, at(9)),
        (Some(5), 6, at(12), false, at(12)),
    ] {
        let (partition, last_record) = (1, None);
        let write = ProjectionWrite { partition, expected, next, last_record, caught_up, counted, items: &[][..] };
        writer.write(&[write]).await.unwrap();
        assert_eq!(store.counted().await, Ok(vec![None, then, None]), "{expected:?} to {next}");
    }
    store.reset().await.unwrap();
    assert_eq!(store.counted().await, Ok(vec![None; PARTITIONS as usize]));
    for (expected, next, counted, caught_up, then) in
        [(None, 4, at(5), false, None), (Some(4), 5, None, true, at(5)), (Some(5), 6, at(6), false, at(6))]
    {
        let (partition, last_record) = (1, None);
        let write = ProjectionWrite { partition, expected, next, last_record, caught_up, counted, items: &[][..] };
        writer.write(&[write]).await.unwrap();
        assert_eq!(store.counted().await, Ok(vec![None, then, None]), "{expected:?} to {next}, rebuilt");
    }
    store.reset().await.unwrap();
    complete(&mut writer, [1, 1, 1]).await;
    assert_eq!(store.counted().await, Ok(vec![None; PARTITIONS as usize]), "that of the build before");
}

/// One write of the property below: counts of a partition, in any order, some of them outdated.
type Chunk = (u32, Vec<(i64, u32, u64)>);

/// Under any order, repetition and batching, each hour has its newest value.
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
            // The counts are a function of the position, as in the log.
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
        prop_assert_eq!(store.read(hour).await, Ok(hour_read(sum)));
    }
    Ok(())
}

fn newer(old: HourlyCount, new: HourlyCount) -> HourlyCount {
    if (new.generation, new.next_offset) > (old.generation, old.next_offset) { new } else { old }
}
