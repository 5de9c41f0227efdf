//! Slow or unavailable stores while counts continue: no loss, no effect on the other store, and catch-up afterwards.

use std::time::Duration;

use millrace_base::Clock;
use millrace_contracts::{Exactness, Hour, HourlyCount, Topic};
use millrace_log::{Log, NewRecord, Outcome};
use millrace_service::health::Health;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio_util::sync::CancellationToken;

use crate::stack::{PARTITIONS, Stack, totals, until};

/// Counts per partition: twenty steps.
const COUNTS: u64 = 20_000;
const BATCH: u64 = 1_000;

/// Counts of `hour` that grow from `from` by one each, in every partition.
async fn grow(log: &Log, hour: Hour, from: u64) {
    for begin in (from..from + COUNTS).step_by(usize::try_from(BATCH).unwrap()) {
        let mut values = Vec::new();
        for n in begin + 1..=begin + BATCH {
            for partition in 0..PARTITIONS {
                let mut value = Vec::new();
                let exactness = Exactness::Exact;
                let (generation, next_offset, clicks, impressions, unique_users) = (1, n, n, 0, n);
                let count = HourlyCount {
                    hour,
                    partition,
                    generation,
                    next_offset,
                    clicks,
                    impressions,
                    unique_users,
                    exactness,
                };
                count.encode(&mut value);
                values.push((partition, HourlyCount::key(hour, partition), value));
            }
        }
        let records: Vec<NewRecord<'_>> = values
            .iter()
            .map(|(partition, key, value)| NewRecord {
                topic: Topic::HOURLY,
                partition: *partition,
                key: key.as_bytes(),
                value,
            })
            .collect();
        assert!(log.append(&records).await.iter().all(|outcome| matches!(outcome, Outcome::Acknowledged(_))));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_store_delays_only_itself_and_catches_up() {
    let Some(mut stack) = Stack::start().await else { return };
    let (log, live, archive) = (stack.log.clone(), stack.live.clone(), stack.archive.clone());
    let hour = Hour::current(&Clock::system());
    let all = |upto: u64| totals(u64::from(PARTITIONS) * upto);
    let (health, stop) = (Health::new(), CancellationToken::new());
    let running = stack.run(&health, &stop);
    grow(&log, hour, 0).await;
    until(all(COUNTS), async || live.hour(hour).await).await;
    until(all(COUNTS), async || archive.hour(hour).await).await;

    // Redis hangs: the archive continues, and Redis catches up afterwards.
    stack.redis.freeze();
    grow(&log, hour, COUNTS).await;
    until(all(2 * COUNTS), async || archive.hour(hour).await).await;
    stack.redis.thaw();
    until(all(2 * COUNTS), async || live.hour(hour).await).await;

    // The archive's positions are locked: Redis continues, and the archive catches up afterwards.
    let (url, schema) = &stack.postgres;
    let mut connection = PgConnection::connect(url).await.unwrap();
    let mut holder = connection.begin().await.unwrap();
    holder.execute(AssertSqlSafe(format!("SELECT * FROM {schema}.projection FOR UPDATE"))).await.unwrap();
    grow(&log, hour, 2 * COUNTS).await;
    until(all(3 * COUNTS), async || live.hour(hour).await).await;
    assert_eq!(archive.hour(hour).await, Ok(all(2 * COUNTS)), "it waits, with complete counts");
    holder.rollback().await.unwrap();
    until(all(3 * COUNTS), async || archive.hour(hour).await).await;

    stop.cancel();
    running.await.unwrap().unwrap();
    log.close(Duration::from_secs(5)).await;
}
