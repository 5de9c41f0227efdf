//! Kafka alone: foreign transactions, zombies, rebalances, unavailable brokers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millrace_base::Span;
use millrace_contracts::Topic;
use millrace_log::{NewRecord, Outcome, RefusalCause, Status};
use millrace_testkit::Kafka;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, TopicPartitionList};

use crate::child::{self, OnHit};
use crate::harness::{Engine, PARTITIONS, PATIENCE, Running, append, read_all, run_stage, until};
use crate::numbering::{Numbering, check_numbers};

fn brokers(engine: &Engine) -> &str {
    let Engine::Kafka { config, .. } = engine else { unreachable!() };
    &config.brokers
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_transactions_and_control_records_are_not_delivered() {
    let Some(engine) = Engine::kafka("aborted transactions") else { return };
    let log = engine.open().await;
    let topic = engine.names().topic(&Topic::EVENTS);
    append(&log, 0, ["before".to_owned()]).await;
    let id = engine.names().group("foreign");
    let transactional = ClientConfig::new()
        .set("bootstrap.servers", brokers(&engine))
        .set("transactional.id", &id)
        .create::<BaseProducer>()
        .unwrap();
    tokio::task::spawn_blocking(move || {
        let wait = Duration::from_secs(20);
        transactional.init_transactions(wait).unwrap();
        for (keys, commit) in [(["aborted", "too"], false), (["committed", "too"], true), (["aborted", "again"], false)]
        {
            transactional.begin_transaction().unwrap();
            for key in keys {
                transactional
                    .send(BaseRecord::to(&topic).partition(0).key(key).payload("v"))
                    .map_err(|(e, _)| e)
                    .unwrap();
            }
            transactional.flush(wait).unwrap();
            if commit {
                transactional.commit_transaction(wait).unwrap();
            } else {
                transactional.abort_transaction(wait).unwrap();
            }
        }
    })
    .await
    .unwrap();
    append(&log, 0, ["after".to_owned()]).await;
    let seen = read_all(&log, Topic::EVENTS, &[(0, 0)]).await;
    let keys: Vec<&str> = seen[&0].iter().map(|(_, key, _)| key.as_str()).collect();
    assert_eq!(keys, ["before", "committed", "too", "after"]);
    let running = run_stage(&log, Numbering, "numbering", "a");
    until("the four are numbered", || async { check_numbers(&log).await == 4 }).await;
    running.end().await.unwrap();
}

/// A child that runs the stage and is frozen at its second hit of `point`.
async fn frozen_at(engine: &Engine, point: &str) -> std::process::Child {
    let child = child::start(engine, "zombie", point, 2, OnHit::Freeze);
    let id = rustix::process::Pid::from_child(&child);
    let frozen = move || async move {
        let options = rustix::process::WaitOptions::UNTRACED | rustix::process::WaitOptions::NOHANG;
        rustix::process::waitpid(Some(id), options).unwrap().is_some_and(|(_, status)| status.stopped())
    };
    until("the child is frozen", frozen).await;
    child
}

fn thaw(child: &std::process::Child) {
    let id = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(id, rustix::process::Signal::CONT).unwrap();
}

/// No other member takes over, and its step is full: it has to notice by itself that the group removed it.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_frozen_past_its_session_recovers() {
    let Some(engine) = Engine::kafka("a stalled worker") else { return };
    let log = engine.open().await;
    for partition in 0..PARTITIONS {
        append(&log, partition, (0..5_000).map(|n| n.to_string())).await;
    }
    let mut stalled = frozen_at(&engine, "kafka::stage::drained").await;
    let client = ClientConfig::new().set("bootstrap.servers", brokers(&engine)).create::<BaseProducer>().unwrap();
    let group = engine.names().group("numbering");
    let members = || {
        let list = client.client().fetch_group_list(Some(&group), Duration::from_secs(10));
        list.map_or(usize::MAX, |list| list.groups().iter().map(|group| group.members().len()).sum())
    };
    until("the group removes the member", || async { members() == 0 }).await;
    thaw(&stalled);
    until("it numbers everything", || async { check_numbers(&log).await == 15_000 }).await;
    stalled.kill().unwrap();
    stalled.wait().unwrap();
}

/// The zombie has offsets in its transaction, or a record still queued, and is frozen past every timeout; another
/// instance takes over; then the zombie resumes.
async fn zombie_resumes_at(point: &str) {
    let Some(engine) = Engine::kafka("zombies") else { return };
    let log = engine.open().await;
    for partition in 0..PARTITIONS {
        append(&log, partition, (0..5_000).map(|n| n.to_string())).await;
    }
    let mut zombie = frozen_at(&engine, point).await;
    let running = run_stage(&log, Numbering, "numbering", "heir");
    until("the heir numbers everything", || async { check_numbers(&log).await == 15_000 }).await;
    thaw(&zombie);
    for partition in 0..PARTITIONS {
        append(&log, partition, (0..5_000).map(|n| n.to_string())).await;
    }
    until("both number the rest once", || async { check_numbers(&log).await == 30_000 }).await;
    zombie.kill().unwrap();
    zombie.wait().unwrap();
    running.end().await.unwrap();
    assert_eq!(check_numbers(&log).await, 30_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_with_records_still_queued_is_fenced() {
    zombie_resumes_at("kafka::stage::produced").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_frozen_after_its_offsets_is_fenced() {
    zombie_resumes_at("kafka::stage::offsets_sent").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rebalances_within_batches_lose_and_repeat_nothing() {
    let Some(engine) = Engine::kafka("rebalances") else { return };
    let log = engine.open().await;
    let appending = {
        let log = log.clone();
        tokio::spawn(async move {
            for round in 0..60 {
                for partition in 0..PARTITIONS {
                    append(&log, partition, (0..200).map(|n| format!("{round}-{n}"))).await;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
    };
    let first = run_stage(&log, Numbering, "numbering", "a");
    let mut second = run_stage(&log, Numbering, "numbering", "b");
    for instance in ["c", "d", "e"] {
        let holds_some = |status: &millrace_log::Status| matches!(status, millrace_log::Status::Running { partitions } if !partitions.is_empty());
        let joined = tokio::time::timeout(crate::harness::PATIENCE, second.status.wait_for(holds_some)).await;
        joined.expect("a new instance gets partitions").unwrap();
        second.end().await.unwrap();
        second = run_stage(&log, Numbering, "numbering", instance);
    }
    appending.await.unwrap();
    until("all are numbered", || async { check_numbers(&log).await == 36_000 }).await;
    first.end().await.unwrap();
    second.end().await.unwrap();
}

/// The others get them long before the session of the leaving member would expire.
#[tokio::test(flavor = "multi_thread")]
async fn a_dynamic_member_leaves_its_partitions_to_others() {
    let Some(mut engine) = Engine::kafka("leaving a group") else { return };
    let Engine::Kafka { config, .. } = &mut engine else { unreachable!() };
    (config.static_members, config.session_timeout) = (false, Span::from_secs(300));
    let log = engine.open().await;
    let first = run_stage(&log, Numbering, "numbering", "a");
    let mut second = run_stage(&log, Numbering, "numbering", "b");
    let held = |status: &Status| matches!(status, Status::Running { partitions } if !partitions.is_empty());
    for runner in [&first, &second] {
        let waited =
            tokio::time::timeout(PATIENCE, runner.status.clone().wait_for(held)).await.map(|held| held.is_ok());
        assert_eq!(waited, Ok(true), "each gets some");
    }
    first.end().await.unwrap();
    let all = Status::Running { partitions: (0..PARTITIONS).collect() };
    tokio::time::timeout(PATIENCE, second.status.wait_for(|status| *status == all))
        .await
        .expect("all are assigned to the other")
        .unwrap();
    second.end().await.unwrap();
}

/// A foreign member that stalls in a revocation: it does not revoke and does not rejoin.
#[derive(Default)]
struct StalledInRevoking(AtomicBool);

impl ClientContext for StalledInRevoking {}

impl ConsumerContext for StalledInRevoking {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            consumer.incremental_assign(list).unwrap();
        } else {
            self.0.store(true, Ordering::Release);
        }
    }
}

/// The group assigns to it what its predecessor was to keep, without a rebalance.
#[tokio::test(flavor = "multi_thread")]
async fn a_returning_static_member_leaves_no_partition_unassigned() {
    let Some(engine) = Engine::kafka("unassigned partitions") else { return };
    let mut unnamed = engine.clone();
    let Engine::Kafka { config, .. } = &mut unnamed else { unreachable!() };
    config.static_members = false;
    let log = engine.open().await;
    let dying: BaseConsumer<StalledInRevoking> = ClientConfig::new()
        .set("bootstrap.servers", brokers(&engine))
        .set("group.id", engine.names().group("numbering"))
        .set("group.instance.id", "a-0")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .create_with_context(StalledInRevoking::default())
        .unwrap();
    dying.subscribe(&[&engine.names().topic(&Topic::EVENTS)]).unwrap();
    let polled = || _ = dying.poll(Duration::from_millis(10));
    let holds_all = || dying.assignment().unwrap().count() == PARTITIONS as usize;
    until("all are assigned to it", || async {
        polled();
        holds_all()
    })
    .await;
    let other = run_stage(&unnamed.open().await, Numbering, "numbering", "b");
    until("some are revoked", || async {
        polled();
        dying.context().0.load(Ordering::Acquire)
    })
    .await;
    let back = run_stage(&log, Numbering, "numbering", "a");
    let held = |running: &Running| match &*running.status.borrow() {
        Status::Running { partitions } => partitions.len(),
        _ => 0,
    };
    until("all are assigned", || async { held(&other) + held(&back) == PARTITIONS as usize }).await;
    other.end().await.unwrap();
    back.end().await.unwrap();
}

/// Deletes the first records of partition 0 of the events on Kafka; the embedded engine's retention does so by itself.
pub(crate) async fn drop_below(engine: &Engine, offset: i64) {
    let Engine::Kafka { config, .. } = engine else { return };
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &config.brokers).create().unwrap();
    let mut before = TopicPartitionList::new();
    let topic = engine.names().topic(&Topic::EVENTS);
    before.add_partition_offset(&topic, 0, rdkafka::Offset::Offset(offset)).unwrap();
    admin.delete_records(&before, &AdminOptions::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_position_a_truncated_log_is_refused() {
    let Some(engine) = Engine::kafka("old groups") else { return };
    let log = engine.open().await;
    append(&log, 0, (0..10).map(|n| n.to_string())).await;
    drop_below(&engine, 4).await;
    run_stage(&log, Numbering, "numbering", "a").isolates(0, &["begins at offset 4"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_broker_leaves_outcomes_unknown_and_a_dead_one_refuses() {
    let mut kafka = match Kafka::start() {
        Ok(kafka) => kafka,
        Err(why) => return millrace_testkit::not_run("a broker of its own", "Apache Kafka", &why),
    };
    let mut engine = Engine::kafka_at(&kafka.brokers());
    let Engine::Kafka { config, .. } = &mut engine else { unreachable!() };
    config.message_timeout = Span::from_millis(1_500);
    let log = engine.open().await;
    let record = [NewRecord { topic: Topic::EVENTS, partition: 0, key: b"k", value: b"v" }];
    assert_eq!(log.append(&record).await, [Outcome::Acknowledged(0)]);
    kafka.freeze();
    assert_eq!(log.append(&record).await, [Outcome::Unknown]);
    kafka.thaw();
    kafka.kill();
    until("appends are refused", || async {
        log.append(&record).await == [Outcome::Refused(RefusalCause::Unavailable)]
    })
    .await;
    assert!(log.health().is_err());
    let kafka = tokio::task::spawn_blocking(move || {
        kafka.restart().unwrap();
        kafka
    })
    .await
    .unwrap();
    until("appends succeed again", || async { matches!(log.append(&record).await[..], [Outcome::Acknowledged(_)]) })
        .await;
    assert_eq!(log.health(), Ok(()));
    drop(kafka);
}
