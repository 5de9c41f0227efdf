//! A transaction that another owner of a partition left open in the state and the outputs, on Kafka: the next owner ends it.

use millrace_contracts::{Position, Topic};
use millrace_log::RunnerKey;
use millrace_testkit::{Kafka, not_run};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::harness::{Engine, PATIENCE, append, run_stage, until};
use crate::numbering::{Numbering, check_numbers};
use crate::wire::{Batch, leave_records, producer_id};

fn client(engine: &Engine) -> ClientConfig {
    let Engine::Kafka { config, .. } = engine else { unreachable!() };
    ClientConfig::new().set("bootstrap.servers", &config.brokers).clone()
}

/// Two records, numbered by `b`, which then ends.
async fn numbered_by_another(engine: &Engine) -> millrace_log::Log {
    let log = engine.open().await;
    append(&log, 0, ["0", "1"].map(String::from)).await;
    let running = run_stage(&log, Numbering, "numbering", "b");
    until("two are numbered", || async { check_numbers(&log).await == 2 }).await;
    running.end().await.unwrap();
    log
}

/// A transaction under the id of `b` that does not end for longer than any test.
async fn open_transaction(engine: &Engine, topics: &[Topic]) -> BaseProducer {
    let id = engine.names().transactional_id("numbering", "b", 0);
    let topics: Vec<String> = topics.iter().map(|topic| engine.names().topic(topic)).collect();
    let mut client = client(engine);
    client.set("transactional.id", id).set("transaction.timeout.ms", "900000");
    let open = move || {
        let producer: BaseProducer = client.create().unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        for topic in &topics {
            let record = BaseRecord::to(topic).partition(0).key("number").payload("7 7");
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
        producer
    };
    tokio::task::spawn_blocking(open).await.unwrap()
}

async fn the_next_owner_ends_it_in(topics: &[Topic]) {
    let Some(engine) = Engine::kafka("a transaction of another owner") else { return };
    let log = numbered_by_another(&engine).await;
    let left_open = open_transaction(&engine, topics).await;
    append(&log, 0, ["2".to_owned()]).await;
    let running = run_stage(&log, Numbering, "numbering", "a");
    until("the third is numbered and readable", || async { check_numbers(&log).await == 3 }).await;
    running.end().await.unwrap();
    drop(left_open);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_in_state_and_outputs_is_ended() {
    the_next_owner_ends_it_in(&[Topic::STATE, Topic::HOURLY]).await;
}

/// The state is readable; nothing but the reader of the outputs notices.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_in_an_output_is_ended() {
    the_next_owner_ends_it_in(&[Topic::HOURLY]).await;
}

/// What the brokers recorded as ended, they do not end any more: neither by its timeout nor for a new producer.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_the_brokers_forgot_commits_if_its_offsets_did() {
    let kafka = match Kafka::start_with(&[("transaction.partition.verification.enable", "false")]) {
        Ok(kafka) => kafka,
        Err(why) => return not_run("a forgotten transaction", "Apache Kafka", &why),
    };
    for committed in [true, false] {
        let engine = Engine::kafka_at(&kafka.brokers());
        let names = engine.names();
        let log = numbered_by_another(&engine).await;
        append(&log, 0, ["2".to_owned()]).await;
        let id = names.transactional_id("numbering", "b", 0);
        let producer = producer_id(&kafka.brokers(), &id).await;
        let mut position = Vec::new();
        Position { next_offset: 3, ..Position::default() }.encode(&mut position);
        let key = RunnerKey::Position(0).to_string();
        let state = Batch { producer, records: &[("number", b"3 3"), (&key, &position)] };
        leave_records(&kafka.brokers(), &id, &names.topic(&Topic::STATE), &state);
        if committed {
            let hourly = Batch { producer, records: &[("3 2", b"3 2")] };
            leave_records(&kafka.brokers(), &id, &names.topic(&Topic::HOURLY), &hourly);
            commit_offset(&engine, 3).await;
        }
        append(&log, 0, ["3".to_owned()]).await;
        let running = run_stage(&log, Numbering, "numbering", "a");
        until("each is numbered once", || async { check_numbers(&log).await == 4 }).await;
        running.end().await.unwrap();
    }
}

async fn commit_offset(engine: &Engine, offset: i64) {
    let names = engine.names();
    let consumer: BaseConsumer = client(engine).set("group.id", names.group("numbering")).create().unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&names.topic(&Topic::EVENTS), 0, Offset::Offset(offset)).unwrap();
    // Once its static member's session has expired.
    until("the group has no member", || async { consumer.commit(&offsets, CommitMode::Sync).is_ok() }).await;
}
