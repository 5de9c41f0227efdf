//! Invalid requests: each gets a problem document with a code and a field.

use millrace_contracts::Hour;
use millrace_query::Tier;

use crate::harness::{NOW_MS, Server, StoreState, totals};

#[tokio::test]
async fn problems_have_the_field() {
    let server = Server::start().await;
    for (query, code, field) in [
        ("", "missing-field", "timestamp"),
        ("?", "missing-field", "timestamp"),
        ("?timestamp=", "invalid-field", "timestamp"),
        ("?timestamp=-1", "invalid-field", "timestamp"),
        ("?timestamp=abc", "invalid-field", "timestamp"),
        (&*format!("?timestamp={}", Hour::MAX.end_ms()), "invalid-field", "timestamp"),
        ("?timestamp=1&timestamp=2", "duplicate-field", "timestamp"),
        ("?timestamp=1&user=kek", "unknown-field", "user"),
        ("?timestamp=%zz", "invalid-encoding", "timestamp"),
        ("?timestamp=%ff", "invalid-encoding", "timestamp"),
    ] {
        let reply = server.get(&format!("/analytics{query}"), &[]).await;
        assert_eq!((reply.status, reply.code(), reply.field()), (400, code.into(), field.into()), "{query}");
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    }
    assert_eq!(server.stores.reads(), 0);
}

#[tokio::test]
async fn the_first_and_last_timestamps_are_valid() {
    let server = Server::start().await;
    server.stores.set(StoreState::Counts(totals(0, 0, 0), Tier::Archive));
    for timestamp in [0, Hour::MAX.end_ms() - 1] {
        assert_eq!(server.get(&format!("/analytics?timestamp={timestamp}"), &[]).await.status, 200);
    }
}

#[tokio::test]
async fn not_acceptable() {
    let server = Server::start().await;
    for accept in ["image/png", "text/plain;q=0", "*/*;q=0"] {
        let reply = server.get(&format!("/analytics?timestamp={NOW_MS}"), &[("accept", accept)]).await;
        assert_eq!((reply.status, reply.code()), (406, "not-acceptable".into()), "{accept}");
    }
}

#[tokio::test]
async fn unknown_routes_and_methods() {
    let server = Server::start().await;
    for path in ["/analytics/", "/analytics/ranges", "/Analytics"] {
        let reply = server.get(path, &[]).await;
        assert_eq!((reply.status, reply.code()), (404, "not-found".into()), "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
        let reply = server.send(method, "/analytics?timestamp=1", &[]).await;
        assert_eq!((reply.status, reply.code()), (405, "method-not-allowed".into()), "{method}");
        assert_eq!(reply.header("allow"), Some("GET,HEAD"), "{method}");
        assert!(String::from_utf8_lossy(&reply.body).contains("the write side (command.listen, "), "{method}");
    }
}
