//! The live stream of the current hour, for one subscriber and for many.

use std::collections::HashSet;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::Request;
use bytes::Bytes;
use futures::future::join_all;
use futures::{FutureExt as _, StreamExt as _};
use millrace_base::Span;
use millrace_query::{Config, Tier};
use millrace_testkit::{AsyncConnection, request};
use serde_json::Value;
use tower::ServiceExt as _;

use crate::harness::{HOUR_MS, REFRESH_MS, Server, StoreState, config, totals};

const TIMEOUT: Duration = Duration::from_secs(30);

/// One stream, without a socket.
struct Stream(BodyDataStream);

impl Stream {
    async fn open(server: &Server, last: Option<&str>) -> Self {
        let mut request = Request::get("/analytics/live");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = server.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        let mut stream = Self(response.into_body().into_data_stream());
        let retry = stream.next().await;
        let ms: u32 = text(&retry).strip_prefix("retry: ").unwrap().trim_end().parse().unwrap();
        assert!((1_000..5_000).contains(&ms), "{ms}");
        stream
    }

    async fn next(&mut self) -> Bytes {
        self.end().await.expect("an event, not the end")
    }

    async fn end(&mut self) -> Option<Bytes> {
        tokio::time::timeout(TIMEOUT, self.0.next()).await.expect("in time").map(Result::unwrap)
    }

    /// Reads until the hour has so many clicks.
    async fn until(&mut self, n: u64) {
        while clicks(&self.next().await) != n {}
    }

    fn is_silent(&mut self) -> bool {
        self.0.next().now_or_never().is_none()
    }
}

fn text(bytes: &Bytes) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn field<'a>(event: &'a Bytes, name: &str) -> Option<&'a str> {
    text(event).lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn clicks(event: &Bytes) -> u64 {
    let data: Value = serde_json::from_str(field(event, "data").unwrap()).unwrap();
    data["clicks"].as_u64().unwrap()
}

/// Sets the clicks of the hour, and advances the clock so that a refresh is due.
fn set_clicks(server: &Server, clicks: u64) {
    server.stores.set(StoreState::Counts(totals(1, clicks, 0), Tier::Redis));
    server.clock.advance(REFRESH_MS);
}

fn with(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = config();
    change(&mut config);
    config
}

#[tokio::test]
async fn an_event_has_the_counts_of_the_hour() {
    let server = Server::start().await;
    set_clicks(&server, 5);
    let event = Stream::open(&server, None).await.next().await;
    assert!(text(&event).ends_with("\n\n"));
    assert_eq!((field(&event, "event"), field(&event, "id")), (Some("hour"), Some("79bf8-1-5-0")));
    let data: Value = serde_json::from_str(field(&event, "data").unwrap()).unwrap();
    let expected = serde_json::json!({
        "hour": "2026-11-21T08Z", "timestamp": 1_795_248_000_000_i64, "unique_users": 1, "clicks": 5, "impressions": 0,
        "as_of": "2026-11-21T08:30:00.05Z", "exactness": "exact", "tier": "memory", "stale": false,
    });
    assert_eq!(data, expected);
}

#[tokio::test]
async fn many_subscribers_share_one_read_and_one_encoded_event() {
    let server = Server::start().await;
    set_clicks(&server, 1);
    let mut streams = join_all((0..500).map(|_| Stream::open(&server, None))).await;
    for n in 1..=3 {
        let reads = server.stores.reads();
        if n > 1 {
            set_clicks(&server, n);
        }
        let events = join_all(streams.iter_mut().map(Stream::next)).await;
        assert!(events.iter().all(|event| clicks(event) == n));
        let addresses: HashSet<*const u8> = events.iter().map(|event| event.as_ptr()).collect();
        assert_eq!(addresses.len(), 1, "the same bytes for every subscriber");
        assert!(server.stores.reads() <= reads + 1, "one read of the store for each change");
    }
    assert!(streams.iter_mut().all(Stream::is_silent), "nothing changed");
}

#[tokio::test]
async fn a_slow_subscriber_gets_the_newest_event() {
    let server = Server::start().await;
    set_clicks(&server, 1);
    let (mut slow, mut fast) = (Stream::open(&server, None).await, Stream::open(&server, None).await);
    assert_eq!(clicks(&fast.next().await), 1);
    for n in 2..=20 {
        set_clicks(&server, n);
        assert_eq!(clicks(&fast.next().await), n);
    }
    assert_eq!(clicks(&slow.next().await), 20);
    assert!(slow.is_silent());
}

#[tokio::test]
async fn resumes_after_the_last_event_id() {
    let server = Server::start().await;
    set_clicks(&server, 5);
    let received = Stream::open(&server, None).await.next().await;
    let id = field(&received, "id").unwrap();
    // The second stream shows that the first event was published.
    let (mut again, mut other) = (Stream::open(&server, Some(id)).await, Stream::open(&server, None).await);
    other.next().await;
    assert!(again.is_silent(), "its client received that event");
    set_clicks(&server, 6);
    assert_eq!(clicks(&again.next().await), 6);

    let mut missed = Stream::open(&server, Some(id)).await;
    assert_eq!(clicks(&missed.next().await), 6, "at once");
    let mut foreign = Stream::open(&server, Some("not an id")).await;
    assert_eq!(clicks(&foreign.next().await), 6);

    // The client was served by an instance that is ahead of this one.
    let mut ahead = Stream::open(&server, Some("79bf8-1-8-0")).await;
    for n in [7, 8] {
        set_clicks(&server, n);
        other.until(n).await;
        assert!(ahead.is_silent(), "its client received higher counts than {n}");
    }
    set_clicks(&server, 9);
    assert_eq!(clicks(&ahead.next().await), 9);
}

#[tokio::test]
async fn sends_heartbeats_while_nothing_changes() {
    let config = with(|config| config.live_heartbeat = Span(Duration::from_millis(2)));
    let server = Server::with(config).await;
    set_clicks(&server, 5);
    let mut stream = Stream::open(&server, None).await;
    let first = stream.next().await;
    server.clock.advance(REFRESH_MS);
    // An event may have been encoded before the clock was advanced.
    let mut event = stream.next().await;
    for _ in 0..10 {
        if event != first {
            break;
        }
        event = stream.next().await;
    }
    assert_eq!(field(&event, "id"), field(&first, "id"));
    assert_ne!(field(&event, "data"), field(&first, "data"), "as of a later time");
}

#[tokio::test]
async fn reports_stale_counts_outages_and_the_next_hour() {
    let server = Server::start().await;
    set_clicks(&server, 5);
    let mut stream = Stream::open(&server, None).await;
    stream.next().await;
    server.stores.set(StoreState::Unavailable);
    server.clock.advance(REFRESH_MS);
    let stale = stream.next().await;
    assert_eq!((clicks(&stale), field(&stale, "id")), (5, Some("79bf8-1-5-0-stale")));
    server.clock.advance(HOUR_MS);
    let unavailable = stream.next().await;
    assert_eq!(text(&unavailable), "event: unavailable\ndata: {\"code\":\"unavailable\"}\n\n");
    set_clicks(&server, 0);
    let next = stream.next().await;
    assert_eq!((clicks(&next), field(&next, "id")), (0, Some("79bf9-1-0-0")));
}

#[tokio::test]
async fn does_not_read_without_subscribers() {
    let server = Server::start().await;
    set_clicks(&server, 1);
    let mut stream = Stream::open(&server, None).await;
    stream.next().await;
    drop(stream);
    // A later subscriber starts the publisher again, and gets no old event.
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    loop {
        let before = server.stores.reads();
        server.clock.advance(REFRESH_MS);
        tokio::time::sleep(Duration::from_millis(20)).await;
        if server.stores.reads() == before {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "reads go on without subscribers");
    }
    set_clicks(&server, 2);
    Stream::open(&server, None).await.until(2).await;
}

#[tokio::test]
async fn limits_the_number_of_streams() {
    let server = Server::with(with(|config| config.max_live_streams = 2)).await;
    set_clicks(&server, 1);
    let (one, _two) = (Stream::open(&server, None).await, Stream::open(&server, None).await);
    let reply = server.get("/analytics/live", &[]).await;
    assert_eq!((reply.status, reply.code()), (503, "overloaded".to_owned()));
    assert!(reply.header("retry-after").is_some());
    drop(one);
    Stream::open(&server, None).await.next().await;
    let reply = server.get("/analytics/live", &[("accept", "application/json")]).await;
    assert_eq!((reply.status, reply.code()), (406, "not-acceptable".to_owned()));
}

/// Over a socket: timeouts do not close a healthy stream, and a shutdown does not wait for streams.
#[tokio::test]
async fn a_stream_outlives_timeouts_and_ends_at_shutdown() {
    let span = |ms| Span(Duration::from_millis(ms));
    let server = Server::with(with(|config| {
        config.limits.head_timeout = span(50);
        config.limits.idle_timeout = span(50);
        config.limits.write_timeout = span(50);
        config.limits.handler_timeout = span(50);
        config.limits.drain_timeout = Span(Duration::from_hours(1));
    }))
    .await;
    set_clicks(&server, 1);
    let mut connection = AsyncConnection::open(server.address).await;
    connection.write_all(request("GET", "/analytics/live", &[], "")).await.unwrap();
    let received = connection.received_until("\"clicks\":1,").await;
    assert!(received.contains("content-type: text/event-stream\r\n"), "{received}");
    assert!(received.contains("cache-control: no-store\r\n"));
    // Longer than each of the timeouts: a healthy stream without events.
    tokio::time::sleep(Duration::from_millis(300)).await;
    set_clicks(&server, 2);
    connection.received_until("\"clicks\":2,").await;

    tokio::time::timeout(TIMEOUT, server.shut_down()).await.expect("a shutdown does not wait for streams");
    connection.received_until("\r\n0\r\n\r\n").await;
}
