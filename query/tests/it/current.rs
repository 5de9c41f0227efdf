//! The snapshot of the current hour: when it is refreshed, by which request, and what the others get meanwhile.

use axum::body::Body;
use axum::http::Request;
use futures::FutureExt as _;
use futures::future::join_all;
use millrace_query::Tier;
use tower::ServiceExt as _;

use crate::harness::{HOUR_MS, NOW_MS, REFRESH_MS, STALE_AFTER_MS, Server, StoreState, totals};

async fn clicks(server: &Server, timestamp: i64) -> (String, bool) {
    let reply = server.get(&format!("/analytics?timestamp={timestamp}"), &[]).await;
    assert_eq!(reply.status, 200);
    let clicks = reply.text().lines().find_map(|line| line.strip_prefix("clicks,")).unwrap().to_owned();
    (clicks, reply.header("millrace-stale") == Some("true"))
}

fn clicks_in_redis(clicks: u64) -> StoreState {
    StoreState::Counts(totals(1, clicks, 0), Tier::Redis)
}

#[tokio::test]
async fn refreshes_once_per_interval() {
    let server = Server::start().await;
    server.stores.set(clicks_in_redis(1));
    assert_eq!(clicks(&server, NOW_MS).await.0, "1");
    server.stores.set(clicks_in_redis(2));
    server.clock.advance(REFRESH_MS - 1);
    assert_eq!(clicks(&server, NOW_MS).await.0, "1");
    assert_eq!(server.stores.reads(), 1);
    server.clock.advance(1);
    assert_eq!(clicks(&server, NOW_MS).await.0, "2");
    assert_eq!(server.stores.reads(), 2);
    server.clock.advance(-10 * REFRESH_MS);
    assert_eq!(clicks(&server, NOW_MS).await.0, "2");
    assert_eq!(server.stores.reads(), 3, "a clock set back expires the snapshot");
}

#[tokio::test]
async fn concurrent_requests_share_one_read() {
    for timestamp in [NOW_MS, NOW_MS - HOUR_MS] {
        let server = Server::start().await;
        server.stores.set(clicks_in_redis(1));
        server.stores.hold();
        let request = || {
            let request = Request::get(format!("/analytics?timestamp={timestamp}")).body(Body::empty()).unwrap();
            server.router.clone().oneshot(request)
        };
        let mut all = Box::pin(join_all((0..500).map(|_| request())));
        assert!(all.as_mut().now_or_never().is_none(), "all of them wait");
        assert_eq!(server.stores.reads(), 1);
        server.stores.release();
        assert!(all.await.into_iter().all(|response| response.unwrap().status() == 200));
        assert_eq!(server.stores.reads(), 1, "timestamp {timestamp}");
    }
}

#[tokio::test]
async fn concurrent_requests_share_a_failed_read() {
    let server = Server::start().await;
    server.stores.set(StoreState::Unavailable);
    server.stores.hold();
    let request = || Request::get(format!("/analytics?timestamp={NOW_MS}")).body(Body::empty()).unwrap();
    let mut all = Box::pin(join_all((0..100).map(|_| server.router.clone().oneshot(request()))));
    assert!(all.as_mut().now_or_never().is_none());
    server.stores.release();
    assert!(all.await.into_iter().all(|response| response.unwrap().status() == 503));
    assert_eq!(server.stores.reads(), 1);
}

#[tokio::test]
async fn serves_the_previous_snapshot_during_a_refresh() {
    let server = Server::start().await;
    server.stores.set(clicks_in_redis(1));
    assert_eq!(clicks(&server, NOW_MS).await.0, "1");

    server.stores.set(clicks_in_redis(2));
    server.stores.hold();
    server.clock.advance(REFRESH_MS);
    let request = || Request::get(format!("/analytics?timestamp={NOW_MS}")).body(Body::empty()).unwrap();
    let mut reader = Box::pin(server.router.clone().oneshot(request()));
    assert!(reader.as_mut().now_or_never().is_none());
    assert_eq!(clicks(&server, NOW_MS).await, ("1".to_owned(), false));

    server.clock.advance(STALE_AFTER_MS);
    let mut late = Box::pin(server.router.clone().oneshot(request()));
    assert!(late.as_mut().now_or_never().is_none(), "the snapshot is too old: waits for the refresh");
    server.stores.release();
    assert_eq!(reader.await.unwrap().status(), 200);
    assert_eq!(late.await.unwrap().status(), 200);
    assert_eq!(server.stores.reads(), 2);
}

#[tokio::test]
async fn another_request_takes_over_a_dropped_read() {
    for timestamp in [NOW_MS, NOW_MS - HOUR_MS] {
        let server = Server::start().await;
        server.stores.set(clicks_in_redis(1));
        server.stores.hold();
        let request = || Request::get(format!("/analytics?timestamp={timestamp}")).body(Body::empty()).unwrap();
        let mut first = Box::pin(server.router.clone().oneshot(request()));
        let mut second = Box::pin(server.router.clone().oneshot(request()));
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        server.stores.release();
        assert_eq!(second.await.unwrap().status(), 200);
        assert_eq!(server.stores.reads(), 2);
    }
}

#[tokio::test]
async fn marks_counts_stale_while_stores_are_unavailable() {
    let server = Server::start().await;
    server.stores.set(clicks_in_redis(1));
    assert_eq!(clicks(&server, NOW_MS).await, ("1".to_owned(), false));
    server.stores.set(StoreState::Unavailable);
    server.clock.advance(REFRESH_MS);
    for _ in 0..3 {
        assert_eq!(clicks(&server, NOW_MS).await, ("1".to_owned(), true));
        server.clock.advance(10 * STALE_AFTER_MS);
    }
    let reply = server.get(&format!("/analytics?timestamp={NOW_MS}"), &[]).await;
    assert_eq!(reply.header("millrace-as-of"), Some("2026-11-21T08:30:00Z"), "of the counts, not of the failed read");
    assert_eq!(reply.header("age"), Some("30"));
    server.stores.set(clicks_in_redis(3));
    server.clock.advance(REFRESH_MS);
    assert_eq!(clicks(&server, NOW_MS).await, ("3".to_owned(), false));
}

#[tokio::test]
async fn a_rebuilding_store_is_a_503_at_once() {
    let server = Server::start().await;
    server.stores.set(clicks_in_redis(1));
    assert_eq!(clicks(&server, NOW_MS).await.0, "1");
    server.stores.set(StoreState::Rebuilding);
    server.clock.advance(REFRESH_MS);
    let reply = server.get(&format!("/analytics?timestamp={NOW_MS}"), &[]).await;
    assert_eq!((reply.status, reply.code()), (503, "rebuilding".to_owned()));
}

#[tokio::test]
async fn an_overloaded_archive_is_a_503() {
    let server = Server::start().await;
    server.stores.set(StoreState::Overloaded);
    let reply = server.get("/analytics?timestamp=123", &[]).await;
    assert_eq!((reply.status, reply.code(), reply.header("retry-after")), (503, "overloaded".to_owned(), Some("1")));
}

#[tokio::test]
async fn a_snapshot_is_of_one_hour() {
    let server = Server::start().await;
    server.stores.set(clicks_in_redis(1));
    server.clock.advance(HOUR_MS / 2 - 1);
    assert_eq!(clicks(&server, NOW_MS).await.0, "1");

    server.clock.advance(1);
    server.stores.set(clicks_in_redis(2));
    let ended = server.get(&format!("/analytics?timestamp={NOW_MS}"), &[]).await;
    assert_eq!(ended.header("millrace-tier"), Some("redis"), "the hour has ended");
    assert_eq!(ended.header("cache-control"), Some("max-age=60, must-revalidate"));

    server.stores.set(clicks_in_redis(3));
    let begun = server.get(&format!("/analytics?timestamp={}", NOW_MS + HOUR_MS), &[]).await;
    assert_eq!(begun.header("millrace-tier"), Some("memory"));
    assert_eq!(begun.text(), "unique_users,1\nclicks,3\nimpressions,0\n");

    server.stores.set(StoreState::Unavailable);
    server.clock.advance(HOUR_MS);
    let reply = server.get(&format!("/analytics?timestamp={}", NOW_MS + 2 * HOUR_MS), &[]).await;
    assert_eq!(reply.status, 503, "the counts of the last hour do not serve for this one");
}

#[tokio::test]
async fn does_not_read_without_requests() {
    let server = Server::start().await;
    assert_eq!(server.get("/livez", &[]).await.status, 200);
    server.clock.advance(HOUR_MS);
    assert_eq!(server.stores.reads(), 0);
}

#[tokio::test]
async fn readiness_follows_the_stores() {
    let server = Server::start().await;
    server.stores.set(StoreState::Unavailable);
    assert_eq!(server.get("/readyz", &[]).await.status, 503);
    server.stores.set(clicks_in_redis(1));
    server.clock.advance(REFRESH_MS);
    assert_eq!(server.get("/readyz", &[]).await.status, 200);
    server.stores.set(StoreState::Unavailable);
    server.clock.advance(REFRESH_MS);
    assert_eq!(server.get("/readyz", &[]).await.status, 503, "stale counts do not make the service ready");
}
