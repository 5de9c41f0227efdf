//! Positions of stages: new groups, restarts, foreign state; and partition counts of topics.

use std::time::Duration;

use millrace_contracts::{Partitions, TOPICS, Topic};
use millrace_log::{Batch, LogError, NewRecord, Outcome, Stage, StageError, Status, Step};

use crate::harness::{Engine, PARTITIONS, append, read_all, run_stage, until};
use crate::numbering::{Numbering, check_numbers};
use crate::on_both_engines;

on_both_engines!(
    a_new_group_starts_at_the_first_offset_and_counts_once,
    a_restart_resumes_at_the_position,
    a_restart_on_an_idle_log_counts_nothing_again,
    a_state_without_the_groups_position_is_refused,
    a_wrong_partition_count_is_refused,
    describe_returns_topics_with_their_bounds,
    a_topic_has_its_own_number_of_partitions,
    a_log_keeps_its_id_and_another_has_another,
);

async fn a_new_group_starts_at_the_first_offset_and_counts_once(engine: Engine) {
    let log = engine.open().await;
    for partition in 0..PARTITIONS {
        append(&log, partition, (0..3_000).map(|n| n.to_string())).await;
    }
    let running = run_stage(&log, Numbering, "numbering", "a");
    until("all are numbered", || async { check_numbers(&log).await == 9_000 }).await;
    let all = Status::Running { partitions: (0..PARTITIONS).collect() };
    assert_eq!(*running.status.borrow(), all);
    running.end().await.unwrap();
}

async fn a_restart_resumes_at_the_position(engine: Engine) {
    let log = engine.open().await;
    for round in 1..=3 {
        append(&log, 1, (0..700).map(|n| n.to_string())).await;
        let running = run_stage(&log, Numbering, "numbering", "a");
        until("the round is numbered", || async { check_numbers(&log).await == round * 700 }).await;
        running.end().await.unwrap();
    }
}

async fn a_restart_on_an_idle_log_counts_nothing_again(engine: Engine) {
    let log = engine.open().await;
    let mut total = 0;
    for restart in 0..4 {
        let mut running = run_stage(&log, Numbering, "numbering", "a");
        let holds_all = |status: &Status| matches!(status, Status::Running { partitions } if partitions.len() == 3);
        let held = tokio::time::timeout(crate::harness::PATIENCE, running.status.wait_for(holds_all)).await;
        held.expect("the stage gets its partitions").unwrap();
        let more = if restart == 0 { 3_000 } else { 1 };
        for partition in 0..PARTITIONS {
            append(&log, partition, (0..more).map(|n| n.to_string())).await;
            total += more;
        }
        until("the new ones are numbered", || async { check_numbers(&log).await >= total }).await;
        running.end().await.unwrap();
        assert_eq!(check_numbers(&log).await, total, "restart {restart}");
    }
}

async fn a_state_without_the_groups_position_is_refused(engine: Engine) {
    let log = engine.open().await;
    append(&log, 0, ["one".to_owned()]).await;
    let running = run_stage(&log, Numbering, "numbering", "a");
    until("it is numbered", || async { check_numbers(&log).await == 1 }).await;
    running.end().await.unwrap();
    // Another group has the state of the first and no position of its own: any start would be a guess.
    run_stage(&log, Numbering, "another", "a").isolates(0, &["analytics.events/0"]).await;
    assert_eq!(check_numbers(&log).await, 1);
}

async fn a_wrong_partition_count_is_refused(mut engine: Engine) {
    let log = engine.open().await;
    log.close(std::time::Duration::from_secs(5)).await;
    drop(log);
    match &mut engine {
        Engine::Kafka { config, .. } => config.partitions = PARTITIONS + 1,
        Engine::Embedded { config, .. } => config.partitions = PARTITIONS + 1,
    }
    let refused = match engine.try_open() {
        Ok(log) => log.create_topics().await.unwrap_err(),
        Err(error) => error,
    };
    let LogError::Refused(why) = refused else { panic!("{refused:?}") };
    assert!(why.detail.contains("analytics.") && why.detail.contains('3') && why.detail.contains('4'), "{why}");
}

async fn describe_returns_topics_with_their_bounds(engine: Engine) {
    let log = engine.open().await;
    append(&log, 2, (0..5).map(|n| n.to_string())).await;
    let topics = log.describe().await.unwrap();
    assert_eq!(topics.len(), TOPICS.len());
    let events = topics.iter().find(|topic| topic.topic == Topic::EVENTS).unwrap();
    assert_eq!(events.full_name, engine.names().topic(&Topic::EVENTS));
    let bounds: Vec<(u64, u64)> = events.partitions.iter().map(|partition| (partition.start, partition.end)).collect();
    assert_eq!(bounds, [(0, 0), (0, 0), (0, 5)]);
}

/// A topic of this test, with a fixed number of partitions.
const fn fixed(partitions: u32) -> Topic {
    Topic { name: "test.fixed", partitions: Partitions::Fixed(partitions), ..Topic::STATE }
}

/// A stage with changes in the fixed topic.
struct Mismatched;

impl Stage for Mismatched {
    type State = ();
    type Undo = ();

    fn input(&self) -> Topic {
        Topic::EVENTS
    }

    fn changes(&self) -> Topic {
        fixed(2)
    }

    fn outputs(&self) -> &'static [Topic] {
        &[]
    }

    fn new_state(&self, _: u32) {}

    fn load(&self, (): &mut (), _: &[u8], _: &[u8]) -> Result<(), StageError> {
        Ok(())
    }

    fn apply(&self, (): &mut (), _: &Batch, _: &mut Step) -> Result<(), StageError> {
        Ok(())
    }

    fn undo(&self, (): &mut (), (): ()) {}
}

async fn a_topic_has_its_own_number_of_partitions(engine: Engine) {
    let table = |partitions| [TOPICS, &[fixed(partitions)]].concat();
    let log = engine.try_open_with(&table(2)).unwrap();
    log.create_topics().await.unwrap();
    assert_eq!((log.partitions(Topic::EVENTS), log.partitions(fixed(2))), (PARTITIONS, 2));
    // A new partition may have no leader yet.
    until("the log describes its topics", || async { log.describe().await.is_ok() }).await;
    let topics = log.describe().await.unwrap();
    let counts: Vec<usize> = topics.iter().map(|info| info.partitions.len()).collect();
    let declared = TOPICS.iter().map(|topic| topic.partitions.count(PARTITIONS)).chain([2]);
    assert_eq!(counts, declared.map(|count| count as usize).collect::<Vec<_>>());
    let record = NewRecord { topic: fixed(2), partition: 1, key: b"k", value: b"v" };
    assert_eq!(log.append(&[record]).await, [Outcome::Acknowledged(0)]);
    let read = read_all(&log, fixed(2), &[(0, 0), (1, 0)]).await;
    assert_eq!((read[&0].len(), read[&1].len()), (0, 1));
    let refused = run_stage(&log, Mismatched, "mismatched", "a").refusal().await;
    assert!(matches!(&refused, LogError::Refused(why) if why.detail.contains("test.fixed")), "{refused}");
    log.close(Duration::from_secs(5)).await;
    drop(log);
    // The product's table, and the topic with another number.
    drop(engine.open().await);
    let refused = match engine.try_open_with(&table(4)) {
        Ok(log) => log.create_topics().await.unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(&refused, LogError::Refused(why) if why.detail.contains("it must have 4")), "{refused}");
}

async fn a_log_keeps_its_id_and_another_has_another(engine: Engine) {
    let log = engine.open().await;
    let id = log.id().await.unwrap();
    log.close(crate::harness::PATIENCE).await;
    drop(log);
    assert_eq!(engine.open().await.id().await.as_deref(), Ok(&*id));
    assert_ne!(engine.another().open().await.id().await.unwrap(), id);
}
