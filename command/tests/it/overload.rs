//! More than there is room for: refused at once, and asked back at different times.

use std::collections::HashSet;

use millrace_base::Size;
use millrace_command::Config;

use crate::harness::{Server, batch_request};

const JSON: &str = "Content-Type: application/json\r\n";

/// Bodies that never end hold what they have sent. The next one is refused as soon as it passes what is left, while single
/// events, which have no body, go on; and there is room again when the bodies are gone.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_under_way_are_bounded_together() {
    let mut config = Config { max_body_memory: Size(256 << 10), ..Config::default() };
    config.limits.max_body_bytes = Size(128 << 10);
    config.limits.max_inflated_bytes = Size(256 << 10);
    let server = Server::with(config).await;
    let whole = format!("[{}]", " ".repeat(100 << 10));
    let request = batch_request(JSON, &whole);
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = server.connect().await;
        stream.write_all(&request[..request.len() - 1]).await.unwrap();
        held.push(stream);
    }
    // When both are held is not to be seen from here: the third is refused from then on.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let mut times = HashSet::new();
    while times.len() < 2 {
        assert!(std::time::Instant::now() < end, "refused with these only: {times:?}");
        let answer = server.send(&request).await;
        if answer.status == 503 {
            assert_eq!(answer.json()["code"], "overloaded", "{answer:?}");
            times.insert(answer.header("retry-after").unwrap().to_owned());
        }
    }
    assert_eq!(server.post("timestamp=1&user=a&click").await.status, 204);
    for mut stream in held {
        stream.write_all(b"]").await.unwrap();
        assert_eq!(stream.response().await.status, 200);
    }
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
    // Bodies have a bound of their own: slow ones take nobody's place.
    let batch = batch_request(JSON, r#"[{"timestamp":1,"user":"a","event":"click"}]"#);
    assert_eq!(server.send(&batch).await.status, 200);
    // A client that asks again at once on its connection is left waiting: the answers are a pause apart.
    let mut stream = server.connect().await;
    let begin = std::time::Instant::now();
    stream.write_all("GET /pixel.gif?user=a HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2).as_bytes()).await.unwrap();
    for _ in 0..2 {
        assert_eq!(stream.response().await.status, 503);
    }
    assert!(begin.elapsed() >= std::time::Duration::from_millis(990), "{:?}", begin.elapsed());
}
