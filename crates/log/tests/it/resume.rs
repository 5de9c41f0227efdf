//! The check of a sink's positions before it resumes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millrace_contracts::{ProjectionPosition, Topic};
use millrace_log::{GroupPosition, Log, LogError, NewRecord};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::harness::{Engine, PATIENCE, append, until};
use crate::kafka::drop_below;
use crate::sink::{Shared, end, numbers, start};

/// Appends records of partition 0 in one transaction, as a stage does.
async fn transact(engine: &Engine, topic: Topic, keys: &'static [&'static str]) {
    let Engine::Kafka { config, .. } = engine else { unreachable!() };
    let (topic, id) = (engine.names().topic(&topic), engine.names().group("transacting"));
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", &config.brokers).set("transactional.id", id).create().unwrap();
    let transact = move || {
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        for key in keys {
            producer.send(BaseRecord::to(&topic).partition(0).key(*key).payload("v")).map_err(|(e, _)| e).unwrap();
        }
        producer.commit_transaction(PATIENCE).unwrap();
    };
    tokio::task::spawn_blocking(transact).await.unwrap();
}

async fn group_position(log: &Log) -> Option<GroupPosition> {
    let log = log.clone();
    tokio::task::spawn_blocking(move || log.group_position("sinking", Topic::EVENTS, 0).unwrap()).await.unwrap()
}

/// The position is before the marker of the last transaction, which retention drops with its records.
#[tokio::test(flavor = "multi_thread")]
async fn retention_of_what_a_sink_has_written_is_no_loss() {
    let Some(engine) = Engine::kafka("retention past a marker") else { return };
    let log = engine.open().await;
    transact(&engine, Topic::EVENTS, &["0", "1"]).await;
    let sink = Shared::default();
    sink.0.lock().unwrap().copy_id = 7;
    let running = start(&log, &sink);
    let past = Some(GroupPosition { next_offset: 3, copy_id: 7 });
    until("the group is past the marker", || async { group_position(&log).await == past }).await;
    assert_eq!(sink.0.lock().unwrap().positions[&0], 2);
    end(running).await.unwrap();
    drop_below(&engine, 3).await;

    // Another copy may lack records, and so may this one, restored from a backup.
    for (copy_id, position) in [(8, 2), (7, 1)] {
        let other = Shared::default();
        {
            let mut model = other.0.lock().unwrap();
            model.copy_id = copy_id;
            model.positions.insert(0, position);
        }
        let ended = tokio::time::timeout(PATIENCE, start(&log, &other).task).await.unwrap().unwrap();
        let Err(LogError::Refused(why)) = ended else { panic!("copy {copy_id} at {position}: {ended:?}") };
        assert!(why.detail.contains("holds offsets 3 to 3"), "{why}");
    }
    append(&log, 0, numbers(2..5)).await;
    let running = start(&log, &sink);
    until("it goes on", || async { sink.0.lock().unwrap().keys[&0] == numbers(0..5) }).await;
    end(running).await.unwrap();
}

/// On a compacted topic a later record of the key could still follow. The check ends some time after the end of the log as it
/// was: an appender moves the end itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_ends_while_the_log_is_written_to() {
    let Some(engine) = Engine::kafka("a check beside a writer") else { return };
    let log = engine.open().await;
    transact(&engine, Topic::HOURLY, &["0", "1"]).await;
    until("the marker is there", || async { log.end(Topic::HOURLY, 0).await == Ok(3) }).await;
    // After the marker, of a record that is not there, and whose key no record has.
    let position = ProjectionPosition { next_offset: 3, last_record: Some(1) };
    let done = Arc::new(AtomicBool::new(false));
    let check = {
        let (log, done) = (log.clone(), done.clone());
        tokio::task::spawn_blocking(move || {
            let checked = log.check_positions(Topic::HOURLY, &[(0, position)], None);
            done.store(true, Ordering::Release);
            checked
        })
    };
    let record = NewRecord { topic: Topic::HOURLY, partition: 0, key: b"key", value: b"v" };
    let writing = async {
        while !done.load(Ordering::Acquire) {
            log.append(&[record]).await;
        }
    };
    tokio::time::timeout(PATIENCE, writing).await.expect("the check ends");
    let refused = check.await.unwrap().unwrap_err();
    assert!(matches!(&refused, LogError::Refused(why) if why.detail.contains("before offset 3")), "{refused}");
}
