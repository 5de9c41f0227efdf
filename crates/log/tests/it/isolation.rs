//! Partitions fail and restore by themselves: the others go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millrace_contracts::Topic;
use millrace_log::{Batch, Log, Stage, StageError, Status, Step};

use crate::harness::{Engine, PARTITIONS, PATIENCE, Running, append, run_stage, until};
use crate::metrics::value;
use crate::numbering::{Count, Numbering, check_numbers};
use crate::on_both_engines;

on_both_engines!(
    a_partition_that_cannot_be_restored_leaves_the_others_running,
    a_partition_whose_step_is_refused_leaves_the_others_running,
);

/// Numbers; with flaws in partition 1, and loads that wait.
#[derive(Clone, Default)]
struct Flawed(Arc<Flaws>);

#[derive(Default)]
struct Flaws {
    load: AtomicBool,
    apply: AtomicBool,
    /// Whether loads wait.
    held: AtomicBool,
}

fn flaw(flaw: &AtomicBool, partition: u32) -> Result<(), StageError> {
    if partition == 1 && flaw.load(Ordering::Acquire) {
        return Err(StageError::ForeignChange { key: "number".into(), why: "flawed by the test".into() });
    }
    Ok(())
}

impl Stage for Flawed {
    type State = (u32, Count);
    type Undo = (u64, u64);

    fn input(&self) -> Topic {
        Numbering.input()
    }

    fn changes(&self) -> Topic {
        Numbering.changes()
    }

    fn outputs(&self) -> &'static [Topic] {
        Numbering.outputs()
    }

    fn new_state(&self, partition: u32) -> (u32, Count) {
        (partition, Numbering.new_state(partition))
    }

    fn load(&self, (partition, state): &mut (u32, Count), key: &[u8], value: &[u8]) -> Result<(), StageError> {
        while self.0.held.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(5));
        }
        flaw(&self.0.load, *partition)?;
        Numbering.load(state, key, value)
    }

    fn replay_from(&self, (_, state): &(u32, Count)) -> Option<u64> {
        Numbering.replay_from(state)
    }

    fn replay(&self, (_, state): &mut (u32, Count), batch: &Batch) {
        Numbering.replay(state, batch);
    }

    fn apply(
        &self,
        (partition, state): &mut (u32, Count),
        batch: &Batch,
        step: &mut Step,
    ) -> Result<(u64, u64), StageError> {
        flaw(&self.0.apply, *partition)?;
        Numbering.apply(state, batch, step)
    }

    fn undo(&self, (_, state): &mut (u32, Count), before: (u64, u64)) {
        Numbering.undo(state, before);
    }
}

async fn append_to_all(log: &Log, records: u64) {
    for partition in 0..PARTITIONS {
        append(log, partition, (0..records).map(|n| n.to_string())).await;
    }
}

async fn wait_for(running: &mut Running, what: &str, holds: impl FnMut(&Status) -> bool) -> Status {
    let waited = tokio::time::timeout(PATIENCE, running.status.wait_for(holds)).await;
    waited.unwrap_or_else(|_| panic!("never: {what}")).unwrap().clone()
}

fn all_run(status: &Status) -> bool {
    *status == Status::Running { partitions: (0..PARTITIONS).collect() }
}

/// Partition 1 fails with a backlog of 10; the others are numbered. It goes on once the flaw is gone.
async fn one_fails_and_recovers(log: &Log, role: &str, mut running: Running, flaw: &AtomicBool, before: u64) {
    append_to_all(log, 10).await;
    let degraded = |status: &Status| {
        matches!(status, Status::Degraded { partitions, failed }
            if *partitions == [0, 2] && failed.len() == 1 && failed[&1].contains("flawed by the test"))
    };
    let status = wait_for(&mut running, "partition 1 fails", degraded).await;
    assert!(status.not_ready().unwrap().starts_with("partition 1 is not processed: "));
    until("the others are numbered", || async { check_numbers(log).await == before + 20 }).await;
    let role = format!("role=\"{role}\"");
    let of = |name| value(name, &[&role, "partition=\"1\""]);
    until("its backlog is reported", || async { of("millrace_lag_records") == Some(10.0) }).await;
    // A retry that gets as far as the refused step shows 0 until then.
    until("its failure is reported", || async { of("millrace_stage_partition_failed") == Some(1.0) }).await;
    flaw.store(false, Ordering::Release);
    until("all are numbered", || async { check_numbers(log).await == before + 30 }).await;
    wait_for(&mut running, "all partitions run", all_run).await;
    assert_eq!(of("millrace_stage_partition_failed"), Some(0.0));
    running.end().await.unwrap();
}

async fn a_partition_that_cannot_be_restored_leaves_the_others_running(engine: Engine) {
    let log = engine.open().await;
    let role = millrace_testkit::unique("restoring");
    append_to_all(&log, 10).await;
    let running = run_stage(&log, Numbering, &role, "a");
    until("all are numbered", || async { check_numbers(&log).await == 30 }).await;
    running.end().await.unwrap();
    let stage = Flawed::default();
    stage.0.load.store(true, Ordering::Release);
    let running = run_stage(&log, stage.clone(), &role, "a");
    one_fails_and_recovers(&log, &role, running, &stage.0.load, 30).await;
}

async fn a_partition_whose_step_is_refused_leaves_the_others_running(engine: Engine) {
    let log = engine.open().await;
    let (role, stage) = (millrace_testkit::unique("stepping"), Flawed::default());
    append_to_all(&log, 10).await;
    let running = run_stage(&log, stage.clone(), &role, "a");
    until("all are numbered", || async { check_numbers(&log).await == 30 }).await;
    stage.0.apply.store(true, Ordering::Release);
    one_fails_and_recovers(&log, &role, running, &stage.0.apply, 30).await;
}

/// On Kafka; the embedded engine assigns nothing later.
#[tokio::test(flavor = "multi_thread")]
async fn restoring_new_partitions_does_not_halt_the_others() {
    let Some(mut engine) = Engine::kafka("restores beside steps") else { return };
    let Engine::Kafka { config, .. } = &mut engine else { unreachable!() };
    config.static_members = false;
    let log = engine.open().await;
    append_to_all(&log, 10).await;
    let stage = Flawed::default();
    let mut first = run_stage(&log, stage.clone(), "numbering", "a");
    wait_for(&mut first, "all are assigned to one", all_run).await;
    let mut second = run_stage(&log, Numbering, "numbering", "b");
    let some = |status: &Status| matches!(status, Status::Running { partitions } if !partitions.is_empty());
    wait_for(&mut second, "another gets some", some).await;
    let fewer = |status: &Status| matches!(status, Status::Running { partitions } if partitions.len() < 3);
    let Status::Running { partitions: retained } = wait_for(&mut first, "the first has fewer", fewer).await else {
        unreachable!()
    };
    until("all are numbered", || async { check_numbers(&log).await == 30 }).await;
    stage.0.held.store(true, Ordering::Release);
    second.end().await.unwrap();
    let restoring = |status: &Status| matches!(status, Status::Restoring { .. });
    wait_for(&mut first, "the others are restored", restoring).await;
    append_to_all(&log, 10).await;
    let expected = 30 + 10 * retained.len() as u64;
    until("what it held is numbered", || async { check_numbers(&log).await == expected }).await;
    stage.0.held.store(false, Ordering::Release);
    wait_for(&mut first, "all run", all_run).await;
    until("the rest is numbered", || async { check_numbers(&log).await == 60 }).await;
    first.end().await.unwrap();
}
