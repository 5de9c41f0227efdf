//! A restore with offsets that a broker left open in the group when it should have ended them (KAFKA-20734). A broker
//! that accepts offsets without verification of their transaction allows a test to leave them open.

use std::time::Duration;

use millrace_contracts::{Position, Topic};
use millrace_log::{RunnerKey, Status};
use millrace_testkit::{Kafka, not_run};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::harness::{Engine, PARTITIONS, PATIENCE, append, run_stage, until};
use crate::numbering::{Numbering, check_numbers};
use crate::wire::{Request, producer_id};

const TXN_OFFSET_COMMIT: i16 = 28;

/// Puts offset 3 of partition 0 into a transaction that only the group has.
async fn leave_open(brokers: &str, id: &str, group: &str, topic: &str) {
    let producer = producer_id(brokers, id).await;
    let request = Request::default().string(id).string(group).bytes(producer);
    let request = request.bytes(1_i32.to_be_bytes()).string(topic).bytes(1_i32.to_be_bytes());
    let request = request.bytes(0_i32.to_be_bytes()).bytes(3_i64.to_be_bytes()).string("");
    let response = request.send(brokers, TXN_OFFSET_COMMIT, 0);
    assert!(response.ends_with(&[0, 0]), "{response:?}");
}

/// Writes and commits what the step with offset 3 writes.
async fn commit_step(engine: &Engine, brokers: String, id: String) {
    let (state, hourly) = (engine.names().topic(&Topic::STATE), engine.names().topic(&Topic::HOURLY));
    let write = move || {
        let wait = Duration::from_secs(20);
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", brokers).set("transactional.id", id).create().unwrap();
        producer.init_transactions(wait).unwrap();
        producer.begin_transaction().unwrap();
        let mut position = Vec::new();
        Position { next_offset: 3, ..Position::default() }.encode(&mut position);
        let key = RunnerKey::Position(0).to_string();
        for (topic, key, value) in
            [(&hourly, "3 2", &b"3 2"[..]), (&state, "number", b"3 3"), (&state, &key, &position)]
        {
            producer.send(BaseRecord::to(topic).partition(0).key(key).payload(value)).map_err(|(e, _)| e).unwrap();
        }
        producer.flush(wait).unwrap();
        producer.commit_transaction(wait).unwrap();
    };
    tokio::task::spawn_blocking(write).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn open_offsets_are_committed_if_the_state_contains_them_and_aborted_if_not() {
    let kafka = match Kafka::start_with(&[("transaction.partition.verification.enable", "false")]) {
        Ok(kafka) => kafka,
        Err(why) => return not_run("offsets left open", "Apache Kafka", &why),
    };
    let brokers = kafka.brokers();
    // The next owner has the same id, or another one. At the same time: each waits for timeouts of transactions.
    tokio::join!(
        settles(&brokers, true, "a"),
        settles(&brokers, false, "a"),
        settles(&brokers, true, "b"),
        settles(&brokers, false, "b"),
    );
}

async fn settles(brokers: &str, committed: bool, next: &str) {
    let engine = Engine::kafka_at(brokers);
    let names = engine.names();
    let log = engine.open().await;
    append(&log, 0, ["0", "1"].map(String::from)).await;
    let running = run_stage(&log, Numbering, "numbering", "a");
    until("two are numbered", || async { check_numbers(&log).await == 2 }).await;
    running.end().await.unwrap();
    append(&log, 0, ["2".to_owned()]).await;
    let id = names.transactional_id("numbering", "a", 0);
    if committed {
        commit_step(&engine, brokers.to_owned(), id.clone()).await;
    }
    leave_open(brokers, &id, &names.group("numbering"), &names.topic(&Topic::EVENTS)).await;
    append(&log, 0, ["3".to_owned()]).await;
    let running = run_stage(&log, Numbering, "numbering", next);
    until("each is numbered once", || async { check_numbers(&log).await == 4 }).await;
    running.end().await.unwrap();
}

/// No marker names the producer, so nothing ends its transaction.
#[tokio::test(flavor = "multi_thread")]
async fn open_offsets_of_an_unknown_producer_hold_up_their_partition_alone() {
    let kafka = match Kafka::start_with(&[("transaction.partition.verification.enable", "false")]) {
        Ok(kafka) => kafka,
        Err(why) => return not_run("offsets of an unknown producer", "Apache Kafka", &why),
    };
    let engine = Engine::kafka_at(&kafka.brokers());
    let names = engine.names();
    let log = engine.open().await;
    for partition in 0..PARTITIONS {
        append(&log, partition, ["0".to_owned()]).await;
    }
    let running = run_stage(&log, Numbering, "numbering", "a");
    until("all are numbered", || async { check_numbers(&log).await == 3 }).await;
    running.end().await.unwrap();
    leave_open(&kafka.brokers(), "unknown", &names.group("numbering"), &names.topic(&Topic::EVENTS)).await;
    for partition in 0..PARTITIONS {
        append(&log, partition, ["1".to_owned()]).await;
    }
    let mut running = run_stage(&log, Numbering, "numbering", "a");
    let isolated = |status: &Status| {
        matches!(status, Status::Degraded { partitions, failed }
            if *partitions == [1, 2] && failed.len() == 1 && failed[&0].contains("an open transaction holds"))
    };
    let waited = tokio::time::timeout(PATIENCE, running.status.wait_for(isolated)).await.map(|waited| waited.is_ok());
    assert_eq!(waited, Ok(true), "{:?}", running.status.borrow());
    until("the others are numbered", || async { check_numbers(&log).await == 5 }).await;
    running.end().await.unwrap();
}
