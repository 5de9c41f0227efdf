//! Redis that loses data: killed with and without persistence, failover to a lagging replica, flush. Counts never decrease
//! for a reader, and no loss is permanent. Also refusals that require a real or a stubbed server.

use std::net::SocketAddr;
use std::time::Duration;

use millrace_contracts::{Next, WriteOutcome};
use millrace_store::{HourRead, HourlyStore, LiveHours, RedisConfig};
use millrace_testkit::{Link, Proxy, Redis};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::redis_live::{config, live, names, raw};
use crate::support::{PARTITIONS, complete, count, hour_read, now, position, put, window};

const DEADLINE: Duration = Duration::from_secs(30);

fn server() -> Option<Redis> {
    Redis::start().map_err(|why| millrace_testkit::not_run("store: redis heals", "Redis", &why)).ok()
}

async fn ask<T: redis::FromRedisValue>(url: &str, words: &[&str]) -> T {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async(&mut raw(url).await).await.unwrap()
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let polling = tokio::time::timeout(DEADLINE, async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(polling.await.is_ok(), "timeout: {what}");
}

fn quick(url: &str) -> RedisConfig {
    let timeout = millrace_base::Span::from_millis(500);
    RedisConfig { response_timeout: timeout, connect_timeout: timeout, ..config(url) }
}

/// Writes partition 0 as a runner does, from the stored position up to `end`.
async fn catch_up(store: &LiveHours, end: u64) {
    let mut writer = store.writer();
    until("caught up", async || {
        let Ok(stored) = position(&mut writer, 0).await else { return false };
        let counts = [count(now(), 0, end, [end, end, end])];
        put(&mut writer, 0, (stored, end), true, &counts).await == Ok(WriteOutcome::Applied)
    })
    .await;
}

#[tokio::test]
async fn a_killed_server_with_persistence_resumes_from_its_data() {
    let Some(mut server) = server() else { return };
    let (url, names) = (server.url(), names());
    let store = LiveHours::connect(&quick(&url), &names, PARTITIONS, window()).await.unwrap();
    complete(&mut store.writer(), [1, 1, 1]).await;
    catch_up(&store, 40).await;
    assert_eq!(store.hour(now()).await, Ok(hour_read([42, 42, 42])));
    server.kill();
    assert_eq!(store.hour(now()).await.unwrap_err().next, Next::Retry);
    server.restart().unwrap();
    // A second of writes may be lost (appendfsync everysec); a reader that observed them then gets "rebuilding".
    until("a successful read", async || store.hour(now()).await.is_ok()).await;
    assert!(
        matches!(store.hour(now()).await.unwrap(), HourRead::Rebuilding)
            || store.hour(now()).await == Ok(hour_read([42; 3]))
    );
    for partition in 1..PARTITIONS {
        let mut writer = store.writer();
        let stored = position(&mut writer, partition).await.unwrap();
        let counts = [count(now(), partition, 1, [1, 1, 1])];
        assert_eq!(put(&mut writer, partition, (stored, 1), true, &counts).await, Ok(WriteOutcome::Applied));
    }
    catch_up(&store, 41).await;
    assert_eq!(store.hour(now()).await, Ok(hour_read([43, 43, 43])));
}

#[tokio::test]
async fn counts_never_decrease_after_a_failover_to_a_lagging_replica() {
    let (Some(old), Some(new)) = (server(), server()) else { return };
    let address = |server: &Redis| -> SocketAddr { server.url().trim_start_matches("redis://").parse().unwrap() };
    let before = address(&old);
    // Blocks on its own runtime, which is not possible on a thread of another one.
    let proxy = tokio::task::spawn_blocking(move || Proxy::start(before)).await.unwrap().unwrap();
    let names = names();
    let through = quick(&format!("redis://{}", proxy.address()));
    let store = LiveHours::connect(&through, &names, PARTITIONS, window()).await.unwrap();
    complete(&mut store.writer(), [1, 1, 1]).await;

    let (host, port) = (address(&old).ip().to_string(), address(&old).port().to_string());
    let () = ask(&new.url(), &["REPLICAOF", &host, &port]).await;
    let replica = live(&new.url(), &names).await;
    until("replicated", async || replica.hour(now()).await == Ok(hour_read([3, 3, 3]))).await;
    // The link breaks, and the old primary continues, observed by the reader.
    let () = ask(&new.url(), &["REPLICAOF", "NO", "ONE"]).await;
    assert_eq!(
        put(&mut store.writer(), 0, (Some(1), 8), true, &[count(now(), 0, 8, [8, 8, 8])]).await,
        Ok(WriteOutcome::Applied)
    );
    assert_eq!(store.hour(now()).await, Ok(hour_read([10, 10, 10])));

    proxy.set(Link::Reset);
    until("disconnected", async || store.hour(now()).await.is_err()).await;
    proxy.redirect(address(&new));
    proxy.set(Link::Whole);
    until("connected", async || store.hour(now()).await.is_ok()).await;
    assert_eq!(store.hour(now()).await, Ok(HourRead::Rebuilding), "not the earlier 3");
    let mut writer = store.writer();
    let next = [count(now(), 0, 9, [9, 9, 9])];
    assert_eq!(put(&mut writer, 0, (Some(8), 9), true, &next).await, Ok(WriteOutcome::PositionMismatch(Some(1))));
    // The records from there, in two steps: "rebuilding" in between.
    let first = [count(now(), 0, 5, [5, 5, 5])];
    assert_eq!(put(&mut writer, 0, (Some(1), 5), false, &first).await, Ok(WriteOutcome::Applied));
    assert_eq!(store.hour(now()).await, Ok(HourRead::Rebuilding));
    assert_eq!(replica.hour(now()).await, Ok(HourRead::Rebuilding), "the same for another process that observed less");
    assert_eq!(put(&mut writer, 0, (Some(5), 9), true, &next).await, Ok(WriteOutcome::Applied));
    assert_eq!(store.hour(now()).await, Ok(hour_read([11, 11, 11])));
}

#[tokio::test]
async fn a_server_that_cannot_persist_is_retried() {
    let Some(server) = server() else { return };
    let (url, names) = (server.url(), names());
    let store = live(&url, &names).await;
    complete(&mut store.writer(), [1, 1, 1]).await;
    let (_, folder): (String, String) = ask(&url, &["CONFIG", "GET", "dir"]).await;
    let () = ask(&url, &["CONFIG", "SET", "appendonly", "no"]).await;
    let () = ask(&url, &["CONFIG", "SET", "save", "3600 1000000"]).await;
    std::fs::remove_dir_all(&folder).unwrap();
    // A save may still be in progress; the next attempt repeats it.
    until("a save fails", async || {
        let _: Result<String, _> = redis::cmd("BGSAVE").query_async(&mut raw(&url).await).await;
        let info: String = ask(&url, &["INFO", "persistence"]).await;
        info.contains("rdb_last_bgsave_status:err")
    })
    .await;
    let counts = [count(now(), 0, 9, [9, 9, 9])];
    let error = put(&mut store.writer(), 0, (Some(1), 2), false, &counts).await.unwrap_err();
    assert!(error.next == Next::Retry && error.detail.contains("MISCONF"), "{error}");
    assert_eq!(store.hour(now()).await, Ok(hour_read([3, 3, 3])), "no partial write, and reads continue");
    let () = ask(&url, &["CONFIG", "SET", "save", ""]).await;
    assert_eq!(put(&mut store.writer(), 0, (Some(1), 2), false, &counts).await, Ok(WriteOutcome::Applied));
}

#[tokio::test]
async fn a_loading_server_is_retried() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let stub = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut bytes = [0; 16_384];
                while let Ok(read @ 1..) = stream.read(&mut bytes).await {
                    // One command is one array; the clients here send complete commands.
                    let commands =
                        bytes[..read].split(|&byte| byte == b'\n').filter(|line| line.starts_with(b"*")).count();
                    let response = "-LOADING Redis is loading the dataset in memory\r\n".repeat(commands);
                    if stream.write_all(response.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    let store = LiveHours::connect(&quick(&url), &names(), PARTITIONS, window()).await.unwrap();
    let error = put(&mut store.writer(), 0, (Some(1), 2), false, &[]).await.unwrap_err();
    assert_eq!(error.next, Next::Retry, "{error}");
    assert_eq!(store.hour(now()).await.unwrap_err().next, Next::Retry);
    assert_eq!(store.writer().position(0).await.unwrap_err().next, Next::Retry);
    stub.abort();
}
