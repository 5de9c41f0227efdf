//! Older hours in Redis: whatever the order and the repetition of fills, late counts, expiries, flushes and failovers, what
//! is answered is never older than what Redis says it contains, and never half.

use std::collections::HashMap;

use millrace_contracts::{Hour, HourlyCount, Names, WriteOutcome};
use millrace_store::{Archive, ArchiveWriter, Filled, HourlyStore, LiveHours, LiveHoursWriter, Part, Totals};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use redis::aio::MultiplexedConnection;

use crate::redis_live::{live, names, position_key, raw};
use crate::support::{PARTITIONS, count, now, put};

/// Each partition counts in digits of its own, so that a sum tells what it was made of.
const DIGITS: u64 = 1_000;

fn hour() -> Hour {
    now().plus(-100)
}

fn older_key(names: &Names, partition: u32) -> String {
    format!("{}a:{{{partition}}}:older:{}", names.redis_stem(), hour())
}

#[derive(Debug, Clone)]
enum Op {
    /// A late event is counted, by the log.
    Count(u32),
    /// A store takes one record more of a partition.
    Archive(u32),
    Redis(u32),
    /// The last write of Redis comes once more.
    Again(u32),
    /// The archive is read; what was read is under way.
    Read,
    /// One of those under way arrives, and stays: it may arrive again.
    Fill(prop::sample::Index),
    Expire(u32),
    /// The position is lost, alone or with everything.
    Forget(u32),
    Flush,
    /// A replica takes a copy; later it is promoted.
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

/// Everything of the test's that Redis holds.
type Copy = Vec<(String, Kept)>;
enum Kept {
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
    /// Per partition: how many counts of the hour the log holds. Record i says i + 1 clicks.
    log: Vec<u64>,
    /// Where a store stands; `None` when it lost its position.
    in_archive: Vec<Option<u64>>,
    in_redis: Vec<Option<u64>>,
    last: Vec<Option<(u64, u64)>>,
    under_way: Vec<Vec<Part>>,
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
            under_way: Vec::new(),
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
                let stood = self.writer.position(u32::try_from(p).unwrap()).await.unwrap();
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
                self.under_way.push(parts);
            }
            Op::Fill(index) if !self.under_way.is_empty() => {
                let parts: &Vec<Part> = index.get(&self.under_way);
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
            let kept = if key.ends_with(":pos") {
                Kept::Hash(redis::cmd("HGETALL").arg(&key).query_async(&mut connection).await.unwrap())
            } else {
                let text = redis::cmd("GET").arg(&key).query_async(&mut connection).await.unwrap();
                Kept::Text(text, redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap())
            };
            copy.push((key, kept));
        }
        copy
    }

    async fn promote(&self, copy: Copy) {
        for key in self.keys().await {
            self.delete(&key).await;
        }
        for (key, kept) in copy {
            let command = match kept {
                Kept::Hash(fields) => {
                    fields.into_iter().fold(redis::cmd("HSET").arg(&key).clone(), |mut hset, field| {
                        hset.arg(field.0).arg(field.1);
                        hset
                    })
                }
                Kept::Text(text, lives) => redis::cmd("SET").arg(&key).arg(text).arg("PX").arg(lives).clone(),
            };
            let _: redis::Value = command.query_async(&mut self.connection.clone()).await.unwrap();
        }
    }

    /// Of each partition at least what Redis has passed, at most what the log holds.
    fn check(&self, answer: Option<Totals>) -> Result<(), TestCaseError> {
        let Some(totals) = answer else { return Ok(()) };
        for p in 0..PARTITIONS as usize {
            let found = totals.clicks / DIGITS.pow(u32::try_from(p).unwrap()) % DIGITS;
            let passed = self.in_redis[p].expect("nothing is answered without a position");
            prop_assert!(found >= passed, "partition {p} says {found}, and Redis has passed {passed}");
            prop_assert!(found <= self.log[p], "partition {p} says {found}, and the log has {}", self.log[p]);
        }
        Ok(())
    }
}

/// One record more, or that there is none; answers where the store stands then.
async fn advance(store: &mut impl HourlyStore, p: usize, stood: Option<u64>, end: u64) -> (WriteOutcome, u64) {
    let partition = u32::try_from(p).unwrap();
    let from = stood.unwrap_or(0);
    let next = (from + 1).min(end);
    let counts: Vec<HourlyCount> = (from..next).map(|offset| record(partition, offset)).collect();
    // As a runner does, it says that it has caught up at the end of what there is.
    let written = put(store, partition, (stood, next), next == end, &counts).await.unwrap();
    assert_eq!(written, WriteOutcome::Applied);
    (written, next)
}

#[test]
fn a_fill_never_wins_over_a_newer_count() {
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
                settles(&mut world).await
            })
        })
        .unwrap();
}

/// With both stores at the end, two fills are enough: one may have to reserve first.
async fn settles(world: &mut World) -> Result<(), TestCaseError> {
    for p in 0..PARTITIONS {
        for _ in 0..=world.log[p as usize] {
            world.run(&Op::Archive(p)).await;
            world.run(&Op::Redis(p)).await;
        }
    }
    let parts = world.archive.snapshot(0..PARTITIONS, hour()..hour().plus(1)).await.unwrap();
    prop_assert_eq!(world.store.fill(hour(), &parts).await, Ok(Filled::Filled));
    let clicks = (0..PARTITIONS).map(|p| world.log[p as usize] * DIGITS.pow(p)).sum();
    prop_assert_eq!(world.store.older(hour()).await, Ok(Some(Totals { clicks, ..Totals::default() })));
    Ok(())
}

#[tokio::test]
async fn an_older_hour_is_filled_corrected_and_let_go() {
    let Some(url) = millrace_testkit::redis("store: older hours") else { return };
    let mut world = World::new(url).await;
    assert_eq!(world.store.older(hour()).await, Ok(None));
    let parts = world.archive.snapshot(0..PARTITIONS, hour()..hour().plus(1)).await.unwrap();
    assert_eq!(world.store.fill(hour(), &parts).await, Ok(Filled::Incomplete), "the archive is not complete");
    for p in 0..PARTITIONS {
        world.run(&Op::Archive(p)).await;
        world.run(&Op::Redis(p)).await;
    }
    let parts = world.archive.snapshot(0..PARTITIONS, hour()..hour().plus(1)).await.unwrap();
    assert_eq!(world.store.fill(hour(), &parts).await, Ok(Filled::Filled));
    assert_eq!(world.store.older(hour()).await, Ok(Some(Totals::default())), "an hour without events is a known zero");

    // Late counts correct it, and it goes when it would have gone.
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

    // The fill from before comes again: it does not win. Where nothing stands, it is too early.
    assert_eq!(store.fill(hour(), &parts).await, Ok(Filled::Filled));
    assert_eq!(store.older(hour()).await.unwrap().unwrap().clicks, 5 * DIGITS);
    world.delete(&older_key(&world.names, 1)).await;
    assert_eq!(store.fill(hour(), &parts).await, Ok(Filled::Early));
    assert_eq!(store.older(hour()).await, Ok(None), "a reservation is no answer");
    // The next count takes the reservation's place by itself.
    assert_eq!(put(&mut writer, 1, (Some(5), 6), false, &[record(1, 5)]).await, Ok(WriteOutcome::Applied));
    assert_eq!(store.older(hour()).await.unwrap().unwrap().clicks, 6 * DIGITS);
}

#[tokio::test]
async fn what_a_former_build_left_behind_is_neither_answered_nor_kept() {
    let Some(url) = millrace_testkit::redis("store: older hours") else { return };
    let mut world = World::new(url).await;
    for p in 0..PARTITIONS {
        world.run(&Op::Archive(p)).await;
        world.run(&Op::Redis(p)).await;
    }
    let before = world.archive.snapshot(0..PARTITIONS, hour()..hour().plus(1)).await.unwrap();
    assert_eq!(world.store.fill(hour(), &before).await, Ok(Filled::Filled));
    world.run(&Op::Forget(1)).await;
    world.run(&Op::Redis(1)).await;
    assert_eq!(world.store.older(hour()).await, Ok(None), "it is of another build");
    world.run(&Op::Count(1)).await;
    world.run(&Op::Redis(1)).await;
    assert_eq!(
        world.store.fill(hour(), &before).await,
        Ok(Filled::Early),
        "the count came when nothing was kept of it"
    );
    assert_eq!(world.store.older(hour()).await, Ok(None));
    settles(&mut world).await.unwrap();
}
