//! Samples to endpoints, and what became of messages.

use serde_json::{Value, json};

use super::receiver::Receiver;
use super::{ALLOWED, is_signed, settled, subscribe};
use crate::run::{Up, WITHIN, stderr, stdout, tool};
use crate::topics::Api;
use millrace_testkit::wait_until;

const PATH: &str = "/v1/topics/orders/subscriptions/hook";

#[test]
fn a_sample_shows_what_an_endpoint_gets_and_answers() {
    let up = Up::with(&[ALLOWED]);
    let (api, receiver) = (Api(up.command), Receiver::start());
    api.expect("PUT", "/v1/topics/orders", &Value::Null, 201);
    let headers = json!({"push": {"headers": {"Authorization": "Bearer secret"}}});
    let secret = subscribe(api, "orders", "hook", &receiver, &headers)["secret"].as_str().unwrap().to_owned();
    let sample = api.expect("POST", &format!("{PATH}:test"), &Value::Null, 200);
    let outcome = |sample: &Value| (sample["status"].clone(), sample["error"].clone(), sample["addresses"].clone());
    assert_eq!(outcome(&sample), (json!(204), Value::Null, json!(["127.0.0.1"])), "{sample}");
    let received = receiver.received().pop().unwrap();
    assert!(is_signed(&received, &secret) && received.id().starts_with("test-"), "{received:?}");
    assert_eq!((received.header("authorization"), received.header("ce-type")), ("Bearer secret", "millrace.test"));
    // What is shown is what was sent, but for secrets.
    let request = &sample["request"];
    assert_eq!((&request["url"], &request["body"]), (&json!(receiver.url()), &json!(received.text())));
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature", "millrace-topic", "content-type"] {
        assert_eq!(request["headers"][name], json!(received.header(name)), "{name}");
    }
    assert_eq!(request["headers"].as_object().unwrap()["authorization"], Value::Null);
    // A failed one is no attempt, and no failure of the endpoint.
    receiver.answers(|_| Some((500, "")));
    let failed = api.expect("POST", &format!("{PATH}:test"), &Value::Null, 200);
    assert_eq!(outcome(&failed), (json!(500), json!("http-status"), json!(["127.0.0.1"])));
    let command = format!("http://{}", up.command);
    let tested = tool(&["subscription", "test", "orders/hook", "--command", &command]).output().unwrap();
    assert!(stdout(&tested).contains("http-status") && stderr(&tested).contains("did not take the sample"));
    assert_eq!(tested.status.code(), Some(1));
    assert_eq!(api.subscription("orders", "hook")["last_error"], Value::Null);
    assert_eq!(api.expect("GET", &format!("{PATH}/attempts"), &Value::Null, 200), json!({"attempts": []}));
    api.expect("PUT", "/v1/topics/orders/subscriptions/pulled", &json!({"mode": "pull"}), 201);
    let refused = api.expect("POST", "/v1/topics/orders/subscriptions/pulled:test", &Value::Null, 409);
    assert_eq!(refused["code"], json!("wrong-mode"));
}

#[test]
fn what_became_of_a_message_is_explained() {
    let up = Up::with(&[ALLOWED]);
    let (api, receiver) = (Api(up.command), Receiver::start());
    api.expect("PUT", "/v1/topics/orders", &Value::Null, 201);
    let publish = |body: &str, kind: &str| api.publish("orders", body, &[("x-attr-kind", kind)])["offset"].clone();
    let explain = |offset: &Value| api.expect("GET", &format!("{PATH}:explain?offset={offset}"), &Value::Null, 200);
    let becomes = |offset: &Value, verdict: &str| {
        assert!(wait_until(WITHIN, || explain(offset)["verdict"] == json!(verdict)), "{verdict}: {}", explain(offset));
        let explained = explain(offset);
        assert_eq!(explained["offset"], *offset);
        explained
    };
    let early = publish("early", "a");
    let settings = json!({
        "filter": {"exact": {"kind": "a"}},
        "push": {"permanent_statuses": [400], "schedule": ["1d"]},
    });
    subscribe(api, "orders", "hook", &receiver, &settings);
    receiver.answers(|request| {
        let status = match request.text() {
            "failing" => 500,
            "refused" => 400,
            _ => 204,
        };
        Some((status, ""))
    });
    let (filtered, delivered) = (publish("other", "b"), publish("good", "a"));
    let (failing, refused) = (publish("failing", "a"), publish("refused", "a"));
    let none = json!({"attempts": null, "next_attempt_at": null, "last_error": null});
    let same = |explained: &Value, expected: &Value| {
        for (member, value) in expected.as_object().unwrap() {
            assert_eq!(explained[member], *value, "{explained}");
        }
    };
    same(&becomes(&early, "before-start"), &none);
    same(&becomes(&filtered, "filtered"), &none);
    same(&becomes(&delivered, "delivered"), &json!({"attempts": 1, "next_attempt_at": null, "last_error": null}));
    let retried = becomes(&failing, "in-retry");
    same(&retried, &json!({"attempts": 1, "last_error": "http-status"}));
    assert!(retried["next_attempt_at"].is_string(), "{retried}");
    let letter = json!({"attempts": 1, "next_attempt_at": null, "last_error": "http-status"});
    same(&becomes(&refused, "dead-lettered"), &letter);
    let command = format!("http://{}", up.command);
    let offset = refused.to_string();
    let arguments = ["subscription", "explain", "orders/hook", "--offset", &offset, "--command", &command];
    assert!(stdout(&tool(&arguments).output().unwrap()).contains("dead-lettered"));
    // Sent again, it is settled.
    receiver.answers(|_| Some((204, "")));
    api.expect("POST", &format!("{PATH}/dead-letters:redrive"), &Value::Null, 202);
    becomes(&refused, "delivered");
    api.expect("POST", &format!("{PATH}:suspend"), &Value::Null, 200);
    let pending = publish("later", "a");
    same(&becomes(&pending, "pending"), &json!({"attempts": 0, "next_attempt_at": null, "last_error": null}));
    // After a seek nothing before the new position is handed out.
    api.expect("POST", &format!("{PATH}:seek"), &json!({"to": "latest"}), 200);
    becomes(&pending, "before-start");
    becomes(&failing, "before-start");
    for (query, status, code) in [
        ("", 400, "missing-field"),
        ("?offset=x", 400, "invalid-field"),
        ("?offset=99999", 404, "not-found"),
        ("?offset=0", 404, "not-found"),
    ] {
        let refused = api.expect("GET", &format!("{PATH}:explain{query}"), &Value::Null, status);
        assert_eq!((&refused["code"], &refused["field"]), (&json!(code), &json!("offset")), "{query}");
    }
}

#[test]
fn a_message_past_the_retention_is_expired() {
    let up = Up::with(&[ALLOWED]);
    let (api, receiver) = (Api(up.command), Receiver::start());
    api.expect("PUT", "/v1/topics/orders", &json!({"retention": "1s"}), 201);
    subscribe(api, "orders", "hook", &receiver, &json!({}));
    api.expect("POST", &format!("{PATH}:suspend"), &Value::Null, 200);
    let offset = api.publish("orders", "old", &[])["offset"].clone();
    let verdict =
        || api.expect("GET", &format!("{PATH}:explain?offset={offset}"), &Value::Null, 200)["verdict"].clone();
    assert!(wait_until(WITHIN, || verdict() == json!("expired")), "{}", verdict());
    api.expect("POST", &format!("{PATH}:resume"), &Value::Null, 200);
    settled(api, "orders", "hook");
    assert!(receiver.received().is_empty());
}
