//! The durability that responses wait for, and the metrics of events that were answered before the log's report.

use millrace_base::Size;
use millrace_command::{Config, Durability};
use millrace_testkit::Response;

use crate::harness::{Server, batch_request};

const EVENT: &str = "timestamp=1&user=a&click";
const ITEM: &str = r#"{"timestamp":1,"user":"a","event":"click"}"#;
const BAD: &str = r#"{"timestamp":1,"user":"","event":"click"}"#;
const PREFER: &str = "Prefer: wait=5, respond-async\r\n";

fn config(durability: Durability, allow_respond_async: bool) -> Config {
    Config { durability, allow_respond_async, ..Config::default() }
}

async fn post(server: &Server, fields: &str) -> Response {
    server.send(format!("POST /analytics?{EVENT} HTTP/1.1\r\nHost: x\r\n{fields}\r\n")).await
}

async fn batch(server: &Server, fields: &str, items: &[&str]) -> Response {
    server.send(batch_request(&format!("Content-Type: application/x-ndjson\r\n{fields}"), items.join("\n"))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_follows_the_durability() {
    for (level, allow_respond_async, fields, status, has_position, applied) in [
        (Durability::Replicated, false, "", 204, true, None),
        (Durability::Replicated, false, PREFER, 204, true, None),
        (Durability::Replicated, true, "", 204, true, None),
        (Durability::Replicated, true, PREFER, 202, false, Some("respond-async")),
        (Durability::Leader, false, PREFER, 202, true, None),
        (Durability::Leader, true, PREFER, 202, false, Some("respond-async")),
        (Durability::Cached, false, "", 202, false, None),
        (Durability::Cached, true, PREFER, 202, false, Some("respond-async")),
    ] {
        let server = Server::with(config(level, allow_respond_async)).await;
        let headers_of = |answer: &Response| {
            (answer.header("millrace-position").is_some(), answer.header("preference-applied").map(str::to_owned))
        };
        let expected = (has_position, applied.map(str::to_owned));
        let single = post(&server, fields).await;
        assert_eq!(
            (single.status, single.body.len(), headers_of(&single)),
            (status, 0, expected.clone()),
            "{level:?} {fields}"
        );
        let pixel = server.send(format!("GET /pixel.gif?user=a HTTP/1.1\r\nHost: x\r\n{fields}\r\n")).await;
        assert_eq!((pixel.status, pixel.body.len(), headers_of(&pixel)), (200, 43, expected), "{level:?} {fields}");

        let all = batch(&server, fields, &[ITEM, ITEM]).await;
        assert_eq!(all.status, if status == 204 { 200 } else { 202 }, "{all:?}");
        assert_eq!(all.header("preference-applied"), applied);
        let some = batch(&server, fields, &[BAD, ITEM]).await;
        assert_eq!(some.status, 207, "{some:?}");
        let (refused, accepted) = (some.json()[0].clone(), some.json()[1].clone());
        assert_eq!((refused["status"].as_u64(), accepted["status"].as_u64()), (Some(400), Some(status.into())));
        assert_eq!(accepted["code"], "accepted");
        assert_eq!(accepted["position"].is_string(), has_position);
        assert_eq!((server.answered("accepted"), server.answered("invalid-field")), (5, 1));
        server.early("stored", if has_position { 0 } else { 5 }).await;
    }
}

/// The writer detects a disk at its reserve. An event that was answered before is lost; every later one is refused.
#[tokio::test(flavor = "multi_thread")]
async fn events_lost_after_a_202_are_counted_and_later_ones_are_refused() {
    let mut lost = 0;
    for _ in 0..50 {
        let server =
            Server::on(config(Durability::Cached, false), |log| log.min_free_disk = Size::from_gib(1 << 20)).await;
        let early = u64::from(post(&server, "").await.status == 202);
        server.early("lost", early).await;
        assert_eq!(server.metric("millrace_command_async_pending"), 0);
        let refused = post(&server, "").await;
        assert_eq!((refused.status, refused.json()["code"].as_str()), (503, Some("disk-full")), "{refused:?}");
        assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 30);
        server.early("lost", early).await;
        assert_eq!((server.answered("accepted"), server.answered("disk-full")), (early, 2 - early));
        lost += early;
        if lost == 3 {
            return;
        }
    }
    panic!("of 50 events only {lost} were answered before the writer saw them");
}

/// An immediate refusal is reported with every durability; nothing is counted as answered early.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_503_with_every_durability() {
    let large = format!(r#"{{"timestamp":1,"user":"{}","event":"click"}}"#, "u".repeat(200));
    for level in [Durability::Replicated, Durability::Leader, Durability::Cached] {
        let server = Server::on(config(level, false), |log| log.max_queue_records = 1).await;
        let answer = batch(&server, "", &[ITEM, ITEM]).await;
        assert_eq!((answer.status, answer.json()[1]["code"].as_str()), (503, Some("overloaded")), "{answer:?}");
        assert!(answer.header("retry-after").is_some());
        assert_eq!((server.answered("accepted"), server.answered("overloaded")), (0, 2));
        let server = Server::on(config(level, false), |log| log.max_record_bytes = Size(150)).await;
        let answer = batch(&server, "", &[&large, ITEM]).await;
        let codes = [0, 1].map(|index| answer.json()[index]["code"].as_str().unwrap().to_owned());
        assert_eq!((answer.status, codes), (207, ["too-large".to_owned(), "accepted".to_owned()]), "{level:?}");
        server.early("stored", u64::from(level == Durability::Cached)).await;
    }
}
