//! The earlier system's calls from the outside: every text, status and member order of theirs, on both engines.

use std::net::SocketAddr;

use millrace_testkit::{Response, http};
use serde_json::{Value, json};

use crate::auth::{Keys, bearer};
use crate::cluster::Cluster;
use crate::run::Up;
use crate::topics::Api;

const ENABLED: (&str, &str) = ("topics.legacy.enabled", "true");
const JSON: (&str, &str) = ("content-type", "application/json");

/// A write side, and where the calls stand below it.
#[derive(Clone, Copy)]
struct Legacy {
    address: SocketAddr,
    base: &'static str,
}

impl Legacy {
    fn send(self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        http(self.address, method, &format!("{}{path}", self.base), headers, body).unwrap()
    }

    /// A call whose answer has this status and exactly this text.
    fn expect(self, method: &str, path: &str, body: &str, status: u16, text: &str) {
        let headers: &[(&str, &str)] = if body.is_empty() { &[] } else { &[JSON] };
        let response = self.send(method, path, headers, body);
        assert_eq!((response.status, response.text()), (status, text), "{method} {path} {body}");
        let media_type = (status != 204).then_some("application/json;charset=utf-8");
        assert_eq!(response.header("content-type"), media_type, "{method} {path}");
        assert_eq!(response.header("cache-control"), Some("no-store"), "{method} {path}");
    }

    fn error(self, method: &str, path: &str, body: &str, status: u16, error: &str) {
        self.expect(method, path, body, status, &json!({ "error": error }).to_string());
    }

    /// A call with headers whose answer is an error of this status.
    fn refuses(self, method: &str, path: &str, headers: &[(&str, &str)], body: &str, status: u16) {
        let response = self.send(method, path, headers, body);
        assert_eq!(response.status, status, "{method} {path} {headers:?}: {}", response.text());
        let error: Value = response.json();
        assert!(error["error"].is_string() && error.as_object().unwrap().len() == 1, "{path} {headers:?}: {error}");
        assert_eq!(response.header("content-type"), Some("application/json;charset=utf-8"), "{path} {headers:?}");
    }
}

/// `one` and `other` are two instances of the write side, or the same.
fn every_call(one: Legacy, other: Legacy) {
    // Registering: never twice, not even by the owner.
    one.expect("POST", "/topic/register/foo", "", 201, r#"{"name":"foo","position":0}"#);
    other.error("POST", "/topic/register/foo", "", 409, "Topic 'foo' is already registered");
    // What is not registered.
    one.error("POST", "/topic/subscribe/bar", "", 404, "Topic 'bar' is not registered");
    one.error("POST", "/message/publish/bar", "{}", 404, "Topic 'bar' is not registered");
    for (method, path) in [("GET", "/message/get"), ("POST", "/message/ack")] {
        one.error(method, &format!("{path}/bar"), "", 403, "Topic 'bar' is not subscribed");
        one.error(method, &format!("{path}/foo"), "", 403, "Topic 'foo' is not subscribed");
    }
    // Without a message; then at the newest one there is.
    one.expect("POST", "/topic/subscribe/foo", "", 201, r#"{"name":"foo","position":0}"#);
    other.error("POST", "/topic/subscribe/foo", "", 409, "Topic 'foo' is already subscribed");
    one.expect("GET", "/message/get/foo", "", 204, "");
    one.expect("POST", "/message/ack/foo", "", 204, "");
    let content = |text: &str| format!(r#"{{"topic":"foo","content":{}}}"#, json!(text));
    let first = content(r#"{"b":1.50,"a":["x  y"]}"#);
    one.expect("POST", "/message/publish/foo", r#"{ "b": 1.50, "a": [ "x  y" ] }"#, 201, &first);
    other.expect("POST", "/message/publish/foo", "2", 201, &content("2"));
    // Nothing was handed out since.
    one.expect("POST", "/message/ack/foo", "", 204, "");
    one.expect("GET", "/message/get/foo", "", 200, &first);
    other.expect("GET", "/message/get/foo", "", 200, &first);
    // 13 + 3 + 23 bytes, then 13 + 3 + 1 more.
    other.expect("POST", "/message/ack/foo", "", 201, r#"{"name":"foo","position":39}"#);
    one.expect("POST", "/message/ack/foo", "", 204, "");
    one.expect("GET", "/message/get/foo", "", 200, &content("2"));
    one.expect("POST", "/message/ack/foo", "", 201, r#"{"name":"foo","position":56}"#);
    one.expect("GET", "/message/get/foo", "", 204, "");
    one.expect("POST", "/message/ack/foo", "", 204, "");
}

fn a_subscriber_begins_at_the_newest_message(legacy: Legacy) {
    legacy.expect("POST", "/topic/register/late", "", 201, r#"{"name":"late","position":0}"#);
    for n in 1..=3 {
        let text = format!(r#"{{"topic":"late","content":"{n}"}}"#);
        legacy.expect("POST", "/message/publish/late", &n.to_string(), 201, &text);
    }
    legacy.expect("POST", "/topic/subscribe/late", "", 201, r#"{"name":"late","position":0}"#);
    legacy.expect("GET", "/message/get/late", "", 200, r#"{"topic":"late","content":"3"}"#);
    legacy.expect("POST", "/message/ack/late", "", 201, r#"{"name":"late","position":18}"#);
    legacy.expect("GET", "/message/get/late", "", 204, "");
}

fn what_is_not_served_is_refused(legacy: Legacy) {
    let get = "/message/get/foo";
    let accept = |value: &'static str| [("accept", value)];
    for good in ["*/*", "application/json", "text/html, application/json;q=0.5", "application/json; charset=utf-8"] {
        assert_eq!(legacy.send("GET", get, &accept(good), "").status, 204, "{good}");
    }
    for bad in ["text/plain", "application/xml", "application/json;charset=utf-16", "*/*;q=0"] {
        legacy.refuses("GET", get, &accept(bad), "", 406);
        legacy.refuses("POST", "/topic/register/x", &accept(bad), "", 406);
    }
    assert_eq!(legacy.send("GET", get, &[("accept-charset", "UTF-8")], "").status, 204);
    assert_eq!(legacy.send("GET", get, &[("accept-charset", "iso-8859-1, utf-8;q=0.7")], "").status, 204);
    legacy.refuses("GET", get, &[("accept-charset", "iso-8859-1")], "", 406);
    let publish = "/message/publish/foo";
    for good in ["application/json", "application/json; charset=UTF-8", "Application/JSON;charset=\"utf-8\""] {
        assert_eq!(legacy.send("POST", publish, &[("content-type", good)], "1").status, 201, "{good}");
    }
    for bad in ["text/plain", "application/json;charset=iso-8859-1", "application/xml", "application/jsonx"] {
        legacy.refuses("POST", publish, &[("content-type", bad)], "1", 415);
    }
    legacy.refuses("POST", publish, &[], "1", 415);
    for bad in ["", "{", "{} {}", "nul", "\"\u{1}\""] {
        legacy.refuses("POST", publish, &[JSON], bad, 400);
    }
    legacy.refuses("POST", publish, &[JSON], &format!("\"{}\"", "x".repeat(131_071)), 413);
    assert_eq!(legacy.send("POST", publish, &[JSON], &format!("\"{}\"", "x".repeat(131_070))).status, 201);
    for bad in ["a.b", "%zz", "a%2Fb", "a%20b", "millrace-x"] {
        legacy.refuses("POST", &format!("/topic/register/{bad}"), &[], "", 400);
    }
    // HEAD would hand out a message that nobody sees.
    for (method, path, allow) in
        [("HEAD", get, "GET"), ("POST", get, "GET"), ("GET", publish, "POST"), ("GET", "/topic/register/foo", "POST")]
    {
        let response = legacy.send(method, path, &[], "");
        assert_eq!((response.status, response.header("allow")), (405, Some(allow)), "{method} {path}");
    }
    // Health, in whatever type.
    for (accept, media_type) in [
        ("*/*", "application/json;charset=utf-8"),
        ("text/plain", "text/plain;charset=utf-8"),
        ("application/*, application/xml;q=0.5", "application/xml;charset=utf-8"),
    ] {
        let health = legacy.send("GET", "/health", &[("accept", accept)], "");
        assert_eq!((health.status, health.text()), (200, r#"{"status":"healthy"}"#), "{accept}");
        assert_eq!(health.header("content-type"), Some(media_type), "{accept}");
    }
}

/// Without authentication the address is the principal, and has no rights but these.
fn the_address_is_the_principal(legacy: Legacy) {
    let api = Api(legacy.address);
    let none = &Value::Null;
    let topic = api.expect("GET", "/v1/topics/foo", none, 200);
    assert_eq!((&topic["owner"], &topic["subscriptions"]), (&json!("addr:127.0.0.1"), &json!(1)));
    assert_eq!(topic["grants"], json!({"*": {"publish": false, "subscribe": true, "manage": false}}));
    let listed = api.expect("GET", "/v1/topics/foo/subscriptions", none, 200);
    let own = &listed["subscriptions"][0];
    assert_eq!((&own["name"], &own["owner"]), (&json!("addr%3A127%2E0%2E0%2E1"), &json!("addr:127.0.0.1")));
    // Somebody else's topic: to subscribe to it needs a right, to publish to it is the owner's.
    api.expect("PUT", "/v1/topics/private", none, 201);
    legacy.refuses("POST", "/topic/subscribe/private", &[], "", 403);
    legacy.error("POST", "/topic/register/private", "", 409, "Topic 'private' is already registered");
    legacy.error("POST", "/message/publish/private", "1", 401, "the topic belongs to another principal");
    let refused = api.expect("PUT", "/v1/topics/private/grants/*", &json!({"manage": true}), 400);
    assert_eq!(refused["field"], json!("manage"));
    api.expect("PUT", "/v1/topics/private/grants/*", &json!({"subscribe": true}), 200);
    legacy.expect("POST", "/topic/subscribe/private", "", 201, r#"{"name":"private","position":0}"#);
    // Messages of any kind are texts here.
    api.publish("private", "plain \"text\"", &[("content-type", "text/plain")]);
    let content = r#"{"topic":"private","content":"plain \"text\""}"#;
    legacy.expect("GET", "/message/get/private", "", 200, content);
}

#[test]
fn every_call_on_the_embedded_engine() {
    let mut up = Up::with(&[ENABLED, ("topics.legacy.prefix", "/")]);
    let legacy = Legacy { address: up.command, base: "" };
    every_call(legacy, legacy);
    a_subscriber_begins_at_the_newest_message(legacy);
    what_is_not_served_is_refused(legacy);
    the_address_is_the_principal(legacy);
    let document: Value = http(up.command, "GET", "/openapi.json", &[], "").unwrap().json();
    for path in ["/topic/register/{topic}", "/message/get/{topic}", "/health", "/v1/topics"] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
    // An acknowledgement settles what this coordinator handed out; what is settled stays so, and so does its position.
    legacy.expect("GET", "/message/get/private", "", 200, r#"{"topic":"private","content":"plain \"text\""}"#);
    up.service.kill();
    up.service.restart();
    up.service.wait_ready(up.command);
    legacy.expect("POST", "/message/ack/private", "", 204, "");
    legacy.expect("GET", "/message/get/private", "", 200, r#"{"topic":"private","content":"plain \"text\""}"#);
    legacy.expect("POST", "/message/ack/private", "", 201, r#"{"name":"private","position":32}"#);
    legacy.expect("GET", "/message/get/late", "", 204, "");
    legacy.expect("POST", "/message/publish/late", "4", 201, r#"{"topic":"late","content":"4"}"#);
    legacy.expect("GET", "/message/get/late", "", 200, r#"{"topic":"late","content":"4"}"#);
    legacy.expect("POST", "/message/ack/late", "", 201, r#"{"name":"late","position":36}"#);
}

#[test]
fn every_call_on_kafka_through_any_instance() {
    let Some(brokers) = millrace_testkit::kafka("the earlier system's calls on Kafka") else { return };
    let more = [ENABLED, ("topics.legacy.prefix", "/old/v1")];
    let Some(cluster) = Cluster::with(brokers, "the earlier system's calls on Kafka", 2, &more) else { return };
    let instances = cluster.publics("command");
    let [one, other] = [instances[0], instances[1]].map(|address| Legacy { address, base: "/old/v1" });
    every_call(one, other);
    a_subscriber_begins_at_the_newest_message(other);
    what_is_not_served_is_refused(one);
    the_address_is_the_principal(one);
}

#[test]
fn they_are_off_unless_switched_on() {
    let up = Up::start();
    for base in ["", "/legacy"] {
        for (method, path) in [("POST", "/topic/register/foo"), ("GET", "/message/get/foo"), ("GET", "/health")] {
            assert_eq!(Legacy { address: up.command, base }.send(method, path, &[], "").status, 404, "{base}{path}");
        }
    }
}

#[test]
fn with_authentication_a_key_is_the_principal() {
    let keys = Keys::new();
    let scopes = ["topics:manage", "topics:publish", "topics:subscribe"];
    let (alice, bob) = (bearer(&keys.create("alice", &scopes)), bearer(&keys.create("bob", &scopes)));
    let reader = bearer(&keys.create("reader", &["topics:subscribe"]));
    let up = keys.up_with(&[ENABLED]);
    let legacy = Legacy { address: up.command, base: "/legacy" };
    let send = |key: &str, method: &str, path: &str, body: &str| {
        let response = legacy.send(method, path, &[("authorization", key), JSON], body);
        (response.status, response.into_text())
    };
    legacy.refuses("POST", "/topic/register/foo", &[], "", 401);
    legacy.refuses("GET", "/message/get/foo", &[("authorization", "Bearer x")], "", 401);
    legacy.refuses("POST", "/topic/register/foo", &[("authorization", &reader)], "", 403);
    assert_eq!(legacy.send("GET", "/health", &[], "").status, 200);
    assert_eq!(send(&alice, "POST", "/topic/register/foo", ""), (201, r#"{"name":"foo","position":0}"#.into()));
    let registered = r#"{"error":"Topic 'foo' is already registered"}"#;
    assert_eq!(send(&bob, "POST", "/topic/register/foo", ""), (409, registered.into()));
    for key in [&alice, &bob, &reader] {
        assert_eq!(send(key, "POST", "/topic/subscribe/foo", ""), (201, r#"{"name":"foo","position":0}"#.into()));
    }
    assert_eq!(send(&bob, "POST", "/message/publish/foo", "1").0, 401, "the owner publishes");
    assert_eq!(send(&alice, "POST", "/message/publish/foo", "1").0, 201);
    // Each has a position of its own.
    for key in [&bob, &reader] {
        assert_eq!(send(key, "GET", "/message/get/foo", "").0, 200);
        assert_eq!(send(key, "POST", "/message/ack/foo", ""), (201, r#"{"name":"foo","position":17}"#.into()));
    }
    assert_eq!(send(&bob, "GET", "/message/get/foo", "").0, 204);
    assert_eq!(send(&alice, "GET", "/message/get/foo", "").0, 200);
    let name = "/v1/topics/foo/subscriptions/key%253Abob";
    let own = http(up.command, "GET", name, &[("authorization", &bob)], "").unwrap().json();
    assert_eq!((&own["owner"], &own["backlog"]), (&json!("key:bob"), &json!(0)));
}
