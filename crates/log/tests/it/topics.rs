//! Topics that are changed behind our back, on Kafka: refused by name, never read on from a guess.

use std::time::Duration;

use millrace_contracts::Topic;
use millrace_log::{LogError, NewRecord, Outcome};
use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::harness::{Engine, PARTITIONS, Running, append, read_all, run_stage, until};
use crate::kafka::drop_below;
use crate::numbering::{Numbering, check_numbers};

type Admin = AdminClient<DefaultClientContext>;

fn client(engine: &Engine) -> ClientConfig {
    let Engine::Kafka { config, .. } = engine else { unreachable!() };
    ClientConfig::new().set("bootstrap.servers", &config.brokers).clone()
}

async fn create(engine: &Engine, partitions: i32) {
    let admin: Admin = client(engine).create().unwrap();
    let name = engine.names().topic(&Topic::EVENTS);
    let new =
        NewTopic::new(&name, partitions, TopicReplication::Fixed(1)).set("message.timestamp.type", "LogAppendTime");
    // A name is taken for a moment after its topic was deleted.
    until("the topic is there", || async {
        let created = admin.create_topics([&new], &AdminOptions::new()).await.unwrap();
        created[0].is_ok()
    })
    .await;
}

async fn delete(engine: &Engine) {
    let admin: Admin = client(engine).create().unwrap();
    let deleted = admin.delete_topics(&[&engine.names().topic(&Topic::EVENTS)], &AdminOptions::new()).await.unwrap();
    assert!(deleted[0].is_ok());
}

/// Numbers what the log has so far, and goes on.
async fn numbering(log: &millrace_log::Log, records: u64) -> Running {
    append(log, 0, (0..records).map(|n| n.to_string())).await;
    let running = run_stage(log, Numbering, "numbering", "a");
    until("all are numbered", || async { check_numbers(log).await == records }).await;
    running
}

fn refused(error: &LogError, parts: &[&str]) {
    let LogError::Refused(why) = error else { panic!("{error:?}") };
    assert!(parts.iter().all(|part| why.detail.contains(part)), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_while_we_run_is_refused() {
    let Some(engine) = Engine::kafka("a topic made anew") else { return };
    let log = engine.open().await;
    let running = numbering(&log, 100).await;
    delete(&engine).await;
    create(&engine, PARTITIONS.cast_signed()).await;
    refused(&running.refusal().await, &["position"]);
    assert_eq!(check_numbers(&log).await, 100);
}

/// Its offsets reach past the position: nothing would be out of range.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_while_we_are_away_is_refused() {
    let Some(engine) = Engine::kafka("a topic made anew, away") else { return };
    let log = engine.open().await;
    numbering(&log, 100).await.end().await.unwrap();
    delete(&engine).await;
    create(&engine, PARTITIONS.cast_signed()).await;
    let log = engine.open().await;
    append(&log, 0, (0..200).map(|n| n.to_string())).await;
    let again = run_stage(&log, Numbering, "numbering", "a");
    refused(&again.refusal().await, &["analytics.events/0", "committed offset None", "100"]);
    assert_eq!(check_numbers(&log).await, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_added_while_we_run_are_refused() {
    let Some(engine) = Engine::kafka("partitions added") else { return };
    let log = engine.open().await;
    let running = numbering(&log, 100).await;
    let admin: Admin = client(&engine).create().unwrap();
    let name = engine.names().topic(&Topic::EVENTS);
    let more = NewPartitions::new(&name, PARTITIONS as usize + 1);
    assert!(admin.create_partitions([&more], &AdminOptions::new()).await.unwrap()[0].is_ok());
    // The group hears of it with its next look at the topic; another one sees it at once.
    refused(&run_stage(&log, Numbering, "other", "b").refusal().await, &["analytics.events", "kafka.partitions is 3"]);
    running.end().await.unwrap();
    refused(&log.create_topics().await.unwrap_err(), &["analytics.events has 4 partitions"]);
    assert_eq!(check_numbers(&log).await, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_past_our_position_is_refused() {
    let Some(engine) = Engine::kafka("retention") else { return };
    let log = engine.open().await;
    numbering(&log, 100).await.end().await.unwrap();
    append(&log, 0, (0..100).map(|n| n.to_string())).await;
    drop_below(&engine, 150).await;
    let again = run_stage(&log, Numbering, "numbering", "a");
    refused(&again.refusal().await, &["analytics.events/0 holds offsets 150 to 200", "is 100"]);
    assert_eq!(check_numbers(&log).await, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_stamps_the_events_and_another_setting_is_refused() {
    let Some(engine) = Engine::kafka("timestamps") else { return };
    let log = engine.open().await;
    let topic = engine.names().topic(&Topic::EVENTS);
    let foreign: BaseProducer = client(&engine).create().unwrap();
    let year_3000 = 32_503_680_000_000;
    let sent = foreign.send(BaseRecord::to(&topic).partition(0).key("k").payload("v").timestamp(year_3000));
    sent.map_err(|(error, _)| error).unwrap();
    foreign.flush(Duration::from_secs(20)).unwrap();
    assert_eq!(read_all(&log, Topic::EVENTS, &[(0, 0)]).await[&0].len(), 1);
    let stamped = tokio::task::spawn_blocking({
        let log = log.clone();
        move || {
            let mut reader = log.reader(Topic::EVENTS, &[(0, 0)]).unwrap();
            let mut batch = millrace_log::Batch::default();
            while batch.is_empty() {
                reader.poll(&mut batch, millrace_log::Limits::default()).unwrap();
            }
            batch.iter().next().unwrap().timestamp_ms
        }
    })
    .await
    .unwrap();
    assert!(stamped < year_3000, "the producer's clock decided: {stamped}");
    let admin: Admin = client(&engine).create().unwrap();
    let config = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("message.timestamp.type", "CreateTime");
    assert!(admin.alter_configs([&config], &AdminOptions::new()).await.unwrap()[0].is_ok());
    refused(&log.create_topics().await.unwrap_err(), &[&topic, "message.timestamp.type=CreateTime", "kafka-configs"]);
}

/// A leader's acknowledgement is one, and the stage does not care.
#[tokio::test(flavor = "multi_thread")]
async fn appends_that_only_the_leader_acknowledges_are_there() {
    let Some(mut engine) = Engine::kafka("acks of the leader") else { return };
    let Engine::Kafka { config, .. } = &mut engine else { unreachable!() };
    config.append_acks = millrace_log::AppendAcks::Leader;
    let log = engine.open().await;
    let record = [NewRecord { topic: Topic::EVENTS, partition: 0, key: b"k", value: b"v" }];
    assert_eq!(log.append(&record).await, [Outcome::Acknowledged(0)]);
    append(&log, 0, (0..10).map(|n| n.to_string())).await;
    let running = run_stage(&log, Numbering, "numbering", "a");
    until("all are numbered", || async { check_numbers(&log).await == 11 }).await;
    running.end().await.unwrap();
}
