//! One event in a body: every form, how it joins the query string, and what is refused.

use millrace_contracts::Kind;
use millrace_testkit::request;

use crate::accepted::event_at;
use crate::harness::{NOW, Server};

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const SERVED: &str = "application/json, application/x-www-form-urlencoded, application/cloudevents+json";

#[tokio::test(flavor = "multi_thread")]
async fn an_event_comes_from_query_and_body_together() {
    let server = Server::start().await;
    #[rustfmt::skip]
    let rows = [
        ("", JSON, r#"{"timestamp":123,"user":"k","event":"click","event_id":"e1"}"#, ("k", 123, Kind::Click, Some("e1"))),
        ("", JSON, r#"{"user":"n\u00e4me","event":"impression"}"#, ("n\u{e4}me", NOW, Kind::Impression, None)),
        ("", "Application/JSON; Charset=\"UTF-8\"", r#" {"event":"click","user":"k"} "#, ("k", NOW, Kind::Click, None)),
        ("user=k&click", JSON, "{}", ("k", NOW, Kind::Click, None)),
        ("user=k", JSON, r#"{"event":"click","timestamp":5}"#, ("k", 5, Kind::Click, None)),
        ("timestamp=5&event_id=e", JSON, r#"{"event":"click","user":"k"}"#, ("k", 5, Kind::Click, Some("e"))),
        ("", "application/json; charset=us-ascii", r#"{"event":"click","user":"k"}"#, ("k", NOW, Kind::Click, None)),
        ("", "application/x-www-form-urlencoded; charset=utf-8", "user=k&click", ("k", NOW, Kind::Click, None)),
        ("", FORM, "timestamp=123&user=a+b%26&click", ("a b&", 123, Kind::Click, None)),
        ("", FORM, "user=k&impression=&event_id=%C3%A4", ("k", NOW, Kind::Impression, Some("\u{e4}"))),
        ("click", FORM, "user=k", ("k", NOW, Kind::Click, None)),
    ];
    for (query, media, body, (user, timestamp, kind, id)) in rows {
        let answer = server.post_body(query, media, body).await;
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{query} {body}: {answer:?}");
        let (log, position) = (server.log.clone(), answer.header("millrace-position").unwrap().to_owned());
        let event = tokio::task::spawn_blocking(move || event_at(&log, &position)).await.unwrap();
        let got = (&*event.user, event.timestamp_ms, event.kind, event.event_id.as_deref());
        assert_eq!(got, (user, timestamp, kind, id), "{query} {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_body_is_none() {
    let server = Server::start().await;
    let query = "/analytics?timestamp=1&user=a&click";
    for fields in ["Content-Length: 0\r\n", "Content-Type: text/plain\r\nContent-Length: 0\r\n"] {
        let answer = server.send(format!("POST {query} HTTP/1.1\r\nHost: x\r\n{fields}\r\n")).await;
        assert_eq!(answer.status, 204, "{answer:?}");
    }
    // Its length is known only at its end.
    let chunked = "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let answer = server.send(format!("POST {query} HTTP/1.1\r\nHost: x\r\n{chunked}")).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    let answer = server.send(format!("POST /analytics?user=a&click HTTP/1.1\r\nHost: x\r\n{chunked}")).await;
    assert_eq!((answer.status, answer.json()["field"].as_str()), (400, Some("timestamp")), "{answer:?}");
}

/// Query, media type and body; status, code and field of the refusal.
type Row<'a> = (&'a str, &'a str, &'a [u8], u16, &'a str, &'a str);

#[tokio::test(flavor = "multi_thread")]
async fn bad_bodies_are_refused_by_name() {
    let server = Server::start().await;
    let long = format!(r#"{{"user":"{}","event":"click"}}"#, "u".repeat(257));
    let nested = "[".repeat(100_000);
    let long_body = vec![b' '; (1 << 20) + 1];
    #[rustfmt::skip]
    let rows: &[Row] = &[
        ("user=a", JSON, br#"{"user":"a","event":"click"}"#, 400, "duplicate-field", "user"),
        ("timestamp=1", FORM, b"timestamp=1&user=a&click", 400, "duplicate-field", "timestamp"),
        ("event_id=1", JSON, br#"{"user":"a","event":"click","event_id":"1"}"#, 400, "duplicate-field", "event_id"),
        ("event=click", JSON, br#"{"user":"a","event":"click"}"#, 400, "duplicate-field", "event"),
        ("click", JSON, br#"{"user":"a","event":"click"}"#, 400, "duplicate-field", "event"),
        ("click", FORM, b"user=a&click", 400, "duplicate-field", "event"),
        ("", FORM, b"user=a&user=a&click", 400, "duplicate-field", "user"),
        ("", FORM, b"user=a&click&impression", 400, "duplicate-field", "event"),
        ("", JSON, br#"{"user":"a","user":"a","event":"click"}"#, 400, "duplicate-field", "user"),
        ("", JSON, br#"{"event":"click"}"#, 400, "missing-field", "user"),
        ("", JSON, br#"{"user":"a"}"#, 400, "missing-field", "event"),
        ("", FORM, b"x", 400, "unknown-field", "x"),
        ("", JSON, br#"{"user":"a","event":"click","x":1}"#, 400, "unknown-field", "x"),
        ("", JSON, br#"{"user":"a","click":""}"#, 400, "unknown-field", "click"),
        ("x=1", JSON, br#"{"user":"a","event":"click"}"#, 400, "unknown-field", "x"),
        ("", JSON, br#"{"timestamp":"1","user":"a","event":"click"}"#, 400, "invalid-field", "timestamp"),
        ("", JSON, br#"{"timestamp":null,"user":"a","event":"click"}"#, 400, "invalid-field", "timestamp"),
        ("", JSON, br#"{"timestamp":1.5,"user":"a","event":"click"}"#, 400, "invalid-field", "timestamp"),
        ("", JSON, br#"{"timestamp":-1,"user":"a","event":"click"}"#, 400, "invalid-field", "timestamp"),
        ("", JSON, br#"{"user":7,"event":"click"}"#, 400, "invalid-field", "user"),
        ("", JSON, br#"{"user":"","event":"click"}"#, 400, "invalid-field", "user"),
        ("", JSON, br#"{"user":"a\u0000","event":"click"}"#, 400, "invalid-field", "user"),
        ("", JSON, long.as_bytes(), 400, "invalid-field", "user"),
        ("", JSON, br#"{"user":"a","event":"Click"}"#, 400, "invalid-field", "event"),
        ("", FORM, b"user=a&event=click\n", 400, "invalid-field", "event"),
        ("", JSON, br#"{"user":"\ud800","event":"click"}"#, 400, "invalid-encoding", "user"),
        ("", JSON, b"{\"user\":\"\xff\",\"event\":\"click\"}", 400, "invalid-encoding", ""),
        ("", FORM, b"user=\xff&click", 400, "invalid-encoding", ""),
        ("", FORM, b"user=%ff&click", 400, "invalid-encoding", "user"),
        ("", FORM, b"user=%zz&click", 400, "invalid-encoding", "user"),
        ("", JSON, br#"[{"user":"a","event":"click"}]"#, 400, "malformed-body", ""),
        ("", JSON, br#"{"user":"a","event":"click"} x"#, 400, "malformed-body", ""),
        ("", JSON, br#"{"user":"a","event":"cl"#, 400, "malformed-body", ""),
        ("", JSON, "\u{feff}{}".as_bytes(), 400, "malformed-body", ""),
        ("", JSON, nested.as_bytes(), 400, "malformed-body", ""),
        ("", JSON, br#"{"timestamp":9223372036854775807,"user":"a","event":"click"}"#, 422, "outside-window", "timestamp"),
        ("", JSON, &long_body, 413, "too-large", ""),
        ("timestamp=1&user=a&click", "text/plain", b"x", 415, "unsupported-media-type", "content-type"),
        ("", "application/x-ndjson", br#"{"user":"a","event":"click"}"#, 415, "unsupported-media-type", "content-type"),
        ("", "application/x-www-form-urlencoded; charset=latin1", b"user=a&click", 415, "unsupported-media-type", "content-type"),
        ("", "application/json; charset=utf-16", br#"{"user":"a","event":"click"} "#, 400, "invalid-encoding", ""),
        ("", "application/json; charset=ebcdic", br#"{"user":"a","event":"click"}"#, 415, "unsupported-media-type", "content-type"),
    ];
    for &(query, media, body, status, code, field) in rows {
        let answer = server.post_body(query, media, body).await;
        let problem = answer.json();
        let got = (
            answer.status,
            problem["code"].as_str().unwrap_or_default(),
            problem["field"].as_str().unwrap_or_default(),
        );
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]);
        assert_eq!(got, (status, code, field), "{query} {media} {shown}: {answer:?}");
        assert_eq!(answer.header("accept-post"), (status == 415).then_some(SERVED), "{answer:?}");
        assert!(problem["detail"].as_str().unwrap().chars().count() < 200, "{answer:?}");
    }
    let answer = server.send(request("POST", "/analytics", &[], "user=a&click")).await;
    assert_eq!((answer.status, answer.header("accept-encoding")), (415, Some("gzip, br, zstd")), "{answer:?}");
    let answer = server.send(request("POST", "/analytics", &[("Content-Encoding", "lzma")], "x")).await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (415, Some("unsupported-encoding")), "{answer:?}");
    assert_eq!(server.answered("accepted"), 0, "nothing of it counts");
}
