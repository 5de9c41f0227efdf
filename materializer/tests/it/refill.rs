//! Older hours in Redis: refilled on request, corrected by late events.

use std::time::Duration;

use millrace_base::Clock;
use millrace_contracts::{Hour, RefillRequest, StoreError, Topic};
use millrace_log::{Log, NewRecord, Outcome};
use millrace_service::health::Health;
use millrace_store::{HourRead, LiveHours};
use tokio_util::sync::CancellationToken;

use crate::stack::{PARTITIONS, Stack, append, totals, until};

async fn request(log: &Log, hour: Hour) {
    let (mut value, key) = (Vec::new(), hour.to_string());
    RefillRequest { hour, requested_at_ms: 0 }.encode(&mut value);
    let partition = u32::try_from(hour.index()).unwrap() % PARTITIONS;
    let record = NewRecord { topic: Topic::REFILL, partition, key: key.as_bytes(), value: &value };
    assert!(matches!(log.append(&[record]).await[..], [Outcome::Acknowledged(_)]));
}

/// An older hour as a read of the archive: an absent one is `Rebuilding`.
async fn older(live: &LiveHours, hour: Hour) -> Result<HourRead, StoreError> {
    Ok(live.older(hour).await?.map_or(HourRead::Rebuilding, HourRead::Complete))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_requested_older_hour_is_in_redis_and_stays_correct() {
    let Some(mut stack) = Stack::start().await else { return };
    let (log, live, archive) = (stack.log.clone(), stack.live.clone(), stack.archive.clone());
    let (old, empty) = (Hour::of_ms(123), Hour::of_ms(123).plus(7));
    append(&log, old, 1, 4, 1).await;
    let (health, stop) = (Health::new(), CancellationToken::new());
    let running = stack.run(&health, &stop);
    until(totals(1), async || archive.hour(old).await).await;
    assert_eq!(live.older(old).await, Ok(None), "no request yet");
    // A request before Redis is complete is dropped: the next read repeats it.
    let now = Hour::current(&Clock::system());
    until(totals(0), async || live.hour(now).await).await;

    // Invalid requests are skipped, and a repeated request fills the hour once.
    let junk = NewRecord { topic: Topic::REFILL, partition: 0, key: b"x", value: b"junk" };
    assert!(matches!(log.append(&[junk]).await[..], [Outcome::Acknowledged(_)]));
    for hour in [old, old, empty] {
        request(&log, hour).await;
    }
    until(totals(1), async || older(&live, old).await).await;
    until(totals(0), async || older(&live, empty).await).await;

    // Late events correct both.
    append(&log, old, 0, 6, 5).await;
    append(&log, empty, 1, 9, 2).await;
    until(totals(6), async || older(&live, old).await).await;
    until(totals(2), async || older(&live, empty).await).await;

    // Redis loses everything, and the next request fills the hour again.
    stack.redis.delete_data();
    stack.redis.restart().unwrap();
    until(totals(0), async || live.hour(now).await).await;
    assert_eq!(older(&live, old).await, Ok(HourRead::Rebuilding));
    request(&log, old).await;
    until(totals(6), async || older(&live, old).await).await;

    stop.cancel();
    running.await.unwrap().unwrap();
    log.close(Duration::from_secs(5)).await;
}
