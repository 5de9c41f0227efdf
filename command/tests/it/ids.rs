//! Event ids: every place in a request that may carry one, and that they reach the log unchanged.

use crate::accepted::event_at;
use crate::harness::{Server, batch_request};

const EVENT: &str = "timestamp=1&user=a&click";

async fn id_at(server: &Server, position: &str) -> Option<String> {
    let (log, position) = (server.log.clone(), position.to_owned());
    tokio::task::spawn_blocking(move || event_at(&log, &position)).await.unwrap().event_id
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_reaches_the_log_from_every_place() {
    let server = Server::start().await;
    let longest = "i".repeat(128);
    for (query, fields, id) in [
        ("", "", None),
        ("&event_id=e1", "", Some("e1")),
        ("&event_id=a+b%C3%A4%26", "", Some("a b\u{e4}&")),
        ("", "Idempotency-Key: \"e 2\"\r\n", Some("e 2")),
        ("", "idempotency-key: \"a\\\"b\\\\c\"\r\n", Some("a\"b\\c")),
        ("", "Idempotency-Key: 8e03978e-40d5-43dd\r\n", Some("8e03978e-40d5-43dd")),
        ("&event_id=same", "Idempotency-Key: \"same\"\r\n", Some("same")),
        (&format!("&event_id={longest}"), "", Some(&*longest)),
    ] {
        for (method, path, status) in [("POST", "/analytics", 204), ("GET", "/pixel.gif", 200)] {
            // The pixel ignores unknown parameters.
            let request = format!("{method} {path}?{EVENT}{query} HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
            let answer = server.send(&request).await;
            assert_eq!(answer.status, status, "{request}: {answer:?}");
            let got = id_at(&server, answer.header("millrace-position").unwrap()).await;
            assert_eq!(got.as_deref(), id, "{request}");
        }
    }
    let bad = server.send(format!("GET /pixel.gif?{EVENT}&event_id= HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    assert_eq!((bad.status, bad.json()["field"].as_str()), (400, Some("event_id")), "{bad:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn items_take_the_batch_key_and_their_index() {
    let server = Server::start().await;
    let item = |id: &str| format!(r#"{{"timestamp":1,"user":"a","event":"click"{id}}}"#);
    let (plain, own, bad) = (item(""), item(r#","event_id":"own""#), item(r#","event_id":"""#));
    let items = [&plain, &own, &bad, &plain].map(String::as_str);
    let key = "k".repeat(122);
    for (field, ids) in [
        (String::new(), [None, Some("own".to_owned()), None, None]),
        (
            format!("Idempotency-Key: \"{key}\"\r\n"),
            [Some(format!("{key}/0")), Some("own".to_owned()), None, Some(format!("{key}/3"))],
        ),
    ] {
        for (media, body) in
            [("application/x-ndjson", items.join("\n\n")), ("application/json", format!("[{}]", items.join(",")))]
        {
            let answer = server.send(batch_request(&format!("Content-Type: {media}\r\n{field}"), body)).await;
            assert_eq!(answer.status, 207, "{answer:?}");
            let results = answer.json();
            assert_eq!(results[2]["field"], "event_id");
            for (index, id) in ids.iter().enumerate().filter(|(index, _)| *index != 2) {
                let position = results[index]["position"].as_str().unwrap();
                assert_eq!(&id_at(&server, position).await, id, "{field}{index}");
            }
        }
    }
}
