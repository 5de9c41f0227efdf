//! Slow, idle or many clients: their connections end, and other clients are served.

use std::time::Duration;

use millrace_command::Config;

use crate::harness::{Server, short_limits};

const GOOD: &str = "timestamp=1&user=a&click";

#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_and_bodies_get_408_and_a_close() {
    let server = Server::with(Config { limits: short_limits(), ..Config::default() }).await;
    // 42: the last two have sent their head.
    let starts = [
        "POST /ana",
        "POST /analytics?timestamp=1&user=a&click HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        "POST /analytics/batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n[",
        "POST /analytics/batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
    ];
    for start in starts {
        let mut stream = server.connect().await;
        stream.write_all(start.as_bytes()).await.unwrap();
        let answer = stream.response().await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (408, Some("request-timeout")), "{start:?}");
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(stream.closes().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trickling_body_ends_at_its_total_timeout() {
    let server = Server::with(Config { limits: short_limits(), ..Config::default() }).await;
    let mut stream = server.connect().await;
    let head =
        "POST /analytics/batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10000\r\n\r\n[";
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reading, mut writing) = stream.into_stream().into_split();
    let trickle = tokio::spawn(async move {
        while tokio::io::AsyncWriteExt::write_all(&mut writing, b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let mut text = Vec::new();
    let end = tokio::io::AsyncReadExt::read_to_end(&mut reading, &mut text);
    let _ = tokio::time::timeout(Duration::from_secs(30), end).await.unwrap();
    assert!(text.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&text));
    trickle.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_and_idle_connections_are_closed() {
    let server = Server::with(Config { limits: short_limits(), ..Config::default() }).await;
    let mut silent = server.connect().await;
    let mut idle = server.connect().await;
    idle.write_all(format!("POST /analytics?{GOOD} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    assert_eq!(idle.response().await.status, 204);
    assert!(silent.closes().await && idle.closes().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_clients_are_served_beside_thousands_of_idle_and_slow_connections() {
    let server = Server::start().await;
    // Both ends of each connection are file descriptors of this process.
    let files = std::fs::read_to_string("/proc/self/limits").ok();
    let files = files.as_deref().and_then(|text| text.lines().find(|line| line.starts_with("Max open files")));
    let soft = files.and_then(|line| line.split_whitespace().nth(3)?.parse::<usize>().ok()).unwrap_or(1_024);
    let many = (soft.saturating_sub(600) / 2).min(5_000);
    assert!(many >= 200, "too few files are allowed: {soft}");
    let mut held = Vec::new();
    for i in 0..many {
        let mut stream = server.connect().await;
        if i % 2 == 0 {
            stream.write_all(b"POST /analytics?timestamp=1&user=a&cli").await.unwrap();
        }
        held.push(stream);
    }
    for _ in 0..20 {
        assert_eq!(server.post(GOOD).await.status, 204, "beside {many}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_connections_above_the_cap_are_refused_until_idle_ones_are_closed() {
    let mut config = Config::default();
    config.limits.max_connections = 20;
    let server = Server::with(config).await;
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(server.connect().await);
    }
    let refused = server.post(GOOD).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (503, Some("overloaded")), "{refused:?}");
    assert!(refused.header("retry-after").is_some());
    let end = std::time::Instant::now() + Duration::from_secs(30);
    while server.post(GOOD).await.status != 204 {
        assert!(std::time::Instant::now() < end, "no connection was closed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_reads_is_dropped() {
    let mut config = Config::default();
    config.limits.write_timeout = short_limits().head_timeout;
    let server = Server::with(config).await;
    let mut stream = server.connect().await;
    let request = "GET /pixel.gif?user=a HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
    let flood = async { while stream.write_all(request.as_bytes()).await.is_ok() {} };
    tokio::time::timeout(Duration::from_mins(1), flood).await.expect("the connection ends");
    assert_eq!(server.post(GOOD).await.status, 204);
}
