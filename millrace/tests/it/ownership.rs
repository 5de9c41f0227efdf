//! What belongs to another principal, and what clients may not set: each operation of the write side's document refuses it.

use millrace_testkit::{ApiDocument, http};
use serde_json::{Value, json};

use crate::auth::{Keys, bearer};
use crate::push::ALLOWED;
use crate::run::Up;

const TOPIC: &str = "/v1/topics/orders";
const PULLED: &str = "/v1/topics/orders/subscriptions/pulled";
const PUSHED: &str = "/v1/topics/orders/subscriptions/pushed";
const JSON: (&str, &str) = ("content-type", "application/json");

/// A body that an operation takes.
fn body(method: &str, template: &str, token: &str) -> Value {
    match (method, template.rsplit([':', '/']).next().unwrap_or_default()) {
        ("put", "{subscription}") => json!({"mode": "pull"}),
        ("put", "{principal}") => json!({"publish": true, "subscribe": true, "manage": true}),
        ("patch", "{topic}") => json!({"description": "mine"}),
        ("patch", "{subscription}") => json!({"max_attempts": 1}),
        ("post", "{topic}" | "messages") => json!("x"),
        ("post", "batch") => json!([{"body": "x"}]),
        ("post", "ack" | "nack") => json!({"tokens": [token]}),
        ("post", "extend") => json!({"tokens": [token], "lease": "1m"}),
        ("post", "seek") => json!({"to": "latest"}),
        _ => Value::Null,
    }
}

#[test]
fn nobody_reaches_topics_and_subscriptions_of_another_principal() {
    let keys = Keys::new();
    let scopes = ["topics:manage", "topics:publish", "topics:subscribe"];
    let [owner, subscriber, stranger] = ["owner", "subscriber", "stranger"].map(|name| keys.create(name, &scopes));
    let up = keys.up_with(&[ALLOWED, ("topics.legacy.enabled", "true")]);
    let call = |key: &str, method: &str, path: &str, body: &Value| {
        let (key, body) = (bearer(key), if body.is_null() { String::new() } else { body.to_string() });
        http(up.command, method, path, &[("authorization", &*key), JSON], &body).unwrap()
    };
    let done = |method: &str, path: &str, body: Value| {
        let response = call(&owner, method, path, &body);
        assert!((200..300).contains(&response.status), "{method} {path}: {response:?}");
        response
    };
    done("PUT", TOPIC, Value::Null);
    done("PUT", PULLED, json!({"mode": "pull"}));
    let push = json!({"url": "http://127.0.0.1:9/hidden-path", "headers": {"x-own": "hidden-header"}});
    let made = done("PUT", PUSHED, json!({"mode": "push", "push": push})).json();
    let secret = made["secret"].as_str().unwrap();
    // Before there is a message, so that nothing is sent.
    done("POST", &format!("{PUSHED}:suspend"), Value::Null);
    done("PUT", &format!("{TOPIC}/grants/key%3Asubscriber"), json!({"subscribe": true}));
    done("POST", &format!("{TOPIC}/messages"), json!("hidden-message"));
    let message = done("GET", &format!("{PULLED}/messages?lease=1h&wait=5s"), Value::Null);
    let token = message.header("millrace-token").unwrap();
    let redriven = done("POST", &format!("{PULLED}/dead-letters:redrive"), Value::Null).json();
    let redrive = redriven["redrive"].as_str().unwrap();
    let state = || {
        [TOPIC, PULLED, PUSHED].map(|path| {
            let mut shown = done("GET", path, Value::Null).json();
            // It shrinks with time.
            shown["retention_left"] = Value::Null;
            shown
        })
    };
    let before = state();
    for shown in before.iter().map(Value::to_string) {
        assert!(!shown.contains(secret) && !shown.contains("hidden-header"), "not even to the owner: {shown}");
    }

    let document = call(&owner, "GET", "/openapi.json", &Value::Null).json();
    let mut operations = Vec::new();
    for (template, item) in document["paths"].as_object().unwrap() {
        if template.contains("{topic}") {
            operations.extend(item.as_object().unwrap().keys().map(|method| (&**template, &**method)));
        }
    }
    assert!(operations.len() > 30, "{operations:?}");
    for (key, subscribes) in [(&stranger, false), (&subscriber, true)] {
        // A subscriber sees the topic.
        let reached = operations.iter().filter(|(template, _)| !subscribes || template.contains("{subscription}"));
        for (&(template, method), name) in reached.flat_map(|operation| [(operation, "pulled"), (operation, "pushed")])
        {
            let path = template.replace("{topic}", "orders").replace("{subscription}", name);
            let path = path.replace("{principal}", "key%3Astranger").replace("{redrive}", redrive);
            let query = if template.ends_with(":explain") { "?offset=0" } else { "" };
            let refused = call(key, &method.to_uppercase(), &format!("{path}{query}"), &body(method, template, token));
            let status = match (method, template) {
                ("put", "/v1/topics/{topic}") | ("post", "/legacy/topic/register/{topic}") => 409,
                ("put", "/v1/topics/{topic}/subscriptions/{subscription}") if subscribes => 409,
                // As the earlier system had it.
                ("post", "/legacy/message/publish/{topic}") => 401,
                _ => 403,
            };
            let text = refused.text();
            assert_eq!(refused.status, status, "{method} {path}: {text}");
            assert!(!text.contains("hidden-") && !text.contains(secret), "{method} {path}: {text}");
        }
    }
    let list = |key: &str, path: &str, member: &str| call(key, "GET", path, &Value::Null).json()[member].clone();
    assert_eq!(list(&stranger, "/v1/topics", "topics"), json!([]));
    assert_eq!(list(&subscriber, &format!("{TOPIC}/subscriptions"), "subscriptions"), json!([]));
    assert_eq!(state(), before, "nothing was altered");
}

#[test]
fn members_that_an_operation_does_not_have_are_refused() {
    let up = Up::start();
    let document = ApiDocument::load("command");
    let mut refused = 0;
    for (template, method, operation) in document.operations() {
        let content = &operation["requestBody"]["content"]["application/json"];
        if document.resolve(&content["schema"])["additionalProperties"].as_bool() != Some(false) {
            continue;
        }
        let mut body = content["example"].clone();
        body["owner"] = json!("key:mallory");
        let path = template.replace("{topic}", "t").replace("{subscription}", "s").replace("{principal}", "p");
        let response = http(up.command, &method.to_uppercase(), &path, &[JSON], &body.to_string()).unwrap();
        let found = (response.status, response.code(), response.field());
        assert_eq!(found, (400, "unknown-field".into(), "owner".into()), "{method} {path}: {}", response.text());
        refused += 1;
    }
    assert!(refused > 10, "{refused} operations have an object as their body");
}
