//! The whole materializer, from a log to its stores.

use std::time::Duration;

use millrace_base::Clock;
use millrace_contracts::{Hour, Names};
use millrace_log::{EmbeddedConfig, EmbeddedLog, Log};
use millrace_materializer::{Config, Views};
use millrace_service::health::Health;
use millrace_store::Archive;
use tokio_util::sync::CancellationToken;

use crate::stack::{PARTITIONS, Stack, append, config, totals, until, until_ready};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_reach_both_stores_and_a_lost_store_is_rebuilt() {
    let Some(mut stack) = Stack::start().await else { return };
    let (log, live, archive) = (stack.log.clone(), stack.live.clone(), stack.archive.clone());
    let (hour, old) = (Hour::current(&Clock::system()), Hour::of_ms(123));

    append(&log, hour, 0, 5, 3).await;
    append(&log, old, 1, 4, 1).await;
    let (health, stop) = (Health::new(), CancellationToken::new());
    let running = stack.run(&health, &stop);
    until(totals(3), async || live.hour(hour).await).await;
    until(totals(3), async || archive.hour(hour).await).await;
    until(totals(1), async || archive.hour(old).await).await;
    until(totals(0), async || live.hour(hour.plus(-1)).await).await;
    until_ready(&health, true).await;

    // Both apply an update.
    append(&log, hour, 1, 9, 4).await;
    until(totals(7), async || live.hour(hour).await).await;
    until(totals(7), async || archive.hour(hour).await).await;

    // Redis loses everything while the log is idle: it is rebuilt, and no read returns zeros.
    stack.redis.delete_data();
    until_ready(&health, false).await;
    append(&log, hour, 1, 10, 5).await;
    until(totals(8), async || archive.hour(hour).await).await;
    stack.redis.restart().unwrap();
    until(totals(8), async || live.hour(hour).await).await;
    until_ready(&health, true).await;

    stop.cancel();
    running.await.unwrap().unwrap();
    log.close(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_engine_fills_its_own_archive() {
    let folder = tempfile::tempdir().unwrap();
    let embedded =
        EmbeddedConfig { directory: folder.path().join("data"), partitions: PARTITIONS, ..EmbeddedConfig::default() };
    let embedded = EmbeddedLog::open(embedded, Names::default()).unwrap();
    let archive = Archive::embedded(embedded.database(), PARTITIONS).unwrap();
    let log = Log::Embedded(embedded);
    log.create_topics().await.unwrap();
    let hour = Hour::current(&Clock::system());
    append(&log, hour, 0, 5, 3).await;
    let (health, stop) = (Health::new(), CancellationToken::new());
    let views = Views { live: None, archive: archive.clone(), index: None };
    let running = tokio::spawn(millrace_materializer::run(
        Config { workers: 1, ..config() },
        log.clone(),
        "test".into(),
        views,
        health.clone(),
        stop.clone(),
    ));
    until(totals(3), async || archive.hour(hour).await).await;
    append(&log, hour, 1, 9, 4).await;
    until(totals(7), async || archive.hour(hour).await).await;
    until_ready(&health, true).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    log.close(Duration::from_secs(5)).await;
}
