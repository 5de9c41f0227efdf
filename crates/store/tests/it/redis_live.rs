//! The live hours in Redis: conformance, and the window.

use millrace_base::Clock;
use millrace_contracts::{Hour, Names, WriteOutcome};
use millrace_store::{HourRead, LiveHours, LiveWindow, RedisConfig, SecretUrl, Totals};
use redis::aio::MultiplexedConnection;

use crate::conformance::{conforms, folds_to_the_newest};
use crate::reference::equals_the_reference;
use crate::support::{PARTITIONS, complete, count, hour_read, now, position, put, window};

pub(crate) fn config(url: &str) -> RedisConfig {
    RedisConfig { url: SecretUrl::from(url), ..RedisConfig::default() }
}

pub(crate) fn names() -> Names {
    Names::new(&format!("{}.", millrace_testkit::unique("store"))).unwrap()
}

pub(crate) async fn live(url: &str, names: &Names) -> LiveHours {
    LiveHours::connect(&config(url), names, PARTITIONS, window()).await.unwrap()
}

pub(crate) async fn raw(url: &str) -> MultiplexedConnection {
    redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

pub(crate) fn hour_key(names: &Names, partition: u32, hour: Hour) -> String {
    format!("{}a:{{{partition}}}:hour:{hour}", names.redis_stem())
}

pub(crate) fn position_key(names: &Names, partition: u32) -> String {
    format!("{}a:{{{partition}}}:pos", names.redis_stem())
}

async fn field(connection: &mut MultiplexedConnection, key: &str, field: &str) -> String {
    redis::cmd("HGET").arg(key).arg(field).query_async(connection).await.unwrap()
}

#[tokio::test]
async fn redis_conforms() {
    let Some(url) = millrace_testkit::redis("store: redis") else { return };
    conforms(async || live(url, &names()).await).await;
}

#[test]
fn redis_folds_to_the_newest() {
    let Some(url) = millrace_testkit::redis("store: redis") else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    folds_to_the_newest(&runtime, 24, async || live(url, &names()).await);
    equals_the_reference(&runtime, 48, async || live(url, &names()).await);
}

#[tokio::test]
async fn a_key_expires_after_its_hour_leaves_the_window() {
    let Some(url) = millrace_testkit::redis("store: redis") else { return };
    let names = names();
    let store = live(url, &names).await;
    let mut writer = store.writer();
    let hours = [1, 0, -24, -25, -26].map(|ago| now().plus(ago));
    let counts = hours.map(|hour| count(hour, 0, 3, [1, 1, 1]));
    assert_eq!(put(&mut writer, 0, (None, 5), true, &counts).await, Ok(WriteOutcome::Applied));
    let mut connection = raw(url).await;
    for (count, retained) in counts.iter().zip([true, true, true, true, false]) {
        let key = hour_key(&names, 0, count.hour);
        let expires: i64 = redis::cmd("PEXPIRETIME").arg(&key).query_async(&mut connection).await.unwrap();
        let leaves = count.hour.plus(24).end_ms();
        assert_eq!(expires, if retained { leaves + 3_600_000 } else { -2 }, "{key}");
    }
    assert_eq!(position(&mut writer, 0).await, Ok(Some(5)), "the position advances past hours that are not live");
    let lives: i64 = redis::cmd("PTTL").arg(position_key(&names, 0)).query_async(&mut connection).await.unwrap();
    assert_eq!(lives, -1, "a position never expires");
}

#[tokio::test]
async fn hours_outside_the_window_are_rebuilding() {
    let Some(url) = millrace_testkit::redis("store: redis") else { return };
    let store = live(url, &names()).await;
    complete(&mut store.writer(), [1, 1, 1]).await;
    assert!(store.covers(now().plus(-24)) && !store.covers(now().plus(-25)));
    assert_eq!(store.hour(now().plus(-24)).await, Ok(HourRead::Complete(Totals::default())));
    assert_eq!(store.hour(now().plus(-25)).await, Ok(HourRead::Rebuilding));
}

#[tokio::test]
async fn hours_that_a_writer_with_a_fast_clock_left_out_are_not_zeros() {
    let Some(url) = millrace_testkit::redis("store: redis") else { return };
    let names = names();
    let store = live(url, &names).await;
    let ahead = LiveWindow::new(24, Clock::new(|| now().plus(3).start_ms()));
    let ahead = LiveHours::connect(&config(url), &names, PARTITIONS, ahead).await.unwrap();
    complete(&mut ahead.writer(), [1, 1, 1]).await;
    let oldest = [count(now().plus(-24), 0, 9, [5, 5, 5])];
    assert_eq!(put(&mut ahead.writer(), 0, (Some(1), 2), true, &oldest).await, Ok(WriteOutcome::Applied));
    assert_eq!(store.hour(now().plus(-24)).await, Ok(HourRead::Rebuilding));
    assert_eq!(store.hour(now().plus(-22)).await, Ok(HourRead::Complete(Totals::default())));
    assert_eq!(store.hour(now()).await, Ok(hour_read([3, 3, 3])));
    // A writer with the right clock begins a new build, which has it.
    let mut writer = store.writer();
    assert_eq!(position(&mut writer, 0).await, Ok(None));
    assert_eq!(put(&mut writer, 0, (Some(2), 3), true, &[]).await, Ok(WriteOutcome::PositionMismatch(None)));
    complete(&mut writer, [1, 1, 1]).await;
    assert_eq!(position(&mut ahead.writer(), 0).await, Ok(Some(1)), "it has more than the fast clock needs");
    assert_eq!(store.hour(now().plus(-24)).await, Ok(HourRead::Complete(Totals::default())));
    assert_eq!(store.hour(now()).await, Ok(hour_read([3, 3, 3])));
}

#[tokio::test]
async fn clocks_that_differ_by_an_hour_share_a_build() {
    let Some(url) = millrace_testkit::redis("store: redis") else { return };
    let names = names();
    let store = live(url, &names).await;
    let ahead = LiveWindow::new(24, Clock::new(|| now().plus(1).start_ms()));
    let ahead = LiveHours::connect(&config(url), &names, PARTITIONS, ahead).await.unwrap();
    complete(&mut ahead.writer(), [1, 1, 1]).await;
    let mut writer = store.writer();
    assert_eq!(position(&mut writer, 0).await, Ok(Some(1)));
    assert_eq!(put(&mut writer, 0, (Some(1), 2), true, &[]).await, Ok(WriteOutcome::Applied));
    assert_eq!(store.hour(now().plus(-24)).await, Ok(HourRead::Complete(Totals::default())));
}

#[tokio::test]
async fn a_wider_window_needs_a_rebuild() {
    let Some(url) = millrace_testkit::redis("store: redis") else { return };
    let names = names();
    let narrow = live(url, &names).await;
    complete(&mut narrow.writer(), [1, 1, 1]).await;
    let wide = LiveWindow::new(48, crate::support::clock());
    let wide = LiveHours::connect(&config(url), &names, PARTITIONS, wide).await.unwrap();
    assert_eq!(wide.hour(now()).await, Ok(HourRead::Rebuilding), "hours outside the narrow window are not zeros");
    let mut writer = wide.writer();
    assert_eq!(position(&mut writer, 0).await, Ok(None));
    assert_eq!(put(&mut writer, 0, (Some(1), 2), true, &[]).await, Ok(WriteOutcome::PositionMismatch(None)));
    complete(&mut writer, [2, 2, 2]).await;
    assert_eq!(wide.hour(now()).await, Ok(hour_read([6, 6, 6])));
    assert_eq!(narrow.hour(now()).await, Ok(hour_read([6, 6, 6])), "a reader with a narrower window finds every hour");
}

#[tokio::test]
async fn values_of_an_earlier_build_do_not_count() {
    let Some(url) = millrace_testkit::redis("store: redis") else { return };
    let names = names();
    let store = live(url, &names).await;
    let mut writer = store.writer();
    complete(&mut writer, [100, 100, 100]).await;
    let () = redis::cmd("DEL").arg(position_key(&names, 1)).query_async(&mut raw(url).await).await.unwrap();
    assert_eq!(store.hour(now()).await, Ok(HourRead::Rebuilding));
    assert_eq!(put(&mut writer, 1, (Some(1), 2), false, &[]).await, Ok(WriteOutcome::PositionMismatch(None)));
    // The rebuild finds less than before, as from another log.
    assert_eq!(put(&mut writer, 1, (None, 9), true, &[]).await, Ok(WriteOutcome::Applied));
    assert_eq!(store.hour(now()).await, Ok(hour_read([200, 200, 200])));
    let smaller = [count(now(), 1, 0, [7, 7, 7])];
    assert_eq!(put(&mut writer, 1, (Some(9), 10), false, &smaller).await, Ok(WriteOutcome::Applied));
    assert_eq!(store.hour(now()).await, Ok(hour_read([207, 207, 207])));
}

#[tokio::test]
async fn a_lower_position_starts_a_new_incarnation() {
    let Some(url) = millrace_testkit::redis("store: redis") else { return };
    let names = names();
    let store = live(url, &names).await;
    let mut writer = store.writer();
    complete(&mut writer, [1, 1, 1]).await;
    assert_eq!(
        put(&mut writer, 2, (Some(1), 8), false, &[count(now(), 2, 4, [5, 5, 5])]).await,
        Ok(WriteOutcome::Applied)
    );
    assert_eq!(store.hour(now()).await, Ok(hour_read([7, 7, 7])));

    // The state of a lagging replica.
    let (mut connection, key) = (raw(url).await, position_key(&names, 2));
    let before = field(&mut connection, &key, "incarnation").await;
    let () = redis::cmd("HSET").arg(&key).arg("position").arg(1).query_async(&mut connection).await.unwrap();
    let old = "1:1:1:1:1:e:".to_owned() + &field(&mut connection, &key, "build").await;
    let () = redis::cmd("SET").arg(hour_key(&names, 2, now())).arg(old).query_async(&mut connection).await.unwrap();

    assert_eq!(store.hour(now()).await, Ok(HourRead::Rebuilding), "a reader that observed more does not go back");
    let counts = [count(now(), 2, 4, [5, 5, 5])];
    assert_eq!(put(&mut writer, 2, (Some(8), 9), false, &counts).await, Ok(WriteOutcome::PositionMismatch(Some(1))));
    assert_eq!(put(&mut writer, 2, (Some(1), 8), false, &counts).await, Ok(WriteOutcome::Applied));
    assert_ne!(field(&mut connection, &key, "incarnation").await, before);
    let fresh = live(url, &names).await;
    assert_eq!(fresh.hour(now()).await, Ok(HourRead::Rebuilding), "the new incarnation has not caught up");
    assert_eq!(put(&mut writer, 2, (Some(8), 8), true, &[]).await, Ok(WriteOutcome::Applied));
    for reader in [store, fresh] {
        assert_eq!(reader.hour(now()).await, Ok(hour_read([7, 7, 7])));
    }
}
