//! Overload: refused at once, with different times to retry.

use std::collections::HashSet;

use millrace_base::{Size, Span};
use millrace_command::Config;

use crate::harness::{Server, batch_request};

const JSON: &str = "Content-Type: application/json\r\n";

/// Unfinished bodies hold memory for what has arrived. Another body is refused as soon as it exceeds what is left, while
/// single events, which have no body, are accepted; and there is memory again once the bodies are answered.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_under_way_are_bounded_together() {
    let mut config = Config { max_body_memory: Size::from_kib(256), ..Config::default() };
    config.limits.max_body_bytes = Size::from_kib(128);
    config.limits.max_inflated_bytes = Size::from_kib(256);
    // The bodies stay unfinished however slow the machine is.
    (config.limits.body_timeout, config.limits.body_idle_timeout) = (Span::from_secs(600), Span::from_secs(600));
    let server = Server::with(config).await;
    let body = format!("[{}]", " ".repeat(100 << 10));
    let request = batch_request(JSON, &body);
    let mut unfinished = Vec::new();
    for _ in 0..2 {
        let mut stream = server.connect().await;
        stream.write_all(&request[..request.len() - 1]).await.unwrap();
        unfinished.push(stream);
    }
    // A third body before both have arrived would take memory that they need, and one of them would be refused instead.
    server.reaches("millrace_http_body_bytes", 2 * (body.len() as u64 - 1 + (16 << 10))).await;
    let mut times = HashSet::new();
    for _ in 0..100 {
        let response = server.send(&request).await;
        assert_eq!((response.status, response.json()["code"].as_str()), (503, Some("overloaded")), "{response:?}");
        times.insert(response.header("retry-after").unwrap().to_owned());
    }
    assert!(times.len() > 1, "{times:?}");
    assert_eq!(server.post("timestamp=1&user=a&click").await.status, 204);
    for mut stream in unfinished {
        stream.write_all(b"]").await.unwrap();
        assert_eq!(stream.response().await.status, 200);
    }
    server.reaches("millrace_http_body_bytes", 0).await;
    assert_eq!(server.send(&request).await.status, 200);
}

/// A body takes memory when it begins: its request, the decoder's choice and the stream cost the server far more than the
/// few bytes cost the client.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_takes_memory_before_it_arrives() {
    const BEGUN: usize = 16 << 10;
    let mut config = Config { max_body_memory: Size::from_kib(256), ..Config::default() };
    (config.limits.body_timeout, config.limits.body_idle_timeout) = (Span::from_secs(600), Span::from_secs(600));
    let server = Server::with(config).await;
    let request = batch_request(JSON, "[ ]");
    let mut begun = Vec::new();
    for _ in 0..15 {
        let mut stream = server.connect().await;
        stream.write_all(&request[..request.len() - 2]).await.unwrap();
        begun.push(stream);
    }
    server.reaches("millrace_http_body_bytes", 15 * (BEGUN as u64 + 1)).await;
    let response = server.send(&request).await;
    assert_eq!((response.status, response.json()["code"].as_str()), (503, Some("overloaded")), "{response:?}");
    drop(begun);
    server.reaches("millrace_http_body_bytes", 0).await;
    assert_eq!(server.send(&request).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_above_the_cap_are_refused_at_once_with_different_times() {
    let mut config = Config::default();
    config.limits.max_in_flight = 0;
    let server = Server::with(config).await;
    let mut times = HashSet::new();
    for _ in 0..100 {
        let answer = server.post("timestamp=1&user=a&click").await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("overloaded")), "{answer:?}");
        times.insert(answer.header("retry-after").unwrap().to_owned());
    }
    assert!(times.len() > 1, "{times:?}");
    // Requests with a body have a bound of their own, so that slow ones do not use up this one.
    let batch = batch_request(JSON, r#"[{"timestamp":1,"user":"a","event":"click"}]"#);
    assert_eq!(server.send(&batch).await.status, 200);
    // A client that retries at once on its connection waits: the responses are a pause apart.
    let mut stream = server.connect().await;
    let begin = std::time::Instant::now();
    stream.write_all("GET /pixel.gif?user=a HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2).as_bytes()).await.unwrap();
    for _ in 0..2 {
        assert_eq!(stream.response().await.status, 503);
    }
    assert!(begin.elapsed() >= std::time::Duration::from_millis(990), "{:?}", begin.elapsed());
}
