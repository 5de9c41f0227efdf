//! Stages and where they go on: new groups, old groups, wrong partition counts, many instances.

use millrace_contracts::Topic;
use millrace_log::{LogError, Status};

use crate::harness::{Engine, PARTITIONS, append, run_stage, until};
use crate::numbering::{Numbering, check_numbers};
use crate::on_both_engines;

on_both_engines!(
    a_new_group_begins_at_the_beginning_and_numbers_everything_once,
    a_restart_goes_on_where_it_stood,
    a_restart_on_an_idle_log_counts_nothing_again,
    a_state_without_the_groups_position_is_refused,
    a_wrong_partition_count_is_refused,
    topics_describe_themselves,
);

async fn a_new_group_begins_at_the_beginning_and_numbers_everything_once(engine: Engine) {
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

async fn a_restart_goes_on_where_it_stood(engine: Engine) {
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
        held.expect("it gets its partitions").unwrap();
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
    // Another group finds the state of the first, and no position of its own: to begin anywhere would be a guess.
    let refused = run_stage(&log, Numbering, "another", "a").refusal().await;
    assert!(matches!(&refused, LogError::Refused(why) if why.contains("analytics.events/0")), "{refused}");
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
    assert!(why.contains("analytics.") && why.contains('3') && why.contains('4'), "{why}");
}

async fn topics_describe_themselves(engine: Engine) {
    let log = engine.open().await;
    append(&log, 2, (0..5).map(|n| n.to_string())).await;
    let topics = log.describe().await.unwrap();
    assert_eq!(topics.len(), millrace_contracts::TOPICS.len());
    let events = topics.iter().find(|topic| topic.topic == Topic::EVENTS).unwrap();
    assert_eq!(events.full_name, engine.names().topic(&Topic::EVENTS));
    let bounds: Vec<(u64, u64)> = events.partitions.iter().map(|partition| (partition.start, partition.end)).collect();
    assert_eq!(bounds, [(0, 0), (0, 0), (0, 5)]);
}
