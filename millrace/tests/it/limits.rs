//! Limits of principals, from the outside.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use millrace_testkit::{Connection, Response, free_port, http, http_get, wait_until};

use crate::auth::{Keys, bearer};
use crate::auth_tools::tcp;
use crate::run::{WITHIN, stderr, tool};

const BATCH: &str = "/analytics/batch";
const EVENT: &str = "/analytics?timestamp=1&user=a&click";
const HOUR: &str = "/analytics?timestamp=1";

/// So many events, in so many bytes each.
fn batch(events: usize, bytes: usize) -> String {
    let line = |n: usize| {
        let line = format!("{{\"timestamp\":1,\"user\":\"u{n}\",\"event\":\"click\"}}");
        format!("{line:<width$}\n", width = bytes - 1)
    };
    (0..events).map(line).collect::<Vec<_>>().concat()
}

fn send(address: SocketAddr, method: &str, path: &str, key: &str, body: &str) -> Response {
    let headers = [("authorization", &*bearer(key)), ("content-type", "application/x-ndjson")];
    http(address, method, path, &headers, body).unwrap()
}

/// The seconds of Retry-After of a request beyond its limits, and its `RateLimit`.
fn limited(response: &Response) -> (u64, String) {
    assert_eq!((response.status, &*response.code()), (429, "rate-limited"), "{response:?}");
    let limit = response.header("ratelimit").unwrap().to_owned();
    (response.header("retry-after").unwrap().parse().unwrap(), limit)
}

#[test]
fn a_batch_is_paid_off_event_by_event() {
    let keys = Keys::new();
    let scopes = ["events:write", "counts:read"];
    let (shop, other) = (keys.create("shop", &scopes), keys.create("other", &scopes));
    let publisher = keys.create("shop", &["topics:publish"]);
    let free = keys.create_with("free", &scopes, &["--max-event-rate", "0"]);
    let up = keys.up_with(&[("auth.limits.max_event_rate", "2")]);
    let accepted = send(up.command, "POST", BATCH, &shop, &batch(900, 64));
    assert_eq!(accepted.status, 200);
    assert_eq!(accepted.header("ratelimit-policy"), Some("\"events\";q=2;w=1;qu=\"events\""));
    // 900 events are 450 seconds.
    let messages = "/v1/topics/t/messages";
    for (path, key, body) in [(EVENT, &shop, ""), (BATCH, &shop, &*batch(1, 64)), (messages, &publisher, "x")] {
        let response = send(up.command, "POST", path, key, body);
        let (retry, limit) = limited(&response);
        let reset: u64 = limit.strip_prefix("\"events\";r=0;t=").unwrap().parse().unwrap();
        assert!(retry >= reset && (100..=450).contains(&reset), "{retry} {limit}");
        assert!(response.text().contains("more than 2 events a second"), "{}", response.text());
    }
    let hour = send(up.query, "GET", HOUR, &shop, "");
    assert_eq!((hour.status, hour.header("ratelimit").is_some()), (200, true), "reads have no events");
    assert_eq!(send(up.command, "POST", EVENT, &other, "").status, 204, "another principal");
    assert_eq!(send(up.command, "POST", BATCH, &free, &batch(900, 64)).status, 200);
    let response = send(up.command, "POST", EVENT, &free, "");
    assert_eq!((response.status, response.header("ratelimit")), (204, None), "a key without limits");
    assert_eq!(up.metric("millrace_auth_rate_limited_total{limit=\"events\"}"), 3);
}

#[test]
fn requests_and_bytes_have_rates_of_their_own() {
    let keys = Keys::new();
    let scopes = ["events:write", "counts:read"];
    let calls = keys.create_with("calls", &scopes, &["--max-request-rate", "1"]);
    let bytes = keys.create_with("bytes", &scopes, &["--max-byte-rate", "1KiB"]);
    let chunks = keys.create_with("chunks", &scopes, &["--max-byte-rate", "1KiB"]);
    let up = keys.up();
    let mut response = send(up.query, "GET", HOUR, &calls, "");
    assert!(wait_until(WITHIN, || {
        response = send(up.query, "GET", HOUR, &calls, "");
        response.status == 429
    }));
    let (retry, limit) = limited(&response);
    assert!(limit.starts_with("\"requests\";r=") && limit.ends_with(";t=1"), "{limit}");
    assert_eq!(response.header("ratelimit-policy"), Some("\"requests\";q=1;w=1"));
    assert!((1..=2).contains(&retry), "{retry}");

    // 200 KiB are 200 seconds, whether the length is announced or not.
    let body = batch(200, 1024);
    assert_eq!(send(up.command, "POST", BATCH, &bytes, &body).status, 200);
    let head = format!(
        "POST {BATCH} HTTP/1.1\r\nhost: localhost\r\nauthorization: {}\r\ncontent-type: application/x-ndjson\r\n\
         transfer-encoding: chunked\r\n\r\n",
        bearer(&chunks)
    );
    let chunked = format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let mut connection = Connection::open(up.command, WITHIN).unwrap();
    assert_eq!(connection.exchange(chunked).unwrap().status, 200);
    for key in [&bytes, &chunks] {
        let (retry, limit) = limited(&send(up.command, "POST", BATCH, key, &batch(1, 64)));
        assert!(retry > 100 && limit.starts_with("\"bytes\";r=0;t="), "{retry} {limit}");
        assert_eq!(send(up.command, "POST", EVENT, key, "").status, 204, "it has no body");
    }
}

#[test]
fn requests_without_the_scope_count_too() {
    let keys = Keys::new();
    let key = keys.create_with("reader", &["counts:read"], &["--max-request-rate", "1"]);
    let up = keys.up_with(&[("topics.legacy.enabled", "true")]);
    for path in [EVENT, "/legacy/topic/register/t"] {
        let post = || send(up.command, "POST", path, &key, "");
        let mut refused = post();
        assert!(wait_until(WITHIN, || {
            refused = post();
            assert!([403, 429].contains(&refused.status), "{path}: {refused:?}");
            assert_eq!(refused.header("ratelimit-policy"), Some("\"requests\";q=1;w=1"), "{path}");
            refused.status == 429
        }));
        assert!(refused.header("retry-after").is_some(), "{path}: {refused:?}");
    }
}

#[test]
fn nobody_is_locked_out_by_failures_of_the_same_address() {
    let keys = Keys::new();
    let key = keys.create("desk", &["counts:read"]);
    let gone = keys.create("gone", &["counts:read"]);
    keys.revoke("gone");
    let up = keys.up_with(&[("auth.max_failure_rate_per_ip", "1")]);
    for headers in [&[][..], &[("authorization", &*bearer(&gone))]] {
        let get = || http(up.query, "GET", HOUR, headers, "").unwrap();
        let mut refused = get();
        assert!(wait_until(WITHIN, || {
            refused = get();
            assert!([401, 429].contains(&refused.status), "{refused:?}");
            refused.status == 429
        }));
        assert_eq!((&*refused.code(), refused.header("retry-after").is_some()), ("rate-limited", true));
        assert_eq!(send(up.query, "GET", HOUR, &key, "").status, 200);
    }
    let admin = http_get(up.admin, "/metrics").unwrap();
    assert_eq!(admin.status, 200);
    assert!(up.metric("millrace_auth_denied_total{reason=\"rate-limited\"}") >= 2);
}

#[test]
fn a_tcp_session_is_read_more_slowly_and_refused_only_after_long() {
    let keys = Keys::new();
    let sensor = keys.create_with("sensor", &["intake:write"], &["--max-event-rate", "1"]);
    let pump = keys.create_with("pump", &["intake:write"], &["--max-event-rate", "1"]);
    let tcp = tcp(&keys);
    let session = |key: &str, frames: u64| {
        let mut stream = TcpStream::connect(tcp.server).unwrap();
        stream.set_read_timeout(Some(WITHIN)).unwrap();
        let frames = (1..=frames).map(|n| format!("s {n} 1\nx\n")).collect::<Vec<_>>().concat();
        stream.write_all(format!("HELLO s token={key}\n{frames}").as_bytes()).unwrap();
        let replies = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
        (stream, replies)
    };
    let began = Instant::now();
    let (mut stream, mut replies) = session(&sensor, 4);
    assert!(replies.next().unwrap().starts_with("OK "));
    for n in 1..=4 {
        assert_eq!(replies.next().unwrap(), format!("ACK {n}"), "what was read is accepted");
    }
    stream.write_all(b"PING\n").unwrap();
    assert_eq!(replies.next().unwrap(), "PONG");
    assert!(began.elapsed() >= Duration::from_secs(4), "nothing is read until four events are paid off");

    let (mut stream, mut replies) = session(&pump, 500);
    assert_eq!(replies.by_ref().take(501).filter(|line| line.starts_with("ACK ")).count(), 500);
    stream.write_all(b"s 501 1\nx\ns 502 1\nx\nPING\n").unwrap();
    assert_eq!(replies.next().unwrap(), "NACK 501 429 rate-limited retry_ms=10000");
    assert_eq!(replies.next().unwrap(), "NACK 502 409 behind");
    assert_eq!(replies.next().unwrap(), "PONG");
}

#[test]
fn listeners_behind_a_balancer_take_the_address_from_its_header() {
    let keys = Keys::new();
    let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let up = keys.up_with(&[
        ("auth.max_failure_rate_per_ip", "1"),
        ("proxies.trusted_networks", "[\"127.0.0.0/8\"]"),
        ("query.proxy_protocol", "true"),
        ("command.tcp.enabled", "true"),
        ("command.tcp.listen", &listen.to_string()),
        ("command.tcp.proxy_protocol", "true"),
    ]);
    let header = |last: u8| {
        [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(), &[192, 0, 2, last, 127, 0, 0, 1, 0, 9, 0, 9]].concat()
    };
    let exchange = |server: SocketAddr, input: &[&[u8]]| {
        let mut stream = TcpStream::connect(server).unwrap();
        stream.set_read_timeout(Some(WITHIN)).unwrap();
        stream.write_all(&input.concat()).unwrap();
        let mut answer = String::new();
        // A connection that is closed with input unread may be reset.
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    let request = b"GET /status HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".as_slice();
    let get = |last| exchange(up.query, &[&header(last), request]);
    assert!(get(1).starts_with("HTTP/1.1 401 "), "{}", get(1));
    assert!(wait_until(WITHIN, || get(1).starts_with("HTTP/1.1 429 ")));
    assert!(get(2).starts_with("HTTP/1.1 401 "), "another client of the same balancer");
    assert_eq!(exchange(up.query, &[request]), "", "no header");
    assert_eq!(exchange(listen, &[&header(3), b"PING\n"]), "NACK 0 401 unauthenticated\n");
    assert_eq!(exchange(listen, &[b"PING\n", &[b'x'; 16]]), "");
    assert_eq!(up.metric("millrace_http_connections_refused_total{reason=\"proxy\"}"), 1);
    assert_eq!(up.metric("millrace_tcp_refused_total{reason=\"proxy\"}"), 1);
    let output = tool(&["check-config", "--set", "query.proxy_protocol=true"]).output().unwrap();
    assert!(!output.status.success() && stderr(&output).contains("proxies.trusted_networks"), "{}", stderr(&output));
}
