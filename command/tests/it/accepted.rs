//! The happy path: events in, positions out, records in the log.

use std::time::Duration;

use millrace_contracts::{AnalyticsEvent, EventRef, Kind, Topic, UserHash, partition_of};
use millrace_log::{Batch, Limits, Log};

use crate::harness::{NOW, Server};

pub(crate) fn event_at(log: &Log, position: &str) -> AnalyticsEvent {
    let (topic, at) = position.split_once('/').unwrap();
    assert_eq!(topic, "millrace.analytics.events");
    let (partition, offset) = at.split_once('@').unwrap();
    let (partition, offset) = (partition.parse().unwrap(), offset.parse().unwrap());
    let mut reader = log.reader(Topic::EVENTS, &[(partition, offset)]).unwrap();
    let mut batch = Batch::new(partition);
    let limits = Limits { wait: Duration::from_millis(100), ..Limits::default() };
    let end = std::time::Instant::now() + Duration::from_secs(30);
    while batch.is_empty() && std::time::Instant::now() < end {
        reader.poll(&mut batch, limits).unwrap();
    }
    let record = batch.iter().next().expect("the record at its position");
    assert_eq!(record.offset, offset);
    let event = EventRef::decode(record.value.unwrap()).unwrap();
    assert_eq!(record.key, event.user.as_bytes());
    assert_eq!(partition, partition_of(UserHash::of(event.user), log.partitions(Topic::EVENTS)));
    assert_eq!(event.received_at_ms, NOW);
    event.to_owned()
}

pub(crate) fn events_of(log: &Log, position: &str) -> (String, i64, Kind) {
    let event = event_at(log, position);
    assert_eq!(event.event_id, None);
    (event.user, event.timestamp_ms, event.kind)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_event_is_at_its_position() {
    let server = Server::start().await;
    let nfc = "n%C3%A4me";
    let nfd = "na%CC%88me";
    let rows: [(String, (&str, i64, Kind)); 10] = [
        ("timestamp=123&user=kek&click".into(), ("kek", 123, Kind::Click)),
        ("timestamp=123&user=kek&click=".into(), ("kek", 123, Kind::Click)),
        ("impression&user=a+b%26&timestamp=0".into(), ("a b&", 0, Kind::Impression)),
        ("timestamp=1&user=x&event=click".into(), ("x", 1, Kind::Click)),
        ("timestamp=1&user=x&event=impression".into(), ("x", 1, Kind::Impression)),
        // 49: both edges of an hour
        ("timestamp=3599999&user=x&click".into(), ("x", 3_599_999, Kind::Click)),
        ("timestamp=3600000&user=x&click".into(), ("x", 3_600_000, Kind::Click)),
        // 29: five minutes ahead, not more
        (format!("timestamp={}&user=x&click", NOW + 300_000), ("x", NOW + 300_000, Kind::Click)),
        // 50: composed and decomposed are two users
        (format!("timestamp=1&user={nfc}&click"), ("n\u{e4}me", 1, Kind::Click)),
        (format!("timestamp=1&user={nfd}&click"), ("na\u{308}me", 1, Kind::Click)),
    ];
    for (query, (user, timestamp, kind)) in rows {
        let answer = server.post(&query).await;
        assert_eq!(answer.status, 204, "{query}: {answer:?}");
        let position = answer.header("millrace-position").unwrap().to_owned();
        let log = server.log.clone();
        let got = tokio::task::spawn_blocking(move || events_of(&log, &position)).await.unwrap();
        assert_eq!(got, (user.to_owned(), timestamp, kind), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pixel_records_an_impression_now() {
    let server = Server::start().await;
    let answer = server.send("GET /pixel.gif?user=kek&utm_source=%zz&click HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!((answer.status, answer.body.len()), (200, 43), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("image/gif"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let position = answer.header("millrace-position").unwrap().to_owned();
    let log = server.log.clone();
    let got = tokio::task::spawn_blocking(move || events_of(&log, &position)).await.unwrap();
    assert_eq!(got, ("kek".to_owned(), NOW, Kind::Impression));

    for (query, code, field) in [
        ("", "missing-field", "user"),
        ("user=%ff", "invalid-encoding", "user"),
        ("user=a&timestamp=x", "invalid-field", "timestamp"),
    ] {
        let answer = server.send(format!("GET /pixel.gif?{query} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str(), answer.json()["field"].as_str()),
            (400, Some(code), Some(field))
        );
    }
    // The response to HEAD has a length and no body.
    let mut stream = server.connect().await;
    let response = stream.exchange("HEAD /pixel.gif?user=kek HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!((response.status, response.header("allow")), (405, Some("GET")));
    assert!(stream.closes().await, "no body follows");
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::start().await;
    let mut stream = server.connect().await;
    // 51
    let request = |i| format!("POST /analytics?timestamp={i}&user=same&click HTTP/1.1\r\nHost: x\r\n\r\n");
    let requests = (0..100).map(request).collect::<Vec<_>>().concat();
    stream.write_all(requests.as_bytes()).await.unwrap();
    let mut offsets = Vec::new();
    for _ in 0..100 {
        let answer = stream.response().await;
        assert_eq!(answer.status, 204);
        let position = answer.header("millrace-position").unwrap();
        offsets.push(position.split_once('@').unwrap().1.parse::<u64>().unwrap());
    }
    assert!(offsets.is_sorted_by(|a, b| a < b), "{offsets:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_completes_requests_under_way_and_closes_connections() {
    let server = Server::start().await;
    let mut idle = server.connect().await;
    assert_eq!(server.post("timestamp=1&user=a&click").await.status, 204);
    let mut half = server.connect().await;
    half.write_all(
        &crate::harness::batch_request("Content-Type: application/x-ndjson\r\nExpect: 100-continue\r\n", "")[..],
    )
    .await
    .unwrap();
    let answer = half.response().await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"[]\n"[..]));
    server.stop.cancel();
    assert!(idle.closes().await && half.closes().await);
    tokio::time::timeout(Duration::from_secs(30), server.task).await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(server.address).await.is_err());
}
