//! Crashes at each point of the atomic step: a process dies there, another one resumes, and every record is counted
//! once.

use crate::child::{self, OnHit};
use crate::harness::{Engine, PARTITIONS, append, run_stage, until};
use crate::numbering::{Numbering, check_numbers};

const RECORDS: u64 = 2_000;

async fn dies_at(engine: Engine, points: &[&str]) {
    let mut total = 0;
    for &point in points {
        // A child receives its assignment once.
        let times = if point.ends_with("assigned") { 1 } else { 2 };
        for nth in 1..=times {
            let log = engine.open().await;
            for partition in 0..PARTITIONS {
                append(&log, partition, (0..RECORDS).map(|n| n.to_string())).await;
                total += RECORDS;
            }
            let log = release(&engine, log).await;
            let mut child = child::start(&engine, "a", point, nth, OnHit::Die);
            let ended = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
            assert!(!ended.success(), "the child died at {point}");
            let log = match log {
                Some(log) => log,
                None => engine.open().await,
            };
            let running = run_stage(&log, Numbering, "numbering", "a");
            until(&format!("{total} after {point}"), || async { check_numbers(&log).await == total }).await;
            running.end().await.unwrap();
            log.close(std::time::Duration::from_secs(5)).await;
        }
    }
}

/// Closes an embedded log, whose directory only one process can open; returns a Kafka log.
async fn release(engine: &Engine, log: millrace_log::Log) -> Option<millrace_log::Log> {
    if matches!(engine, Engine::Kafka { .. }) {
        return Some(log);
    }
    log.close(std::time::Duration::from_secs(5)).await;
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka() {
    let Some(engine) = Engine::kafka("a crash at each point of a step") else { return };
    let points = ["assigned", "applied", "produced", "drained", "offsets_sent", "committed"];
    dies_at(engine, &points.map(|point| format!("kafka::stage::{point}")).each_ref().map(String::as_str)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded() {
    dies_at(Engine::embedded(), &["embedded::stage::applied", "embedded::stage::written"]).await;
}
