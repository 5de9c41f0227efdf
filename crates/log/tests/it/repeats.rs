//! Repeats: what a producer writes twice counts once, and nothing else is dropped.

use std::time::Duration;

use millrace_base::Span;
use millrace_contracts::Topic;
use millrace_log::{AppendAcks, Log, NewRecord, Outcome, RefusalCause};
use millrace_testkit::{Brokers, Link};

use crate::harness::{Engine, PARTITIONS, append, read_all, run_stage, until};
use crate::metrics::value;
use crate::numbering::{Numbering, check_numbers};
use crate::on_both_engines;

on_both_engines!(concurrent_appends_all_count,);

/// The broker's replies are lost until the first record expires, and the later ones arrive in time: librdkafka sends them
/// again under a new epoch, although the broker has them.
#[tokio::test(flavor = "multi_thread")]
async fn records_sent_again_under_a_new_epoch_count_once() {
    let brokers = match tokio::task::spawn_blocking(|| Brokers::start(1, &["append"])).await.unwrap() {
        Ok(brokers) => brokers,
        Err(why) => return millrace_testkit::not_run("lost replies", "Apache Kafka", &why),
    };
    let engine = Engine::kafka_at(&brokers.through("append"));
    let Engine::Kafka { mut config, prefix } = engine else { unreachable!() };
    config.message_timeout = Span::from_secs(12);
    let appending = Engine::Kafka { config: config.clone(), prefix: prefix.clone() };
    config.brokers = brokers.direct();
    let counting = Engine::Kafka { config, prefix };
    let (log, direct) = (appending.open().await, counting.open().await);
    append(&log, 0, ["before".to_owned()]).await;

    let one = |log: &Log, key: &'static str| {
        let record = NewRecord { topic: Topic::EVENTS, partition: 0, key: key.as_bytes(), value: key.as_bytes() };
        tokio::spawn(log.append(&[record]))
    };
    brokers.set("append", Link::CutDown);
    let expires = one(&log, "expires");
    // Each in a request of its own, and the later ones with time left when the first expires.
    let mut later = Vec::new();
    for key in ["second", "third"] {
        tokio::time::sleep(Duration::from_secs(3)).await;
        later.push(one(&log, key));
    }
    assert_eq!(expires.await.unwrap(), [Outcome::Unknown]);
    brokers.set("append", Link::Whole);
    for one in later {
        assert!(matches!(one.await.unwrap()[..], [Outcome::Acknowledged(_)]));
    }

    let records = read_all(&direct, Topic::EVENTS, &[(0, 0)]).await;
    let written = |key: &str| records[&0].iter().filter(|(_, found, _)| found == key).count();
    let counts = ["before", "second", "third"].map(written);
    assert!(counts[1] + counts[2] > 2, "INCONCLUSIVE: nothing was written twice: {counts:?}");
    let repeats = counts.iter().sum::<usize>() as u64 - 3;
    let unknown = written("expires") as u64;
    let role = millrace_testkit::unique("repeats");
    let running = run_stage(&direct, Numbering, &role, "a");
    until("each counts", || async { check_numbers(&direct).await >= 3 + unknown }).await;
    // The last records are repeats: they move the position too, or retention would make it one that the log no longer has.
    let at_the_end = format!("{} {}", 3 + unknown, records[&0].len());
    until("the position is at the end", || async {
        let state = read_all(&direct, Topic::STATE, &[(0, 0)]).await;
        state[&0].iter().any(|(_, key, value)| key == "number" && value.as_ref() == Some(&at_the_end))
    })
    .await;
    running.end().await.unwrap();
    // The numbers are part of the state: whatever a restart reads again is dropped as well.
    append(&direct, 1, ["between".to_owned()]).await;
    let running = run_stage(&direct, Numbering, &role, "b");
    until("the last count", || async { check_numbers(&direct).await == 4 + unknown }).await;
    running.end().await.unwrap();
    let label = format!("role=\"{role}\"");
    assert_eq!(value("millrace_stage_repeats_total", &[&label]), Some(repeats as f64));
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_appends_acknowledged_by_the_leader_all_count() {
    let Some(mut engine) = Engine::kafka("concurrent appends") else { return };
    let Engine::Kafka { config, .. } = &mut engine else { unreachable!() };
    config.append_acks = AppendAcks::Leader;
    concurrent_appends_all_count(engine).await;
}

/// Records of many callers to the same partitions, with a queue so small that some are refused in between.
async fn concurrent_appends_all_count(mut engine: Engine) {
    match &mut engine {
        Engine::Kafka { config, .. } => config.max_queue_records = 500,
        Engine::Embedded { config, .. } => config.max_queue_records = 500,
    }
    let log = engine.open().await;
    let caller = |caller: usize| {
        let log = log.clone();
        tokio::spawn(async move {
            let (mut acknowledged, mut full) = (0, 0);
            let mut pending = Vec::new();
            for call in 0..150 {
                let key = format!("{caller}-{call}");
                let record = |n: usize| NewRecord {
                    topic: Topic::EVENTS,
                    partition: u32::try_from(n).unwrap() % PARTITIONS,
                    key: key.as_bytes(),
                    value: b"v",
                };
                let records: Vec<NewRecord<'_>> = (0..=(caller * 7 + call) % 40).map(record).collect();
                pending.push(log.append(&records));
                if call % 5 == 0 {
                    for receipts in std::mem::take(&mut pending) {
                        count(&receipts.await, &mut acknowledged, &mut full);
                    }
                }
            }
            for receipts in pending {
                count(&receipts.await, &mut acknowledged, &mut full);
            }
            (acknowledged, full)
        })
    };
    let callers: Vec<_> = (0..8).map(caller).collect();
    let (mut acknowledged, mut full) = (0, 0);
    for caller in callers {
        let counted = caller.await.unwrap();
        (acknowledged, full) = (acknowledged + counted.0, full + counted.1);
    }
    assert!(full > 0 && acknowledged > 0, "{acknowledged} acknowledged, {full} refused");
    let running = run_stage(&log, Numbering, "numbering", "a");
    until("each counts", || async { check_numbers(&log).await >= acknowledged }).await;
    running.end().await.unwrap();
    assert_eq!(check_numbers(&log).await, acknowledged);
}

fn count(outcomes: &[Outcome], acknowledged: &mut u64, full: &mut u64) {
    for outcome in outcomes {
        match outcome {
            Outcome::Acknowledged(_) => *acknowledged += 1,
            Outcome::Refused(RefusalCause::Full) => *full += 1,
            other => panic!("{other:?}"),
        }
    }
}
