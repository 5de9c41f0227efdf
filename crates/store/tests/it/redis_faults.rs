//! Redis that refuses writes, loses data or hangs: no partial write, no skipped write. Each test has its own server.

use millrace_contracts::{Names, Next, WriteOutcome};
use millrace_store::{HourRead, HourlyStore, LiveHours, RedisConfig};
use millrace_testkit::Redis;

use crate::redis_live::{config, hour_key, live, names, position_key, raw};
use crate::support::{PARTITIONS, complete, count, hour_read, now, position, put, window};

fn server() -> Option<Redis> {
    Redis::start().map_err(|why| millrace_testkit::not_run("store: redis faults", "Redis", &why)).ok()
}

async fn run(url: &str, words: &[&str]) {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    let _: redis::Value = command.query_async(&mut raw(url).await).await.unwrap();
}

/// A write that must fail with `next` and leave the store unchanged.
async fn refused(store: &LiveHours, names: &Names, url: &str, next: Next) {
    let mut writer = store.writer();
    let counts = [count(now(), 0, 9, [9, 9, 9]), count(now().plus(-1), 0, 9, [9, 9, 9])];
    let error = put(&mut writer, 0, (Some(1), 2), false, &counts).await.unwrap_err();
    assert_eq!(error.next, next, "{error}");
    let mut connection = raw(url).await;
    let position: u64 =
        redis::cmd("HGET").arg(position_key(names, 0)).arg("position").query_async(&mut connection).await.unwrap();
    assert_eq!(position, 1, "{error}");
    let value: String = redis::cmd("GET").arg(hour_key(names, 0, now())).query_async(&mut connection).await.unwrap();
    assert!(value.starts_with("1:1:1:1:1:e:"), "{value} after {error}");
}

async fn accepted(store: &LiveHours) {
    let counts = [count(now(), 0, 9, [9, 9, 9])];
    assert_eq!(put(&mut store.writer(), 0, (Some(1), 2), false, &counts).await, Ok(WriteOutcome::Applied));
    assert_eq!(store.hour(now()).await, Ok(hour_read([11, 11, 11])));
}

#[tokio::test]
async fn a_key_of_the_wrong_type_prevents_the_whole_write() {
    let Some(server) = server() else { return };
    let (url, names) = (server.url(), names());
    let store = live(&url, &names).await;
    complete(&mut store.writer(), [1, 1, 1]).await;
    let wrong = hour_key(&names, 0, now().plus(-1));
    for setup in [["LPUSH", &wrong, "x"], ["SET", &wrong, "not a count"]] {
        run(&url, &setup).await;
        refused(&store, &names, &url, Next::Stop).await;
        run(&url, &["DEL", &wrong]).await;
    }
    accepted(&store).await;
}

#[tokio::test]
async fn a_malformed_position_stops() {
    let Some(server) = server() else { return };
    let (url, names) = (server.url(), names());
    let store = live(&url, &names).await;
    complete(&mut store.writer(), [1, 1, 1]).await;
    let key = position_key(&names, 1);
    run(&url, &["HSET", &key, "position", "-3"]).await;
    let error = put(&mut store.writer(), 1, (Some(1), 2), false, &[]).await.unwrap_err();
    assert_eq!(error.next, Next::Stop, "{error}");
    assert_eq!(store.hour(now()).await.unwrap_err().next, Next::Stop);
    run(&url, &["SET", &key, "1"]).await;
    assert_eq!(put(&mut store.writer(), 1, (Some(1), 2), false, &[]).await.unwrap_err().next, Next::Stop);
    assert_eq!(store.writer().position(1).await.unwrap_err().next, Next::Stop);
}

#[tokio::test]
async fn refused_writes_are_retried() {
    let Some(server) = server() else { return };
    let (url, names) = (server.url(), names());
    let store = live(&url, &names).await;
    complete(&mut store.writer(), [1, 1, 1]).await;
    for (refuse, heal) in [
        (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"]),
        (["CONFIG", "SET", "min-replicas-to-write", "1"], ["CONFIG", "SET", "min-replicas-to-write", "0"]),
    ] {
        run(&url, &refuse).await;
        refused(&store, &names, &url, Next::Retry).await;
        run(&url, &heal).await;
    }
    run(&url, &["REPLICAOF", "127.0.0.1", "1"]).await;
    refused(&store, &names, &url, Next::Retry).await;
    run(&url, &["REPLICAOF", "NO", "ONE"]).await;
    accepted(&store).await;
}

#[tokio::test]
async fn missing_permissions_stop_and_prevent_the_whole_write() {
    let Some(server) = server() else { return };
    let (url, names) = (server.url(), names());
    complete(&mut live(&url, &names).await.writer(), [1, 1, 1]).await;
    // Permission for hours but not for positions, and vice versa.
    for forbidden in ["-hset", "-set"] {
        run(&url, &["ACL", "SETUSER", "limited", "reset", "on", ">secret", "~*", "+@all", forbidden]).await;
        let limited = url.replace("redis://", "redis://limited:secret@");
        refused(&live(&limited, &names).await, &names, &url, Next::Stop).await;
    }
    let wrong = url.replace("redis://", "redis://limited:wrong@");
    let error = LiveHours::connect(&config(&wrong), &names, PARTITIONS, window()).await.unwrap_err();
    assert!(!error.detail.contains("wrong@"), "{error}");
    assert_eq!(error.next, Next::Stop, "{error}");
}

#[tokio::test]
async fn a_flushed_server_is_rebuilding_until_it_catches_up() {
    let Some(server) = server() else { return };
    let (url, names) = (server.url(), names());
    let store = live(&url, &names).await;
    let mut writer = store.writer();
    complete(&mut writer, [1, 1, 1]).await;
    run(&url, &["FLUSHALL"]).await;
    assert_eq!(store.hour(now()).await, Ok(HourRead::Rebuilding), "not zeros");
    assert_eq!(put(&mut writer, 0, (Some(1), 2), false, &[]).await, Ok(WriteOutcome::PositionMismatch(None)));
    assert_eq!(position(&mut writer, 1).await, Ok(None));
    assert_eq!(put(&mut writer, 0, (None, 1), true, &[]).await, Ok(WriteOutcome::Applied));
    assert_eq!(store.hour(now()).await, Ok(HourRead::Rebuilding));
    for partition in 1..PARTITIONS {
        let counts = [count(now(), partition, 1, [1, 1, 1])];
        assert_eq!(put(&mut writer, partition, (None, 1), true, &counts).await, Ok(WriteOutcome::Applied));
    }
    assert_eq!(store.hour(now()).await, Ok(hour_read([2, 2, 2])));
}

#[tokio::test]
async fn a_flushed_script_is_reloaded() {
    let Some(server) = server() else { return };
    let (url, names) = (server.url(), names());
    let store = live(&url, &names).await;
    complete(&mut store.writer(), [1, 1, 1]).await;
    run(&url, &["SCRIPT", "FLUSH"]).await;
    accepted(&store).await;
}

#[tokio::test]
async fn a_hanging_or_dead_server_is_retried() {
    let Some(mut server) = server() else { return };
    let (url, names) = (server.url(), names());
    let timeout = millrace_base::Span::from_millis(200);
    let short = RedisConfig { response_timeout: timeout, connect_timeout: timeout, ..config(&url) };
    let store = LiveHours::connect(&short, &names, PARTITIONS, window()).await.unwrap();
    complete(&mut store.writer(), [1, 1, 1]).await;
    server.freeze();
    let error = put(&mut store.writer(), 0, (Some(1), 2), false, &[]).await.unwrap_err();
    assert_eq!(error.next, Next::Retry, "{error}");
    assert_eq!(store.hour(now()).await.unwrap_err().next, Next::Retry);
    server.thaw();
    server.delete_data();
    let error = put(&mut store.writer(), 0, (Some(1), 2), false, &[]).await.unwrap_err();
    assert_eq!(error.next, Next::Retry, "{error}");
    let early = LiveHours::connect(&short, &names, PARTITIONS, window()).await.unwrap();
    assert_eq!(early.hour(now()).await.unwrap_err().next, Next::Retry);
    server.restart().unwrap();
    for store in [&store, &early] {
        back(store).await;
    }
}

/// Waits until an empty server responds again.
async fn back(store: &LiveHours) {
    let mut last = None;
    let polling = tokio::time::timeout(std::time::Duration::from_secs(20), async {
        loop {
            last = Some(put(&mut store.writer(), 0, (Some(1), 2), false, &[]).await);
            if last == Some(Ok(WriteOutcome::PositionMismatch(None))) {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
    assert!(polling.await.is_ok(), "{last:?}");
}

#[tokio::test]
async fn a_server_with_eviction_is_refused() {
    let Some(server) = server() else { return };
    let url = server.url();
    run(&url, &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
    let error = LiveHours::connect(&config(&url), &names(), PARTITIONS, window()).await.unwrap_err();
    assert_eq!(error.next, Next::Stop);
    assert!(error.detail.contains("noeviction"), "{error}");
    // If the policy is not readable, the store trusts the operator.
    run(&url, &["ACL", "SETUSER", "limited", "reset", "on", ">secret", "~*", "+@all", "-config"]).await;
    live(&url.replace("redis://", "redis://limited:secret@"), &names()).await;
}
