//! Batches: a result for every item, in order.

use crate::harness::Server;

const GOOD: &str = r#"{"timestamp":1,"user":"a","event":"click"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn every_item_has_a_result() {
    let server = Server::start().await;
    let bad_user = r#"{"timestamp":1,"user":"","event":"click"}"#;
    let late = r#"{"timestamp":9999999999999,"user":"a","event":"click"}"#;
    let rows = [
        (vec![GOOD, GOOD], 200, vec!["accepted", "accepted"]),
        (vec![GOOD, bad_user, GOOD], 207, vec!["accepted", "invalid-field", "accepted"]),
        (vec![bad_user, late], 400, vec!["invalid-field", "outside-window"]),
        (vec![late, bad_user], 422, vec!["outside-window", "invalid-field"]),
        (vec![], 200, vec![]),
    ];
    for (items, status, codes) in rows {
        let lines = server.batch("application/x-ndjson", items.join("\n") + "\n\r\n").await;
        let array = server.batch("application/json; charset=UTF-8", format!(" [{}] ", items.join(","))).await;
        for answer in [lines, array] {
            assert_eq!(answer.status, status, "{items:?}: {answer:?}");
            assert_eq!(answer.header("content-type"), Some("application/json"));
            let results = answer.json();
            let got: Vec<_> =
                results.as_array().unwrap().iter().map(|result| result["code"].as_str().unwrap()).collect();
            assert_eq!(got, codes);
            for result in results.as_array().unwrap() {
                let accepted = result["code"] == "accepted";
                assert_eq!(result["status"] == 204, accepted);
                assert_eq!(result["position"].is_string(), accepted);
                assert_eq!(result["field"].is_string(), !accepted, "{result}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_line_is_rejected_alone() {
    let server = Server::start().await;
    let mut body = format!("{GOOD}\n{{\"timestamp\":1\n").into_bytes();
    body.extend_from_slice(b"{\"timestamp\":1,\"user\":\"\xff\",\"event\":\"click\"}\n");
    body.extend_from_slice(GOOD.as_bytes());
    let answer = server.batch("application/x-ndjson", body).await;
    assert_eq!(answer.status, 207);
    let codes: Vec<_> = answer.json().as_array().unwrap().iter().map(|item| item["code"].clone()).collect();
    assert_eq!(codes, ["accepted", "malformed-body", "invalid-encoding", "accepted"]);
}
