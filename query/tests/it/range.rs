//! Ranges: rows and totals, representations, and how the hours are read.

use std::io::Read as _;

use axum::body::Body;
use axum::http::Request;
use futures::StreamExt as _;
use millrace_base::Size;
use millrace_contracts::Exactness;
use millrace_query::Tier;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::harness::{HOUR_MS, NOW_MS, Server, StoreState, config, totals};

const WHY: &str = "unique users of several hours do not add up: a user may be active in more than one";

async fn serving() -> Server {
    let server = Server::start().await;
    server.stores.set(StoreState::Counts(totals(7, 5, 11), Tier::Archive));
    server
}

fn target(from: i64, to: i64, more: &str) -> String {
    format!("/analytics/range?from={from}&to={to}{more}")
}

async fn json_of(server: &Server, target: &str) -> Value {
    let reply = server.get(target, &[]).await;
    assert_eq!(reply.status, 200, "{target}");
    assert_eq!(reply.header("content-type"), Some("application/json"));
    serde_json::from_slice(&reply.body).unwrap()
}

#[tokio::test]
async fn json_has_rows_and_totals() {
    let server = serving().await;
    let hour = 500_000 * HOUR_MS;
    let answer = json_of(&server, &target(hour, hour + HOUR_MS + 1, "")).await;
    let row = |hour: &str, index: i64| {
        json!({"hour": hour, "timestamp": index * HOUR_MS, "unique_users": 7, "clicks": 5, "impressions": 11,
               "exactness": "exact", "tier": "archive", "stale": false})
    };
    assert_eq!(
        answer,
        json!({
            "from": hour, "to": hour + 2 * HOUR_MS, "step": "hour",
            "rows": [row("2027-01-15T08Z", 500_000), row("2027-01-15T09Z", 500_001)],
            "totals": {"hours": 2, "unique_users": null, "unique_users_why": WHY, "clicks": 10, "impressions": 22,
                       "stale": false},
        })
    );
}

#[tokio::test]
async fn ndjson_and_csv() {
    let server = serving().await;
    let from = 500_000 * HOUR_MS;
    let reply = server.get(&target(from, from + HOUR_MS, ""), &[("accept", "application/x-ndjson")]).await;
    assert_eq!(reply.header("content-type"), Some("application/x-ndjson"));
    let lines: Vec<Value> =
        String::from_utf8(reply.body.clone()).unwrap().lines().map(|l| l.parse().unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["hour"], &lines[1]["totals"]["clicks"]), (&json!("2027-01-15T08Z"), &json!(5)));

    let mut approximate = totals(7, 5, 11);
    approximate.exactness = Exactness::Approximate;
    server.stores.set(StoreState::Counts(approximate, Tier::Archive));
    let reply = server.get(&target(from, from + HOUR_MS, ""), &[("accept", "text/csv")]).await;
    assert_eq!(reply.header("content-type"), Some("text/csv; charset=utf-8; header=present"));
    assert_eq!(
        String::from_utf8(reply.body.clone()).unwrap(),
        "hour,timestamp,unique_users,clicks,impressions,exactness,tier,stale\n\
         2027-01-15T08Z,1800000000000,7,5,11,approximate,archive,false\n"
    );
    let answer = json_of(&server, &target(from, from + HOUR_MS, "")).await;
    assert_eq!(answer["rows"][0]["unique_users_error"], json!(0.0081));
}

#[tokio::test]
async fn days_have_the_number_of_their_hours_and_no_unique_users() {
    let server = serving().await;
    let day = 24 * HOUR_MS;
    let answer = json_of(&server, &target(20_000 * day + 23 * HOUR_MS, 20_011 * day + 1, "&step=day")).await;
    let rows = answer["rows"].as_array().unwrap();
    let hours: Vec<_> = rows.iter().map(|row| row["hours"].as_i64().unwrap()).collect();
    assert_eq!(hours, [1, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 1], "across chunks, too");
    assert_eq!(
        rows[1],
        json!({"day": "2024-10-05", "timestamp": 20_001 * day, "hours": 24, "unique_users": null, "clicks": 120,
               "impressions": 264, "stale": false})
    );
    assert_eq!(answer["totals"]["clicks"], json!(5 * (10 * 24 + 2)));
    let reply = server.get(&target(20_000 * day, 20_001 * day, "&step=day"), &[("accept", "text/csv")]).await;
    let csv = String::from_utf8(reply.body.clone()).unwrap();
    assert_eq!(csv, "day,timestamp,hours,clicks,impressions,stale\n2024-10-04,1728000000000,24,120,264,false\n");
}

#[tokio::test]
async fn reads_the_archive_in_chunks_and_live_hours_one_by_one() {
    let server = serving().await;
    let hour = NOW_MS - NOW_MS.rem_euclid(HOUR_MS);
    let past = hour - 24 * HOUR_MS;
    json_of(&server, &target(past - 400 * HOUR_MS, past, "")).await;
    assert_eq!((server.stores.range_reads(), server.stores.reads()), (3, 0), "at most a week per read");
    let answer = json_of(&server, &target(past - HOUR_MS, hour + 3 * HOUR_MS, "")).await;
    assert_eq!((server.stores.range_reads(), server.stores.reads()), (5, 25), "older, live and future hours");
    let rows = answer["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 28);
    for (i, row) in rows.iter().enumerate() {
        assert_eq!(row["timestamp"], json!(past + (i64::try_from(i).unwrap() - 1) * HOUR_MS));
        assert_eq!(row["tier"], json!(if i == 25 { "memory" } else { "archive" }));
    }
}

#[tokio::test]
async fn headers() {
    let server = serving().await;
    let reply = server.get(&target(0, HOUR_MS, ""), &[]).await;
    assert_eq!(reply.header("cache-control"), Some("max-age=60, must-revalidate"));
    assert_eq!(reply.header("millrace-as-of"), Some("2026-11-21T08:30:00Z"));
    assert_eq!(reply.header("millrace-unique-users"), Some("per hour; they do not add up"));
    let current = server.get(&target(NOW_MS - HOUR_MS, NOW_MS, ""), &[]).await;
    assert_eq!(current.header("cache-control"), Some("max-age=1, must-revalidate"));
}

#[tokio::test]
async fn compresses_as_the_client_prefers() {
    let server = serving().await;
    let plain = server.get(&target(0, 100 * HOUR_MS, ""), &[]).await.body;
    for (accepts, coding) in [
        ("gzip", Some("gzip")),
        ("gzip;q=0.5, br;q=0.8, zstd;q=0.1", Some("br")),
        ("zstd, gzip;q=0", Some("zstd")),
        ("identity", None),
        ("gzip;q=0", None),
    ] {
        let reply = server.get(&target(0, 100 * HOUR_MS, ""), &[("accept-encoding", accepts)]).await;
        assert_eq!(reply.header("content-encoding"), coding, "{accepts}");
        let vary = reply.header_values("vary").join(", ").to_lowercase();
        assert!(vary.contains("accept-encoding") && vary.split(", ").any(|name| name == "accept"), "{vary}");
        let body = reply.body.clone();
        assert!(coding.is_none() || body.len() < plain.len() / 4);
        if coding == Some("gzip") {
            let mut inflated = Vec::new();
            flate2::read::GzDecoder::new(&*body).read_to_end(&mut inflated).unwrap();
            assert_eq!(inflated, plain);
        }
    }
}

#[tokio::test]
async fn refusals() {
    let server = Server::start().await;
    let long = format!("from=0&to={}", 745 * HOUR_MS);
    for (query, status, code, field) in [
        ("", 400, "missing-field", "from"),
        ("from=0&to=0", 400, "invalid-field", "to"),
        ("from=0&to=1&step=x", 400, "invalid-field", "step"),
        (&*long, 422, "outside-window", "to"),
    ] {
        let reply = server.get(&format!("/analytics/range?{query}"), &[]).await;
        assert_eq!((reply.status, reply.code(), reply.field()), (status, code.into(), field.into()), "{query}");
    }
    let reply = server.get("/analytics/range?from=0&to=1", &[("accept", "text/plain")]).await;
    assert_eq!((reply.status, reply.code()), (406, "not-acceptable".to_owned()));
    let reply = server.get("/analytics/range?from=0&to=1", &[]).await;
    assert_eq!(
        (reply.status, reply.code()),
        (503, "unavailable".to_owned()),
        "nothing was sent yet, so a 503 is possible"
    );
    assert_eq!(reply.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn aborts_the_body_of_an_incomplete_range() {
    let server = Server::with(config()).await;
    server.stores.set(StoreState::Counts(totals(7, 5, 11), Tier::Archive));
    let request = Request::get(target(0, 400 * HOUR_MS, "")).body(Body::empty()).unwrap();
    let mut body = server.router.clone().oneshot(request).await.unwrap().into_body().into_data_stream();
    assert!(body.next().await.unwrap().is_ok());
    server.stores.set(StoreState::Unavailable);
    assert!(body.next().await.unwrap().is_err());
}

/// An encoder lives as long as its client reads: beyond their memory, responses leave as they are.
#[tokio::test]
async fn encoders_share_their_memory() {
    let server = Server::with(millrace_query::Config { max_encoder_memory: Size::from_mib(5), ..config() }).await;
    server.stores.set(StoreState::Counts(totals(7, 5, 11), Tier::Archive));
    let coding = async || {
        let request = Request::get(target(0, 100 * HOUR_MS, "")).header("accept-encoding", "br");
        let response = server.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        (response.headers().get("content-encoding").is_some(), response)
    };
    let (compressed, unread) = coding().await;
    assert!(compressed);
    let (compressed, plain) = coding().await;
    assert!(!compressed);
    drop((unread, plain));
    assert!(coding().await.0);
}
