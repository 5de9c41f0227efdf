//! Responses to a read of an hour: counts, representations, caching headers.

use std::time::Duration;

use millrace_contracts::Exactness;
use millrace_query::Tier;

use crate::harness::{HOUR_MS, NOW_MS, Server, StoreState, sorted_headers, totals};

/// The JSON body with the counts of [`serving`].
fn json(tier: &str) -> String {
    format!(
        r#"{{"unique_users":7,"clicks":5,"impressions":11,"as_of":"2026-11-21T08:30:00Z","exactness":"exact","tier":"{tier}","stale":false}}"#
    ) + "\n"
}

const TEXT: &str = "unique_users,7\nclicks,5\nimpressions,11\n";

async fn serving() -> Server {
    let server = Server::start().await;
    server.stores.set(StoreState::Counts(totals(7, 5, 11), Tier::Redis));
    server
}

#[tokio::test]
async fn three_representations() {
    let server = serving().await;
    for (timestamp, tier) in [(NOW_MS, "memory"), (NOW_MS - 3 * HOUR_MS, "redis")] {
        for (accept, content_type, body) in [
            (None, "text/plain; charset=utf-8", TEXT),
            (Some("*/*"), "text/plain; charset=utf-8", TEXT),
            (Some("text/plain"), "text/plain; charset=utf-8", TEXT),
            (Some("application/json"), "application/json", &json(tier)),
            (Some("text/csv"), "text/csv; charset=utf-8; header=present", "unique_users,clicks,impressions\n7,5,11\n"),
            (Some("text/csv;q=0.1, application/*;q=0.2, image/png"), "application/json", &json(tier)),
        ] {
            let headers: Vec<_> = accept.map(|accept| ("accept", accept)).into_iter().collect();
            let reply = server.get(&format!("/analytics?timestamp={timestamp}"), &headers).await;
            assert_eq!((reply.status, reply.text()), (200, body), "{accept:?}");
            assert_eq!(reply.header("content-type"), Some(content_type));
            assert_eq!(reply.header("vary"), Some("Accept, Millrace-Min-Position"));
            assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        }
    }
}

#[tokio::test]
async fn headers_report_freshness() {
    let server = serving().await;
    let reply = server.get(&format!("/analytics?timestamp={NOW_MS}"), &[]).await;
    assert_eq!(reply.header("millrace-tier"), Some("memory"));
    assert_eq!(reply.header("millrace-exactness"), Some("exact"));
    assert_eq!(reply.header("millrace-as-of"), Some("2026-11-21T08:30:00Z"));
    assert_eq!(reply.header("millrace-stale"), None);
    assert_eq!(reply.header("millrace-unique-users-error"), None);
    assert_eq!(reply.header("age"), None);
    assert_eq!(reply.header("cache-control"), Some("max-age=1, must-revalidate"));

    let mut approximate = totals(7, 5, 11);
    approximate.exactness = Exactness::Approximate;
    for tier in [Tier::Redis, Tier::Archive] {
        server.stores.set(StoreState::Counts(approximate, tier));
        let reply = server.get(&format!("/analytics?timestamp={}", NOW_MS - HOUR_MS), &[]).await;
        assert_eq!(reply.header("millrace-tier"), Some(tier.as_str()));
        assert_eq!(reply.header("millrace-exactness"), Some("approximate"));
        assert_eq!(reply.header("millrace-unique-users-error"), Some("0.0081"));
        assert_eq!(reply.header("cache-control"), Some("max-age=60, must-revalidate"));
    }
    let future = server.get(&format!("/analytics?timestamp={}", NOW_MS + HOUR_MS), &[]).await;
    assert_eq!(future.header("cache-control"), Some("max-age=1, must-revalidate"));
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let server = serving().await;
    for timestamp in [NOW_MS, 123] {
        let target = format!("/analytics?timestamp={timestamp}");
        let get = server.get(&target, &[]).await;
        let head = server.send("HEAD", &target, &[]).await;
        assert_eq!(head.status, 200);
        assert_eq!(head.body, b"");
        assert_eq!(get.header("content-length"), Some("39"));
        assert_eq!(sorted_headers(&head), sorted_headers(&get));
    }
    let head = server.send("HEAD", "/analytics?timestamp=x", &[]).await;
    assert_eq!((head.status, &*head.body), (400, &b""[..]));
}

#[tokio::test]
async fn if_none_match_of_the_same_representation_is_a_304() {
    let server = serving().await;
    for timestamp in [NOW_MS, 123] {
        let target = format!("/analytics?timestamp={timestamp}");
        let text = server.get(&target, &[]).await.header("etag").unwrap().to_owned();
        let json = server.get(&target, &[("accept", "application/json")]).await.header("etag").unwrap().to_owned();
        assert_ne!(text, json, "representations have tags of their own");
        assert!(text.starts_with('"'), "strong");
        for (tag, status) in [
            (text.clone(), 304),
            (format!("W/{text}"), 304),
            (format!("\"other\", {text}"), 304),
            ("*".to_owned(), 304),
            (json, 200),
            ("\"other\"".to_owned(), 200),
            (text.replace('"', ""), 200),
        ] {
            let reply = server.get(&target, &[("if-none-match", &tag)]).await;
            assert_eq!(reply.status, status, "{tag}");
            assert_eq!(reply.header("etag"), Some(&*text));
            assert_eq!(reply.header("vary"), Some("Accept, Millrace-Min-Position"));
            assert!(reply.header("cache-control").is_some());
            if status == 304 {
                assert_eq!((&*reply.body, reply.header("content-type")), (&b""[..], None));
            }
        }
    }
    let target = "/analytics?timestamp=123";
    let before = server.get(target, &[]).await.header("etag").unwrap().to_owned();
    server.stores.set(StoreState::Counts(totals(7, 5, 12), Tier::Redis));
    let after = server.get(target, &[("if-none-match", &before)]).await;
    assert_eq!((after.status, after.text()), (200, "unique_users,7\nclicks,5\nimpressions,12\n"));
    assert_ne!(after.header("etag"), Some(&*before));
}

#[tokio::test]
async fn if_none_match_of_json_ignores_freshness() {
    let server = serving().await;
    let json = [("accept", "application/json")];
    for (timestamp, tier) in [(NOW_MS, Tier::Redis), (123, Tier::Archive)] {
        let target = format!("/analytics?timestamp={timestamp}");
        let cached = server.get(&target, &json).await;
        server.clock.advance(60_000);
        server.stores.set(StoreState::Counts(totals(7, 5, 11), tier));
        let now = server.get(&target, &json).await;
        assert_ne!(cached.body, now.body);
        assert_ne!(cached.header("etag"), now.header("etag"), "strong: different bodies have different tags");

        let etag = cached.header("etag").unwrap();
        let reply = server.get(&target, &[json[0], ("if-none-match", etag)]).await;
        assert_eq!((reply.status, reply.header("etag")), (304, Some(etag)));
        assert_eq!(reply.header("millrace-as-of"), now.header("millrace-as-of"), "the 304 refreshes the header");
        server.stores.set(StoreState::Counts(totals(7, 5, 11), Tier::Redis));
    }
    let cached = server.get(&format!("/analytics?timestamp={NOW_MS}"), &json).await;
    server.stores.set(StoreState::Unavailable);
    server.clock.advance(1_000);
    let etag = cached.header("etag").unwrap();
    let stale = server.get(&format!("/analytics?timestamp={NOW_MS}"), &[json[0], ("if-none-match", etag)]).await;
    assert_eq!(
        (stale.status, stale.header("millrace-stale")),
        (200, Some("true")),
        "the cached body is not marked stale"
    );
}

#[tokio::test]
async fn reads_have_the_time_up_to_which_they_count() {
    let server = serving().await;
    let target = format!("/analytics?timestamp={}", NOW_MS - HOUR_MS);
    let json = [("accept", "application/json")];
    let before = server.get(&target, &json).await;
    assert_eq!(before.header("millrace-counted-up-to"), None, "not known");
    assert!(!before.text().contains("counted_up_to"), "{}", before.text());
    server.stores.count_up_to(Some(NOW_MS - 1_500));
    let after = server.get(&target, &json).await;
    assert_eq!(after.header("millrace-counted-up-to"), Some("2026-11-21T08:29:58.5Z"));
    assert!(after.text().contains(r#""counted_up_to":"2026-11-21T08:29:58.5Z""#), "{}", after.text());
    assert_ne!(before.header("etag"), after.header("etag"), "another body");
    let range = server.get(&format!("/analytics/range?from={}&to={NOW_MS}", NOW_MS - HOUR_MS), &[]).await;
    assert_eq!(range.header("millrace-counted-up-to"), Some("2026-11-21T08:29:58.5Z"));
}

#[tokio::test]
async fn a_range_is_counted_no_further_than_the_current_hour_in_memory() {
    let server = serving().await;
    server.stores.count_up_to(Some(NOW_MS - 1_500));
    assert_eq!(server.get(&format!("/analytics?timestamp={NOW_MS}"), &[]).await.status, 200);
    // No time passes, so the current hour is not read again. It is not in the first chunk of the range.
    server.stores.count_up_to(Some(NOW_MS - 500));
    let range = server.get(&format!("/analytics/range?from={}&to={NOW_MS}", NOW_MS - 300 * HOUR_MS), &[]).await;
    assert_eq!(range.header("millrace-counted-up-to"), Some("2026-11-21T08:29:58.5Z"));
}

#[tokio::test]
async fn a_read_requires_the_events_of_its_position() {
    let server = serving().await;
    for (timestamp, range) in [(NOW_MS, false), (NOW_MS - HOUR_MS, false), (NOW_MS - HOUR_MS, true)] {
        let path = if range {
            format!("/analytics/range?from={timestamp}&to={}", timestamp + 1)
        } else {
            format!("/analytics?timestamp={timestamp}")
        };
        let target = format!("{path}&min-position=millrace.analytics.events/0@7,3@9&wait=250ms");
        server.stores.reach(true);
        assert_eq!(server.get(&target, &[]).await.status, 200, "{target}");
        assert!(server.stores.waited().is_some());
        server.stores.reach(false);
        let early = server.get(&target, &[]).await;
        assert_eq!((early.status, early.code()), (503, "not-yet-visible".to_owned()), "{target}");
        assert!(early.header("retry-after").is_some());
        assert_eq!(server.stores.waited(), Some(Duration::from_millis(250)));
        let stale = server.get(&format!("{target}&stale=ok"), &[("accept", "application/json")]).await;
        assert_eq!((stale.status, stale.header("cache-control")), (200, Some("no-store")), "{target}");
        assert!(stale.text().contains(r#""stale":true"#), "{}", stale.text());
        let header = [("millrace-min-position", "millrace.analytics.events/1@1")];
        server.stores.waited();
        assert_eq!(server.get(&path, &header).await.status, 503, "as a header");
        assert_eq!(server.stores.waited(), Some(Duration::from_secs(1)), "the default");
        assert_eq!(server.get(&path, &[]).await.status, 200, "without a position");
    }
    // The last read is that of a live hour.
    server.stores.reach(true);
    let live = format!("/analytics/range?from={NOW_MS}&to={}", NOW_MS + 1);
    let target = format!("{live}&min-position=millrace.analytics.events/0@7&wait=10s");
    assert_eq!(server.get(&target, &[]).await.status, 200);
    let waited = server.stores.waited().unwrap();
    assert!(waited > Duration::ZERO && waited < Duration::from_secs(10), "the rest of the wait: {waited:?}");
    for (query, field) in [
        ("min-position=0@1", "min-position"),
        ("min-position=other/0@1", "min-position"),
        ("min-position=millrace.analytics.events/4@1", "min-position"),
        ("wait=11s", "wait"),
        ("stale=yes", "stale"),
    ] {
        let refused = server.get(&format!("/analytics?timestamp=1&{query}"), &[]).await;
        assert_eq!((refused.status, refused.code()), (400, "invalid-field".to_owned()), "{query}");
        assert!(refused.text().contains(&format!(r#""field":"{field}""#)), "{}", refused.text());
    }
}

#[tokio::test]
async fn readyz_shows_that_counting_stopped_and_stays_ready() {
    let server = serving().await;
    let text = "counting stopped 40 s ago, 16,000 events waiting";
    server.stores.show(Some(text));
    let ready = server.get("/readyz", &[]).await;
    assert_eq!((ready.status, ready.text()), (200, &*format!("ready\nwarning: query: {text}\n")));
    server.stores.show(None);
    assert_eq!(server.get("/readyz", &[]).await.text(), "ready\n");
}

#[tokio::test]
async fn an_hour_is_not_compressed() {
    let server = serving().await;
    let reply = server.get(&format!("/analytics?timestamp={NOW_MS}"), &[("accept-encoding", "gzip, br, zstd")]).await;
    assert_eq!((reply.header("content-encoding"), reply.text()), (None, TEXT));
}

#[tokio::test]
async fn zeros_only_from_a_complete_store() {
    let server = Server::start().await;
    server.stores.set(StoreState::Counts(totals(0, 0, 0), Tier::Archive));
    let zeros = server.get("/analytics?timestamp=0", &[]).await;
    assert_eq!((zeros.status, zeros.text()), (200, "unique_users,0\nclicks,0\nimpressions,0\n"));

    server.stores.set(StoreState::Rebuilding);
    for timestamp in [0, NOW_MS] {
        let reply = server.get(&format!("/analytics?timestamp={timestamp}"), &[]).await;
        assert_eq!((reply.status, reply.code()), (503, "rebuilding".to_owned()));
        assert_eq!(reply.header("retry-after"), Some("1"));
    }
    server.stores.set(StoreState::Unavailable);
    server.clock.advance(1_000);
    for timestamp in [0, NOW_MS] {
        let reply = server.get(&format!("/analytics?timestamp={timestamp}"), &[]).await;
        assert_eq!((reply.status, reply.code()), (503, "unavailable".to_owned()));
        assert_eq!(reply.header("retry-after"), Some("1"));
    }
}
