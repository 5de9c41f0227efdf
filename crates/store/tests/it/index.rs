//! The index of messages: conformance on both stores, and equality with a reference.

use std::collections::BTreeMap;

use millrace_contracts::{ProjectionPosition, ProjectionWrite, WriteOutcome};
use millrace_store::{IndexPage, IndexPosition, IndexRow, IndexStep, MessageIndex};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sqlx::Executor as _;

use crate::postgres::{config, raw};

fn step(day: u32, rows: &[(u64, &[u64])]) -> IndexStep {
    let row = |&(topic_id, offsets): &(u64, &[u64])| IndexRow { topic_id, offsets: offsets.to_vec() };
    IndexStep { day, rows: rows.iter().map(row).collect(), owner: Some(u64::from(day)) }
}

async fn put(
    index: &MessageIndex,
    partition: u32,
    (expected, next): (Option<u64>, u64),
    step: &IndexStep,
) -> WriteOutcome {
    let write = ProjectionWrite {
        partition,
        expected,
        next,
        last_record: Some(!next),
        caught_up: true,
        counted: None,
        items: step,
    };
    index.write(&[write]).await.unwrap()[0]
}

async fn page(index: &MessageIndex, partition: u32, topic: u64, from: u64) -> (Vec<u64>, u64) {
    let IndexPage { offsets, until } = index.page(partition, topic, from..1_000, 100).await.unwrap();
    (offsets, until)
}

fn embedded() -> (MessageIndex, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let database = fjall::Database::builder(folder.path()).open().unwrap();
    (MessageIndex::embedded(&database).unwrap(), folder)
}

async fn conforms(fresh: impl AsyncFn() -> MessageIndex) {
    separates_topics_and_partitions_and_ends_at_its_position(&fresh().await).await;
    writes_only_at_the_expected_position(&fresh().await).await;
    a_rebuild_deletes_the_rows_of_its_partition(&fresh().await).await;
    a_partition_that_a_rebuild_left_empty_holds_no_day_back(&fresh().await).await;
    drops_a_day_once_every_partition_is_past_it(&fresh().await).await;
    a_partition_is_reset_at_its_position_only(&fresh().await).await;
}

async fn separates_topics_and_partitions_and_ends_at_its_position(index: &MessageIndex) {
    assert_eq!(index.position(0).await.unwrap(), None);
    assert_eq!(page(index, 0, 7, 3).await, (vec![], 3), "an index without a position reaches nothing");
    put(index, 0, (None, 10), &step(1, &[(7, &[2, 3, 9]), (8, &[4])])).await;
    put(index, 1, (None, 20), &step(1, &[(7, &[5])])).await;
    // A day before the last one: a clock was set back.
    put(index, 0, (Some(10), 15), &step(0, &[(7, &[10, 14])])).await;
    put(index, 0, (Some(15), 30), &step(1, &[(7, &[29])])).await;
    assert_eq!(page(index, 0, 7, 0).await, (vec![2, 3, 9, 10, 14, 29], 30));
    assert_eq!(page(index, 0, 7, 3).await, (vec![3, 9, 10, 14, 29], 30));
    assert_eq!(page(index, 0, 8, 0).await, (vec![4], 30));
    assert_eq!(page(index, 0, 9, 0).await, (vec![], 30));
    assert_eq!(page(index, 1, 7, 0).await, (vec![5], 20));
    assert_eq!(page(index, 1, 7, 21).await, (vec![], 21), "it does not reach the range");
    let bounded = index.page(0, 7, 3..14, 2).await.unwrap();
    assert_eq!(bounded, IndexPage { offsets: vec![3, 9], until: 10 });
    let within = index.page(0, 7, 3..14, 100).await.unwrap();
    assert_eq!(within, IndexPage { offsets: vec![3, 9, 10], until: 14 });
    let position = ProjectionPosition { next_offset: 30, last_record: Some(!30) };
    assert_eq!(index.position(0).await.unwrap(), Some(IndexPosition { position, owner: Some(1) }));
}

async fn writes_only_at_the_expected_position(index: &MessageIndex) {
    let other = step(1, &[(7, &[1])]);
    assert_eq!(put(index, 0, (Some(3), 5), &other).await, WriteOutcome::PositionMismatch(None));
    assert_eq!(put(index, 0, (None, 5), &step(1, &[(7, &[4])])).await, WriteOutcome::Applied);
    assert_eq!(put(index, 0, (None, 5), &other).await, WriteOutcome::PositionMismatch(Some(5)));
    assert_eq!(page(index, 0, 7, 0).await, (vec![4], 5));
    assert_eq!(put(index, 0, (Some(5), 8), &IndexStep::default()).await, WriteOutcome::Applied, "without rows");
    assert_eq!(page(index, 0, 7, 0).await, (vec![4], 8));
}

async fn a_rebuild_deletes_the_rows_of_its_partition(index: &MessageIndex) {
    put(index, 0, (None, 10), &step(1, &[(7, &[2, 9])])).await;
    put(index, 1, (None, 10), &step(1, &[(7, &[3])])).await;
    index.reset().await.unwrap();
    assert_eq!(page(index, 0, 7, 0).await, (vec![], 0), "it is incomplete");
    assert_eq!(put(index, 0, (Some(10), 12), &step(1, &[])).await, WriteOutcome::PositionMismatch(None));
    put(index, 0, (None, 6), &step(1, &[(7, &[5])])).await;
    assert_eq!(page(index, 0, 7, 0).await, (vec![5], 6));
    assert_eq!(page(index, 1, 7, 0).await, (vec![], 0));
    put(index, 1, (None, 4), &step(1, &[(7, &[3])])).await;
    assert_eq!(index.drop_below(&[6, 4]).await.unwrap(), 1, "the rows of the earlier build hold nothing back");
}

/// As of a topic that was recreated, and has no messages in one partition.
async fn a_partition_that_a_rebuild_left_empty_holds_no_day_back(index: &MessageIndex) {
    for partition in 0..2 {
        put(index, partition, (None, 10), &step(1, &[(7, &[9])])).await;
    }
    index.reset().await.unwrap();
    put(index, 0, (None, 6), &step(1, &[(7, &[5])])).await;
    put(index, 1, (None, 0), &IndexStep::default()).await;
    assert_eq!(index.drop_below(&[5, 0]).await.unwrap(), 0);
    assert_eq!(index.drop_below(&[6, 0]).await.unwrap(), 1);
}

async fn drops_a_day_once_every_partition_is_past_it(index: &MessageIndex) {
    put(index, 0, (None, 10), &step(1, &[(7, &[2, 9])])).await;
    put(index, 1, (None, 30), &step(1, &[(7, &[25])])).await;
    put(index, 0, (Some(10), 15), &step(2, &[(7, &[14])])).await;
    for starts in [&[][..], &[10], &[9, 100], &[100, 25]] {
        assert_eq!(index.drop_below(starts).await.unwrap(), 0, "{starts:?}");
    }
    assert_eq!(page(index, 0, 7, 0).await, (vec![2, 9, 14], 15));
    assert_eq!(index.drop_below(&[10, 26]).await.unwrap(), 1);
    assert_eq!(page(index, 0, 7, 0).await, (vec![14], 15));
    assert_eq!(page(index, 1, 7, 0).await, (vec![], 30));
    // What comes late for a dropped day is written all the same.
    assert_eq!(put(index, 1, (Some(30), 32), &step(1, &[(7, &[31])])).await, WriteOutcome::Applied);
    assert_eq!(page(index, 1, 7, 0).await.0.last(), Some(&31));
    assert_eq!(index.drop_below(&[15, 32]).await.unwrap(), 2);
}

async fn a_partition_is_reset_at_its_position_only(index: &MessageIndex) {
    for partition in 0..2 {
        put(index, partition, (None, 10), &step(1, &[(7, &[2, 9])])).await;
    }
    for (partition, position) in [(0, 9), (0, 11), (2, 10)] {
        index.reset_partition(partition, position).await.unwrap();
    }
    assert_eq!(page(index, 0, 7, 0).await, (vec![2, 9], 10), "another process has moved it");
    index.reset_partition(0, 10).await.unwrap();
    assert_eq!(index.position(0).await.unwrap(), None);
    assert_eq!(page(index, 0, 7, 0).await, (vec![], 0));
    assert_eq!(page(index, 1, 7, 0).await, (vec![2, 9], 10));
    assert_eq!(put(index, 0, (None, 30), &step(1, &[(7, &[25])])).await, WriteOutcome::Applied);
    assert_eq!(page(index, 0, 7, 0).await, (vec![25], 30), "it was rebuilt");
}

/// One topic of three, and how many offsets of it follow each other.
type Run = (u64, u64);

/// Any steps, read by any pages, are the messages as they were appended.
fn equals_the_reference(runtime: &tokio::runtime::Runtime, cases: u32, fresh: impl AsyncFn() -> MessageIndex) {
    let steps = prop::collection::vec((0..4_u32, prop::collection::vec((0..3_u64, 1..9_u64), 0..12)), 1..12);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let run = runner.run(&(steps, 1..20_usize, 0..200_u64), |(steps, max, start): (Vec<(u32, Vec<Run>)>, _, _)| {
        runtime.block_on(async {
            let index = fresh().await;
            let (mut expected, mut next): (BTreeMap<u64, Vec<u64>>, u64) = (BTreeMap::new(), 0);
            let mut position = None;
            for (day, runs) in steps {
                let mut found: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
                for (topic, length) in runs {
                    found.entry(topic).or_default().extend(next..next + length);
                    // A record that is no message.
                    next += length + 1;
                }
                let rows = found.iter().map(|(&topic_id, offsets)| IndexRow { topic_id, offsets: offsets.clone() });
                let step = IndexStep { day, rows: rows.collect(), owner: None };
                assert_eq!(put(&index, 2, (position, next), &step).await, WriteOutcome::Applied);
                position = Some(next);
                for (topic, offsets) in found {
                    expected.entry(topic).or_default().extend(offsets);
                }
            }
            for topic in 0..3 {
                let (mut from, mut read) = (start, Vec::new());
                loop {
                    let page = index.page(2, topic, from..10_000, max).await.unwrap();
                    prop_assert!(page.offsets.len() <= max);
                    read.extend(page.offsets);
                    if page.until == from {
                        break;
                    }
                    from = page.until;
                }
                let all = expected.remove(&topic).unwrap_or_default();
                prop_assert_eq!(read, all.into_iter().filter(|offset| *offset >= start).collect::<Vec<_>>());
                prop_assert_eq!(from, next.max(start));
            }
            Ok(())
        })
    });
    run.unwrap();
}

#[tokio::test]
async fn the_embedded_index_conforms() {
    let folders = std::sync::Mutex::new(Vec::new());
    conforms(async || {
        let (index, folder) = embedded();
        folders.lock().unwrap().push(folder);
        index
    })
    .await;
}

#[test]
fn the_embedded_index_equals_the_reference() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folders = std::sync::Mutex::new(Vec::new());
    equals_the_reference(&runtime, 32, async || {
        let (index, folder) = embedded();
        folders.lock().unwrap().push(folder);
        index
    });
}

#[tokio::test]
async fn the_embedded_index_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let open = || MessageIndex::embedded(&fjall::Database::builder(folder.path()).open().unwrap()).unwrap();
    put(&open(), 0, (None, 10), &step(1, &[(7, &[2, 9])])).await;
    let index = open();
    assert_eq!(page(&index, 0, 7, 0).await, (vec![2, 9], 10));
    assert_eq!(put(&index, 0, (Some(10), 12), &step(1, &[(7, &[11])])).await, WriteOutcome::Applied);
    assert_eq!(page(&index, 0, 7, 9).await, (vec![9, 11], 12));
}

#[tokio::test]
async fn the_index_in_postgres_conforms() {
    let Some(url) = millrace_testkit::postgres("store: index") else { return };
    conforms(async || MessageIndex::postgres(&config(url)).await.unwrap()).await;
}

#[test]
fn the_index_in_postgres_equals_the_reference() {
    let Some(url) = millrace_testkit::postgres("store: index") else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    equals_the_reference(&runtime, 8, async || MessageIndex::postgres(&config(url)).await.unwrap());
}

/// Each statement has to end within `postgres.statement_timeout`, however many rows the earlier build has.
#[tokio::test]
async fn a_rebuild_deletes_in_portions() {
    const FEW: &str = "
        CREATE FUNCTION few() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF (SELECT count(*) FROM deleted) > 20000 THEN RAISE EXCEPTION 'too many'; END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER few AFTER DELETE ON message_index REFERENCING OLD TABLE AS deleted
        FOR EACH STATEMENT EXECUTE FUNCTION few();";

    let Some(url) = millrace_testkit::postgres("store: index") else { return };
    let config = config(url);
    let index = MessageIndex::postgres(&config).await.unwrap();
    let row = |topic_id| IndexRow { topic_id, offsets: vec![topic_id] };
    let many = IndexStep { day: 1, rows: (0..45_000).map(row).collect(), owner: None };
    put(&index, 0, (None, 45_000), &many).await;
    put(&index, 0, (Some(45_000), 45_100), &step(2, &[(7, &[45_050])])).await;
    put(&index, 1, (None, 10), &step(1, &[(7, &[2, 9])])).await;
    raw(url, &config).await.execute(FEW).await.unwrap();
    index.reset_partition(0, 45_100).await.unwrap();
    assert_eq!(put(&index, 0, (None, 6), &step(3, &[(7, &[5])])).await, WriteOutcome::Applied);
    let rebuilt = index.page(0, 7, 0..100_000, 100).await.unwrap();
    assert_eq!(rebuilt, IndexPage { offsets: vec![5], until: 6 });
    // Rows of the earlier build would appear once the position has passed them.
    put(&index, 0, (Some(6), 60_000), &IndexStep::default()).await;
    let passed = index.page(0, 40_000, 0..60_000, 100).await.unwrap();
    assert_eq!(passed, IndexPage { offsets: Vec::new(), until: 60_000 });
    assert_eq!(page(&index, 1, 7, 0).await, (vec![2, 9], 10));
    assert_eq!(index.drop_below(&[0, 10]).await.unwrap(), 2, "the emptied days hold nothing back");
}

/// Two processes write partitions of the same new day.
#[tokio::test]
async fn processes_create_a_day_once() {
    let Some(url) = millrace_testkit::postgres("store: index") else { return };
    let config = config(url);
    let (a, b) = tokio::join!(MessageIndex::postgres(&config), MessageIndex::postgres(&config));
    let (a, b) = (a.unwrap(), b.unwrap());
    let rows = step(20_000, &[(7, &[1])]);
    let written = tokio::join!(put(&a, 0, (None, 2), &rows), put(&b, 1, (None, 2), &rows));
    assert_eq!(written, (WriteOutcome::Applied, WriteOutcome::Applied));
    assert_eq!(a.drop_below(&[2, 2]).await.unwrap(), 1);
    // The other one has not heard of it.
    let rows = step(20_000, &[(7, &[3])]);
    let late = [ProjectionWrite {
        partition: 1,
        expected: Some(2),
        next: 4,
        last_record: None,
        caught_up: true,
        counted: None,
        items: &rows,
    }];
    assert!(b.write(&late).await.is_err());
    assert_eq!(b.write(&late).await.unwrap(), [WriteOutcome::Applied], "the day is created again");
    assert_eq!(page(&a, 1, 7, 0).await, (vec![3], 4));
}
