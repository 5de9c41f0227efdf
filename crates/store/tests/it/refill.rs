//! Older hours in Redis: under any order and repetition of refills, late counts, expiries, flushes and failovers, a read is
//! never older than the position of Redis, and never partial.

use std::collections::HashMap;

use millrace_contracts::{Hour, HourlyCount, Names, WriteOutcome};
use millrace_store::{
    Archive, ArchiveWriter, HourlyStore, LiveHours, LiveHoursWriter, PartitionSnapshot, RefillOutcome, Totals,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use redis::aio::MultiplexedConnection;

use crate::redis_live::{live, names, position_key, raw};
use crate::support::{PARTITIONS, count, now, position, put};

/// Each partition counts in separate digits, so that a sum reveals its terms.
const DIGITS: u64 = 1_000;

fn hour() -> Hour {
    now().plus(-100)
}

fn older_key(names: &Names, partition: u32) -> String {
    format!("{}a:{{{partition}}}:older:{}", names.redis_stem(), hour())
}

#[derive(Debug, Clone)]
enum Op {
    /// The log counts a late event.
    Count(u32),
    /// A store applies the next record of a partition.
    Archive(u32),
    Redis(u32),
    /// A repetition of the last write to Redis.
    Again(u32),
    /// A read of the archive, which a later refill uses.
    Read,
    /// A refill from one of the reads, which stays available for repetition.
    Fill(prop::sample::Index),
    Expire(u32),
    /// Redis loses the position, alone or with everything.
    Forget(u32),
    Flush,
    /// A replica copies the state; a later failover promotes it.
    Replicate,
    Promote,
}

fn op() -> impl Strategy<Value = Op> {
    let p = 0..PARTITIONS;
    prop_oneof![
        4 => p.clone().prop_map(Op::Count),
        4 => p.clone().prop_map(Op::Archive),
        5 => p.clone().prop_map(Op::Redis),
        1 => p.clone().prop_map(Op::Again),
        3 => Just(Op::Read),
        5 => any::<prop::sample::Index>().prop_map(Op::Fill),
        1 => p.clone().prop_map(Op::Expire),
        1 => p.prop_map(Op::Forget),
        1 => Just(Op::Flush),
        1 => Just(Op::Replicate),
        1 => Just(Op::Promote),
    ]
}

/// All keys of the test in Redis.
type Copy = Vec<(String, KeyDump)>;
enum KeyDump {
    Hash(HashMap<String, String>),
    Text(String, i64),
}

struct World {
    names: Names,
    store: LiveHours,
    writer: LiveHoursWriter,
    connection: MultiplexedConnection,
    archive: Archive,
    archive_writer: ArchiveWriter,
    _folder: tempfile::TempDir,
    /// Per partition: the number of counts of the hour in the log. Record i has i + 1 clicks.
    log: Vec<u64>,
    /// The stored positions; `None` if lost.
    in_archive: Vec<Option<u64>>,
    in_redis: Vec<Option<u64>>,
    last: Vec<Option<(u64, u64)>>,
    reads: Vec<Vec<PartitionSnapshot>>,
    replica: Option<(Copy, Vec<Option<u64>>)>,
}

fn record(partition: u32, offset: u64) -> HourlyCount {
    let clicks = (offset + 1) * DIGITS.pow(partition);
    count(hour(), partition, offset + 1, [clicks, 0, 0])
}

impl World {
    async fn new(url: &str) -> Self {
        let names = names();
        let store = live(url, &names).await;
        let folder = tempfile::tempdir().unwrap();
        let database = fjall::Database::builder(folder.path()).open().unwrap();
        let archive = Archive::embedded(&database, PARTITIONS).unwrap();
        let nothing = || vec![None; PARTITIONS as usize];
        Self {
            writer: store.writer(),
            archive_writer: archive.writer(),
            connection: raw(url).await,
            names,
            store,
            archive,
            _folder: folder,
            log: vec![0; PARTITIONS as usize],
            in_archive: nothing(),
            in_redis: nothing(),
            last: vec![None; PARTITIONS as usize],
            reads: Vec::new(),
            replica: None,
        }
    }

    async fn run(&mut self, op: &Op) {
        match op {
            Op::Count(p) => self.log[*p as usize] += 1,
            Op::Archive(p) => {
                let p = *p as usize;
                let moved = advance(&mut self.archive_writer, p, self.in_archive[p], self.log[p]).await;
                self.in_archive[p] = Some(moved.1);
            }
            Op::Redis(p) => {
                let p = *p as usize;
                let stood = position(&mut self.writer, u32::try_from(p).unwrap()).await.unwrap();
                assert_eq!(stood, self.in_redis[p]);
                let moved = advance(&mut self.writer, p, stood, self.log[p]).await;
                self.in_redis[p] = Some(moved.1);
                self.last[p] = stood.map(|stood| (stood, moved.1)).filter(|(from, to)| from < to);
            }
            Op::Again(p) => {
                if let Some((from, to)) = self.last[*p as usize] {
                    let counts = [record(*p, to - 1)];
                    let written = put(&mut self.writer, *p, (Some(from), to), true, &counts).await.unwrap();
                    let moved = written == WriteOutcome::Applied;
                    assert_eq!(moved, self.in_redis[*p as usize] == Some(from), "{written:?}");
                    if moved {
                        self.in_redis[*p as usize] = Some(to);
                    }
                }
            }
            Op::Read => {
                let parts = self.archive.snapshot(0..PARTITIONS, hour()..hour().plus(1)).await.unwrap();
                self.reads.push(parts);
            }
            Op::Fill(index) if !self.reads.is_empty() => {
                let parts: &Vec<PartitionSnapshot> = index.get(&self.reads);
                self.store.fill(hour(), parts).await.unwrap();
            }
            Op::Fill(_) => {}
            Op::Expire(p) => self.delete(&older_key(&self.names, *p)).await,
            Op::Forget(p) => {
                self.delete(&position_key(&self.names, *p)).await;
                self.in_redis[*p as usize] = None;
            }
            Op::Flush => {
                for key in self.keys().await {
                    self.delete(&key).await;
                }
                self.in_redis.fill(None);
            }
            Op::Replicate => self.replica = Some((self.copy().await, self.in_redis.clone())),
            Op::Promote => {
                if let Some((copy, positions)) = self.replica.take() {
                    self.promote(copy).await;
                    self.in_redis = positions;
                }
            }
        }
    }

    async fn delete(&self, key: &str) {
        let () = redis::cmd("DEL").arg(key).query_async(&mut self.connection.clone()).await.unwrap();
    }

    async fn keys(&self) -> Vec<String> {
        let pattern = format!("{}*", self.names.redis_stem());
        redis::cmd("KEYS").arg(pattern).query_async(&mut self.connection.clone()).await.unwrap()
    }

    async fn copy(&self) -> Copy {
        let mut connection = self.connection.clone();
        let mut copy = Vec::new();
        for key in self.keys().await {
            let dump = if key.ends_with(":pos") {
                KeyDump::Hash(redis::cmd("HGETALL").arg(&key).query_async(&mut connection).await.unwrap())
            } else {
                let text = redis::cmd("GET").arg(&key).query_async(&mut connection).await.unwrap();
                KeyDump::Text(text, redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap())
            };
            copy.push((key, dump));
        }
        copy
    }

    async fn promote(&self, copy: Copy) {
        for key in self.keys().await {
            self.delete(&key).await;
        }
        for (key, dump) in copy {
            let command = match dump {
                KeyDump::Hash(fields) => {
                    fields.into_iter().fold(redis::cmd("HSET").arg(&key).clone(), |mut hset, field| {
                        hset.arg(field.0).arg(field.1);
                        hset
                    })
                }
                KeyDump::Text(text, lives) => redis::cmd("SET").arg(&key).arg(text).arg("PX").arg(lives).clone(),
            };
            let _: redis::Value = command.query_async(&mut self.connection.clone()).await.unwrap();
        }
    }

    /// Each partition has at least the counts up to the position of Redis, and at most those of the log.
    fn check(&self, read: Option<Totals>) -> Result<(), TestCaseError> {
        let Some(totals) = read else { return Ok(()) };
        for p in 0..PARTITIONS as usize {
            let found = totals.clicks / DIGITS.pow(u32::try_from(p).unwrap()) % DIGITS;
            let passed = self.in_redis[p].expect("a read without a position returns nothing");
            prop_assert!(found >= passed, "partition {p} has {found}, Redis is at {passed}");
            prop_assert!(found <= self.log[p], "partition {p} has {found}, the log has {}", self.log[p]);
        }
        Ok(())
    }
}

/// Applies the next record, or an empty write at the end. Returns the outcome and the position.
async fn advance(store: &mut impl HourlyStore, p: usize, stood: Option<u64>, end: u64) -> (WriteOutcome, u64) {
    let partition = u32::try_from(p).unwrap();
    let from = stood.unwrap_or(0);
    let next = (from + 1).min(end);
    let counts: Vec<HourlyCount> = (from..next).map(|offset| record(partition, offset)).collect();
    // As a runner does, it sets `caught_up` at the end of the log.
    let written = put(store, partition, (stood, next), next == end, &counts).await.unwrap();
    assert_eq!(written, WriteOutcome::Applied);
    (written, next)
}

#[test]
fn a_refill_never_replaces_a_newer_count() {
    let Some(url) = millrace_testkit::redis("store: older hours") else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = Config { cases: 96, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&prop::collection::vec(op(), 20..60), |ops| {
            runtime.block_on(async {
                let mut world = World::new(url).await;
                for p in 0..PARTITIONS {
                    world.run(&Op::Archive(p)).await;
                    world.run(&Op::Redis(p)).await;
                }
                for op in &ops {
                    world.run(op).await;
                    world.check(world.store.older(hour()).await.unwrap())?;
                }
                converges(&mut world).await
            })
        })
        .unwrap();
}

/// With both stores caught up, two refills suffice: the first may only reserve.
async fn converges(world: &mut World) -> Result<(), TestCaseError> {
    for p in 0..PARTITIONS {
        for _ in 0..=world.log[p as usize] {
            world.run(&Op::Archive(p)).await;
            world.run(&Op::Redis(p)).await;
        }
    }
    let parts = world.archive.snapshot(0..PARTITIONS, hour()..hour().plus(1)).await.unwrap();
    prop_assert_eq!(world.store.fill(hour(), &parts).await, Ok(RefillOutcome::Filled));
    let clicks = (0..PARTITIONS).map(|p| world.log[p as usize] * DIGITS.pow(p)).sum();
    prop_assert_eq!(world.store.older(hour()).await, Ok(Some(Totals { clicks, ..Totals::default() })));
    Ok(())
}

#[tokio::test]
async fn an_older_hour_is_filled_corrected_and_expires() {
    let Some(url) = millrace_testkit::redis("store: older hours") else { return };
    let mut world = World::new(url).await;
    assert_eq!(world.store.older(hour()).await, Ok(None));
    let parts = world.archive.snapshot(0..PARTITIONS, hour()..hour().plus(1)).await.unwrap();
    assert_eq!(world.store.fill(hour(), &parts).await, Ok(RefillOutcome::Rebuilding), "the archive is not complete");
    for p in 0..PARTITIONS {
        world.run(&Op::Archive(p)).await;
        world.run(&Op::Redis(p)).await;
    }
    let parts = world.archive.snapshot(0..PARTITIONS, hour()..hour().plus(1)).await.unwrap();
    assert_eq!(world.store.fill(hour(), &parts).await, Ok(RefillOutcome::Filled));
    assert_eq!(world.store.older(hour()).await, Ok(Some(Totals::default())), "an hour without events is zero");

    // Late counts correct it without extending its time to live.
    let lives = async |partition| -> i64 {
        let mut connection = world.connection.clone();
        redis::cmd("PTTL").arg(older_key(&world.names, partition)).query_async(&mut connection).await.unwrap()
    };
    let before = lives(1).await;
    assert!((1..=600_000).contains(&before), "{before}");
    let (store, mut writer) = (world.store.clone(), world.store.writer());
    let late = [record(1, 4)];
    assert_eq!(put(&mut writer, 1, (Some(0), 5), false, &late).await, Ok(WriteOutcome::Applied));
    assert_eq!(store.older(hour()).await.unwrap().unwrap().clicks, 5 * DIGITS);
    assert!(lives(1).await <= before);

    // A repetition of the earlier refill does not replace the count. Without a value, the archive is behind.
    assert_eq!(store.fill(hour(), &parts).await, Ok(RefillOutcome::Filled));
    assert_eq!(store.older(hour()).await.unwrap().unwrap().clicks, 5 * DIGITS);
    world.delete(&older_key(&world.names, 1)).await;
    assert_eq!(store.fill(hour(), &parts).await, Ok(RefillOutcome::ArchiveBehind));
    assert_eq!(store.older(hour()).await, Ok(None), "a reservation has no counts");
    // The next count replaces the reservation.
    assert_eq!(put(&mut writer, 1, (Some(5), 6), false, &[record(1, 5)]).await, Ok(WriteOutcome::Applied));
    assert_eq!(store.older(hour()).await.unwrap().unwrap().clicks, 6 * DIGITS);
}

#[tokio::test]
async fn values_of_an_earlier_build_are_neither_served_nor_retained() {
    let Some(url) = millrace_testkit::redis("store: older hours") else { return };
    let mut world = World::new(url).await;
    for p in 0..PARTITIONS {
        world.run(&Op::Archive(p)).await;
        world.run(&Op::Redis(p)).await;
    }
    let before = world.archive.snapshot(0..PARTITIONS, hour()..hour().plus(1)).await.unwrap();
    assert_eq!(world.store.fill(hour(), &before).await, Ok(RefillOutcome::Filled));
    world.run(&Op::Forget(1)).await;
    world.run(&Op::Redis(1)).await;
    assert_eq!(world.store.older(hour()).await, Ok(None), "the value is of another build");
    world.run(&Op::Count(1)).await;
    world.run(&Op::Redis(1)).await;
    assert_eq!(
        world.store.fill(hour(), &before).await,
        Ok(RefillOutcome::ArchiveBehind),
        "the count came while the key was absent"
    );
    assert_eq!(world.store.older(hour()).await, Ok(None));
    converges(&mut world).await.unwrap();
}
