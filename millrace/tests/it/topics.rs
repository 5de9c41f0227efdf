//! Topics and subscriptions through HTTP, on the embedded engine and on Kafka.

use std::net::SocketAddr;

use millrace_testkit::{Response, http, wait_until};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::run::{Up, WITHIN};

/// A write side, wherever it runs.
#[derive(Clone, Copy)]
pub(crate) struct Api(pub(crate) SocketAddr);

impl Api {
    pub(crate) fn call(self, method: &str, path: &str, body: &Value) -> Response {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        http(self.0, method, path, &[("content-type", "application/json")], &body).unwrap()
    }

    /// A call that must have this status.
    pub(crate) fn expect(self, method: &str, path: &str, body: &Value, status: u16) -> Value {
        let response = self.call(method, path, body);
        assert_eq!(response.status, status, "{method} {path} {body}: {}", response.text());
        serde_json::from_str(response.text()).unwrap_or(Value::Null)
    }

    pub(crate) fn publish(self, topic: &str, body: &str, headers: &[(&str, &str)]) -> Value {
        let response = http(self.0, "POST", &format!("/v1/topics/{topic}/messages"), headers, body).unwrap();
        assert!([200, 201].contains(&response.status), "{}", response.text());
        serde_json::from_str(response.text()).unwrap()
    }

    pub(crate) fn get(self, topic: &str, subscription: &str, query: &str) -> Response {
        self.call("GET", &format!("/v1/topics/{topic}/subscriptions/{subscription}/messages{query}"), &Value::Null)
    }

    pub(crate) fn ack(self, topic: &str, subscription: &str, token: &str) -> Value {
        let path = format!("/v1/topics/{topic}/subscriptions/{subscription}:ack");
        self.expect("POST", &path, &json!({ "tokens": [token] }), 200)
    }

    pub(crate) fn subscription(self, topic: &str, subscription: &str) -> Value {
        self.expect("GET", &format!("/v1/topics/{topic}/subscriptions/{subscription}"), &Value::Null, 200)
    }
}

fn token(response: &Response) -> String {
    assert_eq!(response.status, 200, "{}", response.text());
    response.header("millrace-token").unwrap().to_owned()
}

/// The lines of a page.
fn lines(response: &Response) -> Vec<Value> {
    assert_eq!(response.status, 200, "{}", response.text());
    response.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn first_message(api: Api) {
    let none = &Value::Null;
    let topic = api.expect("PUT", "/v1/topics/orders", none, 201);
    assert_eq!(
        (&topic["name"], &topic["owner"], &topic["messages"]),
        (&json!("orders"), &json!("anonymous"), &json!(0))
    );
    assert_eq!(topic["settings"], json!({"retention":"72h","delay":"0s","max_message_bytes":131_072,"description":""}));
    api.expect("PUT", "/v1/topics/orders", none, 200);
    let conflict = api.expect("PUT", "/v1/topics/orders", &json!({"delay": "1s"}), 409);
    assert_eq!((&conflict["code"], &conflict["field"]), (&json!("exists"), &json!("delay")));
    let subscribed = api.expect("PUT", "/v1/topics/orders/subscriptions/worker", &json!({"mode": "pull"}), 201);
    assert_eq!((&subscribed["state"], &subscribed["backlog"]), (&json!("active"), &json!(0)));
    assert_eq!(api.get("orders", "worker", "").status, 204);
    let headers =
        [("content-type", "text/plain"), ("x-attr-kind", "created"), ("x-key", "c1"), ("ce-subject", "caf%C3%A9")];
    let published = api.publish("orders", "hello", &headers);
    assert_eq!(published["duplicate"], json!(false));
    for _ in 0..2 {
        let message = api.get("orders", "worker", "");
        assert_eq!((message.status, message.text()), (200, "hello"));
        assert_eq!(message.header("content-type"), Some("text/plain"));
        assert_eq!(message.header("millrace-id"), published["id"].as_str());
        assert_eq!(message.header("x-attr-kind"), Some("created"));
        assert_eq!(message.header("x-key"), Some("c1"));
        assert_eq!(message.header("ce-subject"), Some("caf%C3%A9"));
        assert_eq!(message.header("millrace-attempt"), Some("1"));
    }
    assert_eq!(api.subscription("orders", "worker")["backlog"], json!(1));
    let token = token(&api.get("orders", "worker", ""));
    assert_eq!(api.ack("orders", "worker", &token), json!({"acknowledged": 1, "already": 0, "stale": 0}));
    assert_eq!(api.ack("orders", "worker", &token), json!({"acknowledged": 0, "already": 1, "stale": 0}));
    assert_eq!(api.get("orders", "worker", "").status, 204);
    assert_eq!(api.subscription("orders", "worker")["backlog"], json!(0));
}

fn pages_leases_and_retries(api: Api) {
    let none = &Value::Null;
    api.expect("PUT", "/v1/topics/jobs", none, 201);
    api.expect("PUT", "/v1/topics/jobs/subscriptions/s", &json!({"mode": "pull", "max_attempts": 2}), 201);
    let items: Vec<Value> = (0..10).map(|n| json!({"body": {"n": n}, "attributes": {"n": n.to_string()}})).collect();
    let results = api.expect("POST", "/v1/topics/jobs/messages:batch", &json!(items), 200);
    assert_eq!(results.as_array().unwrap().len(), 10);
    assert!(results.as_array().unwrap().iter().all(|result| result["code"] == json!("published")), "{results}");
    let page = lines(&api.get("jobs", "s", "?max=4"));
    assert_eq!(page.iter().map(|line| line["body"]["n"].clone()).collect::<Vec<_>>(), [0, 1, 2, 3].map(Value::from));
    // Leased messages are hidden, and come back when they are returned.
    let leased = lines(&api.get("jobs", "s", "?max=3&lease=1m"));
    let next = lines(&api.get("jobs", "s", "?max=2&lease=1m"));
    assert_eq!(next[0]["body"]["n"], json!(3));
    let tokens: Vec<&Value> = leased.iter().map(|line| &line["token"]).collect();
    let nacked =
        api.expect("POST", "/v1/topics/jobs/subscriptions/s:nack", &json!({"tokens": [tokens[1]], "delay": "0s"}), 200);
    assert_eq!(nacked["acknowledged"], json!(1));
    let again = lines(&api.get("jobs", "s", "?max=2&lease=1m"));
    assert_eq!((&again[0]["body"]["n"], &again[0]["attempt"]), (&json!(1), &json!(2)));
    let extended = json!({"tokens": [tokens[0]], "lease": "2m"});
    assert_eq!(api.expect("POST", "/v1/topics/jobs/subscriptions/s:extend", &extended, 200)["acknowledged"], json!(1));
    let stale = json!({"tokens": [tokens[1]], "lease": "2m"});
    assert_eq!(api.expect("POST", "/v1/topics/jobs/subscriptions/s:extend", &stale, 409)["code"], json!("stale-token"));
    // A second failure is the last one: the message is dead-lettered.
    let last = json!({"tokens": [again[0]["token"]], "delay": "0s"});
    api.expect("POST", "/v1/topics/jobs/subscriptions/s:nack", &last, 200);
    let settled = || api.subscription("jobs", "s")["in_retry"] == json!(0);
    assert!(wait_until(WITHIN, settled), "{}", api.subscription("jobs", "s"));
    let up_to = json!({"up_to": next[1]["token"]});
    api.expect("POST", "/v1/topics/jobs/subscriptions/s:ack", &up_to, 200);
    let status = api.subscription("jobs", "s");
    assert_eq!((&status["backlog"], &status["leased"]), (&json!(5), &json!(1)), "{status}");
    // Seek goes back to the beginning, a time or an offset; tokens from before are stale.
    api.expect("POST", "/v1/topics/jobs/subscriptions/s:seek", &json!({"to": "earliest"}), 200);
    let stale = json!({"tokens": [leased[0]["token"]]});
    assert_eq!(api.expect("POST", "/v1/topics/jobs/subscriptions/s:ack", &stale, 409)["code"], json!("stale-token"));
    assert_eq!(api.subscription("jobs", "s")["backlog"], json!(10));
    assert_eq!(lines(&api.get("jobs", "s", "?max=100")).len(), 10);
    api.expect("POST", "/v1/topics/jobs/subscriptions/s:seek", &json!({"to": {"offset": results[7]["offset"]}}), 200);
    assert_eq!(lines(&api.get("jobs", "s", "?max=100")).len(), 3);
    assert_eq!(api.subscription("jobs", "s")["backlog"], json!(3));
    api.expect("POST", "/v1/topics/jobs/subscriptions/s:seek", &json!({"to": "latest"}), 200);
    assert_eq!(api.get("jobs", "s", "").status, 204);
}

fn filters_keys_delays_and_refusals(api: Api) {
    let none = &Value::Null;
    api.expect("PUT", "/v1/topics/mixed", &json!({"max_message_bytes": 1000}), 201);
    let filter = json!({"mode": "pull", "filter": {"exact": {"kind": "a"}}});
    api.expect("PUT", "/v1/topics/mixed/subscriptions/filtered", &filter, 201);
    for n in 0..6 {
        api.publish("mixed", &n.to_string(), &[("x-attr-kind", if n % 2 == 0 { "a" } else { "b" })]);
    }
    for expected in ["0", "2", "4"] {
        let message = api.get("mixed", "filtered", "");
        assert_eq!(message.text(), expected);
        api.ack("mixed", "filtered", &token(&message));
    }
    assert_eq!(api.get("mixed", "filtered", "").status, 204);
    // The same key publishes once.
    let first = api.publish("mixed", "once", &[("idempotency-key", "k1"), ("x-attr-kind", "a")]);
    let second = api.publish("mixed", "once", &[("idempotency-key", "k1"), ("x-attr-kind", "a")]);
    assert_eq!((&first["duplicate"], &second["duplicate"]), (&json!(false), &json!(true)));
    assert_eq!((&first["offset"], &first["id"]), (&second["offset"], &second["id"]));
    let path = "/v1/topics/mixed/messages";
    let reused = http(api.0, "POST", path, &[("idempotency-key", "k1")], "other").unwrap();
    assert_eq!(reused.status, 422, "{}", reused.text());
    api.ack("mixed", "filtered", &token(&api.get("mixed", "filtered", "")));
    // A delayed message is published when it is due, and wakes whoever waits.
    let delayed = api.publish("mixed", "later", &[("x-deliver-after", "700ms"), ("x-attr-kind", "a")]);
    assert_eq!(api.get("mixed", "filtered", "").status, 204);
    let message = api.get("mixed", "filtered", "?wait=20s");
    assert_eq!((message.text(), message.header("millrace-id")), ("later", delayed["id"].as_str()));
    api.ack("mixed", "filtered", &token(&message));
    // What is wrong is refused by name.
    for (method, path, body, status, code) in [
        ("GET", "/v1/topics/absent", none, 404, "not-found"),
        ("GET", "/v1/topics/mixed/subscriptions/absent", none, 404, "not-found"),
        ("PUT", "/v1/topics/a%2Fb", none, 400, "invalid-field"),
        ("PUT", "/v1/topics/millrace-x", none, 400, "invalid-field"),
        ("PUT", "/v1/topics/x", &json!({"retention": "1ms"}), 400, "invalid-field"),
        ("PUT", "/v1/topics/x", &json!({"colour": 1}), 400, "unknown-field"),
        ("PUT", "/v1/topics/x?colour=1", none, 400, "unknown-field"),
        ("PUT", "/v1/topics/mixed/subscriptions/a:b", &json!({"mode": "pull"}), 400, "invalid-field"),
        ("GET", "/v1/topics/mixed/subscriptions/filtered:ack", none, 405, "method-not-allowed"),
        ("PUT", "/v1/topics/mixed/subscriptions/filtered%3Aack", none, 405, "method-not-allowed"),
        ("POST", "/v1/topics/mixed/subscriptions/filtered", none, 405, "method-not-allowed"),
        ("POST", "/v1/topics/mixed/subscriptions/filtered:brew", none, 404, "not-found"),
        ("PUT", "/v1/topics/mixed/subscriptions/x", &json!({}), 400, "missing-field"),
        ("PUT", "/v1/topics/mixed/subscriptions/x", &json!({"mode": "pull", "filter": {}}), 400, "invalid-field"),
        ("GET", "/v1/topics/mixed/subscriptions/filtered/messages?max=0", none, 400, "invalid-field"),
        ("GET", "/v1/topics/mixed/subscriptions/filtered/messages?wait=1h", none, 400, "invalid-field"),
        ("GET", "/v1/topics/mixed/subscriptions/filtered/messages?lease=1ms", none, 400, "invalid-field"),
        ("POST", "/v1/topics/mixed/subscriptions/filtered:ack", &json!({"tokens": ["x"]}), 422, "invalid-token"),
        ("POST", "/v1/topics/mixed/subscriptions/filtered:ack", &json!({"tokens": []}), 400, "invalid-field"),
        ("POST", "/v1/topics/mixed/messages:batch", &json!([]), 422, "empty-batch"),
    ] {
        let problem = api.expect(method, path, body, status);
        assert_eq!(problem["code"], json!(code), "{method} {path} {body}: {problem}");
    }
    let large = http(api.0, "POST", path, &[], &"x".repeat(1001)).unwrap();
    assert_eq!(large.status, 413);
    assert_eq!(api.call("HEAD", "/v1/topics/mixed/subscriptions/filtered/messages", none).status, 405);
    // Suspended: the position stays.
    api.expect("POST", "/v1/topics/mixed/subscriptions/filtered:suspend", none, 200);
    assert_eq!(api.get("mixed", "filtered", "").status, 409);
    assert_eq!(
        api.expect("POST", "/v1/topics/mixed/subscriptions/filtered:resume", none, 200)["state"],
        json!("active")
    );
    // A deleted topic's name rests, and its tokens are stale on the next one of that name.
    assert_eq!(api.call("DELETE", "/v1/topics/mixed", none).status, 204);
    assert_eq!(api.expect("PUT", "/v1/topics/mixed", none, 409)["code"], json!("name-resting"));
    api.expect("GET", "/v1/topics/mixed/subscriptions/filtered", none, 404);
}

fn all(api: Api) {
    first_message(api);
    pages_leases_and_retries(api);
    filters_keys_delays_and_refusals(api);
    let listed = api.expect("GET", "/v1/topics?limit=1", &Value::Null, 200);
    assert_eq!((&listed["topics"][0]["name"], &listed["next"]), (&json!("jobs"), &json!("jobs")));
    let rest = api.expect("GET", "/v1/topics?after=jobs", &Value::Null, 200);
    assert_eq!((&rest["topics"][0]["name"], &rest["next"]), (&json!("orders"), &Value::Null));
}

#[test]
fn topics_on_the_embedded_engine() {
    let up = Up::start();
    all(Api(up.command));
}

#[test]
fn topics_on_kafka_through_any_instance() {
    let Some(cluster) = Cluster::on_shared_servers("topics on Kafka", 2) else { return };
    let commands = cluster.publics("command");
    all(Api(commands[0]));
    // A subscriber alternates between instances, message by message.
    let (one, other) = (Api(commands[0]), Api(commands[1]));
    one.expect("PUT", "/v1/topics/turns", &Value::Null, 201);
    other.expect("PUT", "/v1/topics/turns/subscriptions/s", &json!({"mode": "pull"}), 201);
    for n in 0..50 {
        let api = if n % 2 == 0 { one } else { other };
        api.publish("turns", &n.to_string(), &[]);
    }
    for n in 0..50 {
        let (get, ack) = if n % 2 == 0 { (one, other) } else { (other, one) };
        let message = get.get("turns", "s", "");
        assert_eq!(message.text(), n.to_string());
        ack.ack("turns", "s", &token(&message));
    }
    assert_eq!(one.get("turns", "s", "").status, 204);
}

#[test]
fn an_acknowledgement_survives_a_kill() {
    let mut up = Up::start();
    let api = Api(up.command);
    api.expect("PUT", "/v1/topics/t", &Value::Null, 201);
    api.expect("PUT", "/v1/topics/t/subscriptions/s", &json!({"mode": "pull"}), 201);
    let mut published = 0;
    for round in 0..3 {
        for _ in 0..20 {
            api.publish("t", &published.to_string(), &[]);
            published += 1;
        }
        for n in round * 15..(round + 1) * 15 {
            let message = api.get("t", "s", "");
            assert_eq!(message.text(), n.to_string(), "round {round}");
            api.ack("t", "s", &token(&message));
        }
        up.service.kill();
        up.service.restart();
        up.service.wait_ready(up.command);
        let next = api.get("t", "s", "?wait=10s");
        assert_eq!(next.text(), ((round + 1) * 15).to_string(), "what was acknowledged stays so, what was not comes");
        let backlog = api.subscription("t", "s")["backlog"].clone();
        assert_eq!(backlog, json!(published - (round + 1) * 15));
    }
}
