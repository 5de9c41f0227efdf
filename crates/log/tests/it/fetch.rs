//! Fetching single records by their offsets.

use std::time::Duration;

use millrace_contracts::Topic;
use millrace_log::{Fetched, Limits, Log};

use crate::harness::{Engine, PATIENCE, append};
use crate::on_both_engines;

on_both_engines!(
    a_fetch_returns_the_records_at_its_offsets,
    a_fetch_is_bounded_by_bytes_and_goes_on_behind_what_it_decided,
    what_the_log_does_not_have_is_missing_and_decided,
);

async fn fetch(log: &Log, partition: u32, offsets: &[u64], bytes: usize) -> Fetched {
    let (log, offsets) = (log.clone(), offsets.to_vec());
    let limits = Limits { bytes, wait: PATIENCE, ..Limits::default() };
    tokio::task::spawn_blocking(move || log.fetch(Topic::EVENTS, partition, &offsets, limits).unwrap()).await.unwrap()
}

fn keys(fetched: &Fetched) -> Vec<(u64, String)> {
    let key = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
    fetched.records.iter().map(|record| (record.offset, key(record.key))).collect()
}

fn expected(offsets: &[u64]) -> Vec<(u64, String)> {
    offsets.iter().map(|&offset| (offset, offset.to_string())).collect()
}

async fn a_fetch_returns_the_records_at_its_offsets(engine: Engine) {
    let log = engine.open().await;
    append(&log, 1, (0..2_000).map(|n| n.to_string())).await;
    // Neighbors, near ones, far ones; the second fetch goes back.
    for offsets in [&[0, 1, 2, 40, 700, 701, 1_999][..], &[3], &[5, 1_500], &[]] {
        let fetched = fetch(&log, 1, offsets, 1 << 20).await;
        assert_eq!((keys(&fetched), fetched.decided), (expected(offsets), offsets.len()));
    }
    let all: Vec<u64> = (0..2_000).collect();
    assert_eq!(keys(&fetch(&log, 1, &all, 1 << 20).await), expected(&all));
}

async fn a_fetch_is_bounded_by_bytes_and_goes_on_behind_what_it_decided(engine: Engine) {
    let log = engine.open().await;
    append(&log, 0, (0..300).map(|n| n.to_string())).await;
    let offsets: Vec<u64> = (0..300).step_by(7).collect();
    let (mut found, mut left, mut fetches) = (Vec::new(), &offsets[..], 0);
    while !left.is_empty() {
        let fetched = fetch(&log, 0, left, 20).await;
        assert!(fetched.decided > 0);
        found.extend(keys(&fetched));
        left = &left[fetched.decided..];
        fetches += 1;
    }
    assert_eq!(found, expected(&offsets));
    assert!(fetches > 1, "20 bytes are not all");
}

async fn what_the_log_does_not_have_is_missing_and_decided(engine: Engine) {
    let log = engine.open().await;
    append(&log, 0, (0..10).map(|n| n.to_string())).await;
    let fetched = fetch(&log, 0, &[4, 9, 10, 1_000], 1 << 20).await;
    assert_eq!((keys(&fetched), fetched.decided), (expected(&[4, 9]), 4));
    let fetched = fetch(&log, 2, &[0, 7], 1 << 20).await;
    assert_eq!((keys(&fetched), fetched.decided), (Vec::new(), 2));
    // A time too short for any record is an error, never an empty answer.
    if matches!(log, Log::Kafka(_)) {
        let limits = Limits { wait: Duration::ZERO, ..Limits::default() };
        let fetching = tokio::task::spawn_blocking(move || log.fetch(Topic::EVENTS, 0, &[4], limits));
        assert!(fetching.await.unwrap().is_err());
    }
}
