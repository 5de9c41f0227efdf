//! Topics that are changed from outside, on Kafka: refused by name, never read from a guessed position.

use std::time::Duration;

use millrace_contracts::Topic;
use millrace_log::{LogError, NewRecord, Outcome};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

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
    let new = NewTopic::new(&name, partitions, TopicReplication::Fixed(1))
        .set("message.timestamp.type", "LogAppendTime")
        .set("max.message.bytes", "1310720");
    // The name remains in use for a moment after its topic was deleted.
    until("the topic is there", || async {
        let created = admin.create_topics([&new], &AdminOptions::new()).await.unwrap();
        created[0].is_ok()
    })
    .await;
}

/// Changes settings of a topic from outside, and waits until the broker shows them: it confirms a change before that.
async fn alter(engine: &Engine, topic: Topic, settings: &[(&str, &str)]) -> String {
    let admin: Admin = client(engine).create().unwrap();
    let name = engine.names().topic(&topic);
    let config = AlterConfig::new(ResourceSpecifier::Topic(&name));
    let config = settings.iter().fold(config, |config, (setting, value)| config.set(setting, value));
    assert!(admin.alter_configs([&config], &AdminOptions::new()).await.unwrap()[0].is_ok());
    until("the broker shows the settings", || async {
        let described = admin.describe_configs([&ResourceSpecifier::Topic(&name)], &AdminOptions::new()).await.unwrap();
        let shown = described.into_iter().next().unwrap().unwrap();
        settings
            .iter()
            .all(|(setting, value)| shown.get(setting).is_some_and(|entry| entry.value.as_deref() == Some(value)))
    })
    .await;
    name
}

async fn delete(engine: &Engine) {
    let admin: Admin = client(engine).create().unwrap();
    let deleted = admin.delete_topics(&[&engine.names().topic(&Topic::EVENTS)], &AdminOptions::new()).await.unwrap();
    assert!(deleted[0].is_ok());
}

/// Starts the stage and waits until it has counted these records.
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
async fn a_topic_recreated_during_a_run_is_refused() {
    let Some(engine) = Engine::kafka("a topic recreated") else { return };
    let log = engine.open().await;
    let running = numbering(&log, 100).await;
    delete(&engine).await;
    create(&engine, PARTITIONS.cast_signed()).await;
    running.isolates(0, &["analytics.events/0", "100"]).await;
    assert_eq!(check_numbers(&log).await, 100);
}

/// The offsets of the new topic extend past the position: none is out of range.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_recreated_between_runs_is_refused() {
    let Some(engine) = Engine::kafka("a topic recreated between runs") else { return };
    let log = engine.open().await;
    numbering(&log, 100).await.end().await.unwrap();
    delete(&engine).await;
    create(&engine, PARTITIONS.cast_signed()).await;
    let log = engine.open().await;
    append(&log, 0, (0..200).map(|n| n.to_string())).await;
    let again = run_stage(&log, Numbering, "numbering", "a");
    again.isolates(0, &["analytics.events/0", "committed no offset", "100"]).await;
    assert_eq!(check_numbers(&log).await, 100);
}

/// As after a power cut of a single broker: the log lost its end, and offsets fill up again past the position.
#[tokio::test(flavor = "multi_thread")]
async fn another_record_before_the_position_is_refused() {
    let Some(engine) = Engine::kafka("a log filled again") else { return };
    let log = engine.open().await;
    numbering(&log, 100).await.end().await.unwrap();
    delete(&engine).await;
    create(&engine, PARTITIONS.cast_signed()).await;
    // The group's offset is that of before.
    let group = engine.names().group("numbering");
    let consumer: BaseConsumer = client(&engine).set("group.id", &group).create().unwrap();
    let mut offsets = TopicPartitionList::new();
    let name = engine.names().topic(&Topic::EVENTS);
    offsets.add_partition_offset(&name, 0, Offset::Offset(100)).unwrap();
    until("the group has no member", || async { consumer.commit(&offsets, CommitMode::Sync).is_ok() }).await;
    let log = engine.open().await;
    append(&log, 0, (200..400).map(|n| n.to_string())).await;
    let again = run_stage(&log, Numbering, "numbering", "a");
    again.isolates(0, &["analytics.events/0", "before offset 100"]).await;
    assert_eq!(check_numbers(&log).await, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_added_during_a_run_are_refused() {
    let Some(engine) = Engine::kafka("partitions added") else { return };
    let log = engine.open().await;
    let running = numbering(&log, 100).await;
    let admin: Admin = client(&engine).create().unwrap();
    let name = engine.names().topic(&Topic::EVENTS);
    let more = NewPartitions::new(&name, PARTITIONS as usize + 1);
    assert!(admin.create_partitions([&more], &AdminOptions::new()).await.unwrap()[0].is_ok());
    // The group learns of it with its next metadata refresh; a new group at once.
    refused(&run_stage(&log, Numbering, "other", "b").refusal().await, &["analytics.events", "kafka.partitions is 3"]);
    running.end().await.unwrap();
    refused(&log.create_topics().await.unwrap_err(), &["analytics.events has 4 partitions"]);
    assert_eq!(check_numbers(&log).await, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_past_the_position_is_refused() {
    let Some(engine) = Engine::kafka("retention") else { return };
    let log = engine.open().await;
    numbering(&log, 100).await.end().await.unwrap();
    append(&log, 0, (0..100).map(|n| n.to_string())).await;
    drop_below(&engine, 150).await;
    let again = run_stage(&log, Numbering, "numbering", "a");
    again.isolates(0, &["analytics.events/0 holds offsets 150 to 200", "is 100"]).await;
    assert_eq!(check_numbers(&log).await, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_sets_event_timestamps_and_refuses_another_setting() {
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
    assert!(stamped < year_3000, "the timestamp is the producer's: {stamped}");
    alter(&engine, Topic::EVENTS, &[("message.timestamp.type", "CreateTime")]).await;
    refused(&log.create_topics().await.unwrap_err(), &[&topic, "message.timestamp.type=CreateTime", "kafka-configs"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_break_a_guarantee_are_refused_and_others_reported() {
    let Some(engine) = Engine::kafka("topic settings") else { return };
    let log = engine.open().await;
    assert_eq!(log.check_topics().await, Ok(Vec::new()), "topics that Millrace created are as it needs them");
    let needed = [("message.timestamp.type", "LogAppendTime"), ("max.message.bytes", "1310720")];
    let alter = async |topic, setting, value| alter(&engine, topic, &[&needed[..], &[(setting, value)]].concat()).await;
    let events = alter(Topic::EVENTS, "retention.ms", "3600000").await;
    let warnings = log.check_topics().await.unwrap();
    assert!(warnings.len() == 1 && warnings[0].contains(&format!("{events} has retention.ms=3600000")), "{warnings:?}");
    let state = alter(Topic::STATE, "cleanup.policy", "compact,delete").await;
    let hourly = alter(Topic::HOURLY, "cleanup.policy", "delete").await;
    let command = "kafka-configs --alter --entity-type topics --entity-name";
    let parts = [
        &format!("{state} has cleanup.policy=compact,delete"),
        &format!("{command} {state} --add-config cleanup.policy=compact"),
        &format!("{hourly} has cleanup.policy=delete"),
    ];
    refused(&log.create_topics().await.unwrap_err(), &parts.map(String::as_str));
}

#[tokio::test(flavor = "multi_thread")]
async fn fewer_replicas_than_configured_are_reported() {
    let Some(mut engine) = Engine::kafka("replicas") else { return };
    engine.open().await;
    let Engine::Kafka { config, .. } = &mut engine else { unreachable!() };
    config.replication_factor = 3;
    let log = engine.try_open().unwrap();
    let warnings = log.check_topics().await.unwrap();
    assert_eq!(warnings.len(), millrace_contracts::TOPICS.len(), "{warnings:?}");
    let events = engine.names().topic(&Topic::EVENTS);
    let expected = format!("topic {events} has 1 replica, and kafka.replication_factor is 3");
    assert!(warnings.iter().any(|warning| warning.starts_with(&expected)), "{warnings:?}");
    let Engine::Kafka { config, .. } = &mut engine else { unreachable!() };
    config.min_insync_replicas = 2;
    refused(&engine.try_open().unwrap().check_topics().await.unwrap_err(), &[&expected, "no record could be appended"]);
}

/// The acknowledgement of the leader suffices, and the stage counts the records.
#[tokio::test(flavor = "multi_thread")]
async fn appends_acknowledged_by_the_leader_only_are_readable() {
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
