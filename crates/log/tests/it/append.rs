//! Appends: three outcomes, order, offsets.

use std::time::Duration;

use millrace_contracts::Topic;
use millrace_log::{NewRecord, Outcome, RefusalCause};

use crate::harness::{Engine, append, from_start, read_all};
use crate::on_both_engines;

on_both_engines!(
    acknowledged_records_have_the_reported_offsets,
    a_record_that_is_too_large_is_refused_alone,
    a_closed_log_refuses_appends,
    a_full_queue_refuses_at_once_and_loses_nothing,
);

async fn acknowledged_records_have_the_reported_offsets(engine: Engine) {
    let log = engine.open().await;
    let mut expected = Vec::new();
    for partition in 0..3 {
        let keys: Vec<String> = (0..2_500).map(|n| format!("{partition}-{n}")).collect();
        let offsets = append(&log, partition, keys.clone()).await;
        assert!(offsets.is_sorted_by(|a, b| a < b), "records of one call are in order");
        expected.push(
            offsets.into_iter().zip(keys).map(|(offset, key)| (offset, key.clone(), Some(key))).collect::<Vec<_>>(),
        );
    }
    assert_eq!(log.ends(Topic::EVENTS).await.unwrap()[..3], [2_500; 3]);
    let seen = read_all(&log, Topic::EVENTS, &from_start()).await;
    assert_eq!(seen.into_values().collect::<Vec<_>>(), expected);
}

async fn a_record_that_is_too_large_is_refused_alone(engine: Engine) {
    let log = engine.open().await;
    let large = vec![b'x'; 2 << 20];
    let fits = vec![b'y'; 1 << 20];
    let record = |value| NewRecord { topic: Topic::EVENTS, partition: 0, key: b"k", value };
    let outcomes = log.append(&[record(b"a"), record(&large), record(&fits)]).await;
    assert!(
        matches!(
            outcomes[..],
            [Outcome::Acknowledged(0), Outcome::Refused(RefusalCause::TooLarge), Outcome::Acknowledged(1)]
        ),
        "{outcomes:?}"
    );
}

async fn a_closed_log_refuses_appends(engine: Engine) {
    let log = engine.open().await;
    let before = log.append(&[NewRecord { topic: Topic::EVENTS, partition: 1, key: b"k", value: b"v" }]);
    log.close(Duration::from_secs(20)).await;
    assert_eq!(before.await, [Outcome::Acknowledged(0)], "an append in flight completes");
    let after = log.append(&[NewRecord { topic: Topic::EVENTS, partition: 1, key: b"k", value: b"v" }]).await;
    assert_eq!(after, [Outcome::Refused(RefusalCause::ShuttingDown)]);
    assert!(log.health().is_err());
}

async fn a_full_queue_refuses_at_once_and_loses_nothing(mut engine: Engine) {
    match &mut engine {
        Engine::Kafka { config, .. } => config.max_queue_records = 200,
        Engine::Embedded { config, .. } => config.max_queue_records = 200,
    }
    let log = engine.open().await;
    let mut acknowledged = Vec::new();
    let mut full = 0;
    let calls: Vec<_> = (0..100)
        .map(|call| {
            let keys: Vec<String> = (0..100).map(|n| format!("{call}-{n}")).collect();
            let records: Vec<NewRecord<'_>> = keys
                .iter()
                .map(|key| NewRecord { topic: Topic::EVENTS, partition: 2, key: key.as_bytes(), value: b"v" })
                .collect();
            let receipts = log.append(&records);
            (keys, receipts)
        })
        .collect();
    for (keys, receipts) in calls {
        for (key, outcome) in keys.into_iter().zip(receipts.await) {
            match outcome {
                Outcome::Acknowledged(offset) => acknowledged.push((offset, key, Some("v".to_owned()))),
                Outcome::Refused(RefusalCause::Full) => full += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(full > 0, "100 calls without a wait exceed a queue of 200");
    assert!(!acknowledged.is_empty());
    acknowledged.sort();
    assert_eq!(read_all(&log, Topic::EVENTS, &[(2, 0)]).await[&2], acknowledged, "a refused record is not in the log");
}
