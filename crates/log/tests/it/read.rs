//! Reading: from positions, compacted, up to an end that the log reports.

use std::time::Duration;

use millrace_contracts::Topic;
use millrace_log::{Batch, Limits, LogError, PollOutcome};

use crate::harness::{Engine, append, read_all, until};
use crate::numbering::Numbering;
use crate::on_both_engines;

on_both_engines!(
    a_reader_starts_at_its_position,
    a_reader_follows_after_it_caught_up,
    batches_are_bounded,
    a_position_beyond_the_end_is_refused,
    a_compacted_topic_retains_the_newest_record_of_every_key,
);

async fn a_reader_starts_at_its_position(engine: Engine) {
    let log = engine.open().await;
    append(&log, 0, (0..50).map(|n| n.to_string())).await;
    append(&log, 1, (0..10).map(|n| n.to_string())).await;
    let seen = read_all(&log, Topic::EVENTS, &[(0, 47), (1, 10), (2, 0)]).await;
    assert_eq!(seen[&0].iter().map(|(offset, ..)| *offset).collect::<Vec<_>>(), [47, 48, 49]);
    assert!(seen[&1].is_empty() && seen[&2].is_empty());
}

async fn a_reader_follows_after_it_caught_up(engine: Engine) {
    let log = engine.open().await;
    let reading = log.clone();
    let (sender, mut results) = tokio::sync::mpsc::unbounded_channel();
    let follower = tokio::task::spawn_blocking(move || {
        let mut reader = reading.reader(Topic::EVENTS, &[(0, 0)]).unwrap();
        let mut batch = Batch::default();
        loop {
            let polled = reader.poll(&mut batch, Limits::default()).unwrap();
            let keys = batch.iter().map(|record| String::from_utf8_lossy(record.key).into_owned()).collect::<Vec<_>>();
            if sender.send((polled, keys.clone())).is_err() || keys.last().is_some_and(|key| key == "last") {
                break;
            }
        }
    });
    let mut ends = Vec::new();
    while ends.is_empty() {
        if let (PollOutcome::CaughtUp { partition: 0, position }, _) = results.recv().await.unwrap() {
            ends.push(position);
        }
    }
    assert_eq!(ends, [0], "the end of an empty partition is reported");
    append(&log, 0, ["one".to_owned(), "last".to_owned()]).await;
    follower.await.unwrap();
    let mut seen = Vec::new();
    while let Ok((_, keys)) = results.try_recv() {
        seen.extend(keys);
    }
    assert_eq!(seen, ["one", "last"]);
}

async fn batches_are_bounded(engine: Engine) {
    let log = engine.open().await;
    append(&log, 0, (0..400).map(|n| format!("{n:010}"))).await;
    tokio::task::spawn_blocking(move || {
        let mut reader = log.reader(Topic::EVENTS, &[(0, 0)]).unwrap();
        let mut batch = Batch::default();
        let mut poll = |records, bytes| {
            let limits = Limits { records, bytes, wait: Duration::from_secs(10) };
            while reader.poll(&mut batch, limits).unwrap() != PollOutcome::Records {}
            (batch.len(), batch.bytes(), batch.iter().next().unwrap().offset)
        };
        let (records, _, first) = poll(7, 1 << 20);
        assert!(records <= 7 && first == 0);
        let (more, bytes, first) = poll(1_000, 200);
        assert!(bytes <= 220 && more <= 11, "20 bytes each");
        assert_eq!(first, records as u64, "no record is lost between batches");
    })
    .await
    .unwrap();
}

async fn a_position_beyond_the_end_is_refused(engine: Engine) {
    let log = engine.open().await;
    append(&log, 0, ["only".to_owned()]).await;
    let failed = tokio::task::spawn_blocking(move || {
        let mut reader = log.reader(Topic::EVENTS, &[(0, 99)])?;
        let mut batch = Batch::default();
        let limits = Limits { wait: Duration::from_secs(20), ..Limits::default() };
        reader.poll(&mut batch, limits).map(|polled| assert_eq!(polled, PollOutcome::Nothing, "{batch:?}"))
    })
    .await
    .unwrap();
    assert!(matches!(failed, Err(LogError::Refused(_))), "the reader must not choose another position: {failed:?}");
}

/// The stage writes its counter repeatedly under one key.
async fn a_compacted_topic_retains_the_newest_record_of_every_key(engine: Engine) {
    let log = engine.open().await;
    let running = crate::harness::run_stage(&log, Numbering, "numbering", "a");
    for round in 0..20 {
        append(&log, 0, (0..50).map(|n| format!("{round}-{n}"))).await;
    }
    let newest = || async {
        let state = read_all(&log, Topic::STATE, &[(0, 0)]).await;
        state[&0].iter().rfind(|(_, key, _)| key == "number").and_then(|(.., value)| value.clone())
    };
    until("1000 records are numbered", || async { newest().await.as_deref() == Some("1000 1000") }).await;
    running.end().await.unwrap();
    assert_eq!(newest().await.as_deref(), Some("1000 1000"));
}
