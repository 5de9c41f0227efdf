//! Push subscriptions through HTTP and real endpoints, on the embedded engine and on Kafka.

mod consent;
mod diagnosis;
mod events;
mod examples;
pub(crate) mod receiver;
mod slow;
mod verify_webhook;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use millrace_testkit::wait_until;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::cluster::Cluster;
use crate::run::{Up, WITHIN};
use crate::topics::Api;
use receiver::{Received, Receiver};

pub(crate) const ALLOWED: (&str, &str) = ("delivery.allow_targets", "[\"127.0.0.0/8\"]");

fn subscribe(api: Api, topic: &str, name: &str, receiver: &Receiver, more: &Value) -> Value {
    let mut body = json!({"mode": "push", "push": {"url": receiver.url(), "schedule": ["100ms"]}});
    for (member, value) in more.as_object().unwrap() {
        match (body.get_mut(member).and_then(Value::as_object_mut), value.as_object()) {
            (Some(known), Some(value)) => known.extend(value.clone()),
            _ => drop(body.as_object_mut().unwrap().insert(member.clone(), value.clone())),
        }
    }
    api.expect("PUT", &format!("/v1/topics/{topic}/subscriptions/{name}"), &body, 201)
}

/// Verifies a signature as a receiver does, by the text of Standard Webhooks.
fn is_signed(request: &Received, secret: &str) -> bool {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{}.{}.", request.id(), request.header("webhook-timestamp")).as_bytes());
    mac.update(&request.body);
    let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    request.header("webhook-signature").split(' ').any(|signature| signature == expected)
}

/// Waits until the endpoint received so many requests, and everything is settled.
fn arrived(api: Api, topic: &str, receiver: &Receiver, requests: usize) {
    let came = || receiver.received().len() >= requests;
    assert!(wait_until(WITHIN, came), "{:?}", receiver.received());
    settled(api, topic, "hook");
}

fn settled(api: Api, topic: &str, name: &str) {
    let done = || api.subscription(topic, name)["backlog"] == json!(0);
    assert!(wait_until(WITHIN, done), "{}", api.subscription(topic, name));
}

fn every_message_arrives_signed(api: Api) {
    let receiver = Receiver::start();
    api.expect("PUT", "/v1/topics/signed", &Value::Null, 201);
    let more = json!({"push": {"headers": {"Authorization": "Bearer t"}}});
    let created = subscribe(api, "signed", "hook", &receiver, &more);
    let secret = created["secret"].as_str().unwrap().to_owned();
    assert_eq!((&created["mode"], &created["state"]), (&json!("push"), &json!("active")));
    let mut ids = BTreeSet::new();
    for n in 0..30 {
        let headers =
            [("content-type", "text/plain"), ("x-attr-kind", "a"), ("ce-subject", "caf%C3%A9"), ("x-key", "k")];
        let published = api.publish("signed", &n.to_string(), &headers);
        ids.insert(published["id"].as_str().unwrap().to_owned());
    }
    arrived(api, "signed", &receiver, 30);
    let received = receiver.received();
    assert_eq!(received.iter().map(|request| request.id().to_owned()).collect::<BTreeSet<_>>(), ids);
    for request in &received {
        assert!(is_signed(request, &secret), "{request:?}");
        for (name, value) in [
            ("content-type", "text/plain"),
            ("webhook-attempt", "1"),
            ("millrace-topic", "signed"),
            ("millrace-subscription", "hook"),
            ("x-attr-kind", "a"),
            ("ce-subject", "caf%C3%A9"),
            ("x-key", "k"),
            ("authorization", "Bearer t"),
        ] {
            assert_eq!(request.header(name), value, "{name}");
        }
    }
    // Nothing of the secrets is shown again, and a pull is refused with the mode.
    let shown = api.subscription("signed", "hook");
    assert_eq!((&shown["secret"], &shown["push"]["headers"]), (&Value::Null, &json!({"authorization": null})));
    assert_eq!(api.get("signed", "hook", "").status, 409);
    let attempts = api.expect("GET", "/v1/topics/signed/subscriptions/hook/attempts?limit=1", &Value::Null, 200);
    assert_eq!((&attempts["attempts"][0]["status"], &attempts["attempts"][0]["error"]), (&json!(204), &Value::Null));
    // Both secrets sign for a while.
    let rotated =
        api.expect("POST", "/v1/topics/signed/subscriptions/hook:rotate-secret", &json!({"overlap": "1h"}), 200);
    let fresh = rotated["secret"].as_str().unwrap();
    api.publish("signed", "rotated", &[]);
    arrived(api, "signed", &receiver, 31);
    let last = receiver.received().pop().unwrap();
    assert!(last.text() == "rotated" && is_signed(&last, &secret) && is_signed(&last, fresh), "{last:?}");
}

fn bodies_have_the_form_that_is_set(api: Api) {
    let receiver = Receiver::start();
    api.expect("PUT", "/v1/topics/forms", &Value::Null, 201);
    subscribe(api, "forms", "hook", &receiver, &json!({"push": {"body": "cloudevents-structured"}}));
    api.publish("forms", "{\"n\": 1.50}", &[("content-type", "application/json"), ("ce-type", "order.created")]);
    arrived(api, "forms", &receiver, 1);
    let received = receiver.received();
    assert_eq!(received[0].header("content-type"), "application/cloudevents+json; charset=utf-8");
    let event: Value = serde_json::from_slice(&received[0].body).unwrap();
    assert_eq!((&event["type"], &event["source"]), (&json!("order.created"), &json!("/v1/topics/forms")));
    assert!(received[0].text().contains("1.50"), "numbers stay as they were written: {}", received[0].text());
    let path = "/v1/topics/forms/subscriptions/hook";
    api.expect("PATCH", path, &json!({"push": {"body": "envelope"}}), 200);
    api.publish("forms", "raw", &[("content-type", "text/plain")]);
    arrived(api, "forms", &receiver, 2);
    let line: Value = serde_json::from_slice(&receiver.received()[1].body).unwrap();
    assert_eq!((&line["body_base64"], &line["token"], &line["attempt"]), (&json!("cmF3"), &Value::Null, &json!(1)));
    api.expect("PATCH", path, &json!({"push": {"body": "cloudevents-binary"}}), 200);
    api.publish("forms", "x", &[("x-attr-kind", "a b")]);
    arrived(api, "forms", &receiver, 3);
    let last = receiver.received().pop().unwrap();
    assert_eq!((last.header("ce-kind"), last.header("ce-type"), last.text()), ("a%20b", "millrace.message", "x"));
}

fn a_failed_message_is_sent_again_and_given_up(api: Api) {
    let receiver = Receiver::start();
    api.expect("PUT", "/v1/topics/failing", &Value::Null, 201);
    subscribe(api, "failing", "hook", &receiver, &json!({"max_attempts": 3, "push": {"permanent_statuses": [400]}}));
    receiver.answers(|request| match (request.text(), request.header("webhook-attempt")) {
        ("flaky", "1" | "2") => Some((500, "")),
        ("redirected", "1") => Some((302, "location: http://169.254.169.254/\r\n")),
        ("refused", _) => Some((400, "")),
        ("hopeless", _) => Some((503, "")),
        _ => Some((200, "")),
    });
    for body in ["flaky", "redirected", "refused", "hopeless", "good"] {
        api.publish("failing", body, &[]);
    }
    arrived(api, "failing", &receiver, 10);
    let mut attempts: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for request in receiver.received() {
        let attempt = (request.id().to_owned(), request.header("webhook-attempt").to_owned());
        attempts.entry(request.text().to_owned()).or_default().push(attempt);
    }
    let counts: BTreeMap<&str, usize> = attempts.iter().map(|(body, tries)| (&**body, tries.len())).collect();
    let expected = [("flaky", 3), ("redirected", 2), ("refused", 1), ("hopeless", 3), ("good", 1)];
    assert_eq!(counts, expected.into_iter().collect());
    for (body, tries) in &attempts {
        assert!(tries.iter().all(|(id, _)| *id == tries[0].0), "{body}: {tries:?}");
        let numbers: Vec<String> = (1..=tries.len()).map(|n| n.to_string()).collect();
        assert_eq!(tries.iter().map(|(_, attempt)| attempt.clone()).collect::<Vec<_>>(), numbers, "{body}");
    }
    let path = "/v1/topics/failing/subscriptions/hook/dead-letters";
    let letters = api.expect("GET", path, &Value::Null, 200);
    let reasons: BTreeMap<String, (Value, Value)> = letters["dead_letters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|letter| {
            let body = STANDARD.decode(letter["message"]["body_base64"].as_str().unwrap()).unwrap();
            (String::from_utf8(body).unwrap(), (letter["reason"].clone(), letter["last_status"].clone()))
        })
        .collect();
    let expected = [
        ("hopeless".to_owned(), (json!("max-attempts"), json!(503))),
        ("refused".to_owned(), (json!("permanent-status"), json!(400))),
    ];
    assert_eq!(reasons, expected.into_iter().collect());
    let beyond = api.expect("GET", &format!("{path}?after=999999"), &Value::Null, 200);
    assert_eq!(beyond, json!({"dead_letters": [], "next": null}));
    // It fails again: a new letter.
    let redriven = api.expect("POST", &format!("{path}:redrive"), &json!({"status": 400}), 202);
    let progress = |redriven: &Value, done: u64, failed: u64| {
        let id = redriven["redrive"].as_str().unwrap();
        let expected = json!({"redrive": id, "selected": 1, "done": done, "failed": failed, "state": "done"});
        let path = format!("/v1/topics/failing/subscriptions/hook/redrives/{id}");
        let known = || api.expect("GET", &path, &Value::Null, 200);
        assert!(wait_until(WITHIN, || known() == expected), "{}, not {expected}", known());
    };
    progress(&redriven, 0, 1);
    let missing = "/v1/topics/failing/subscriptions/hook/redrives/0123456789abcdef";
    assert_eq!(api.expect("GET", missing, &Value::Null, 404)["field"], json!("redrive"));
    // Another try: the same id, attempts from 1; they leave the list.
    receiver.answers(|_| Some((204, "")));
    let before = receiver.received().len();
    let redriven = api.expect("POST", &format!("{path}:redrive"), &json!({"status": 400}), 202);
    assert_eq!(redriven["selected"], json!(1));
    arrived(api, "failing", &receiver, before + 1);
    let again = &receiver.received()[before..];
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].id(), again[0].header("webhook-attempt")), (&*attempts["refused"][0].0, "1"));
    progress(&redriven, 1, 0);
    assert_eq!(api.expect("POST", &format!("{path}:redrive"), &json!({}), 202)["selected"], json!(1));
    arrived(api, "failing", &receiver, before + 2);
    let left = api.expect("GET", path, &Value::Null, 200);
    assert_eq!(left["dead_letters"], json!([]), "both were sent again");
    assert_eq!(api.expect("POST", &format!("{path}:redrive"), &json!({}), 202)["selected"], json!(0));
}

fn an_endpoint_can_rest_and_leave(api: Api) {
    let receiver = Receiver::start();
    api.expect("PUT", "/v1/topics/gone", &Value::Null, 201);
    subscribe(api, "gone", "hook", &receiver, &json!({}));
    receiver.answers(|request| match request.header("webhook-attempt") {
        "1" => Some((429, "retry-after: 1\r\n")),
        _ => Some((204, "")),
    });
    api.publish("gone", "rest", &[]);
    arrived(api, "gone", &receiver, 2);
    let received = receiver.received();
    assert!(received[1].at - received[0].at >= Duration::from_millis(900), "the pause that was requested");
    // The rest is the endpoint's, the schedule the message's: others do not wait for it.
    let path = "/v1/topics/gone/subscriptions/hook";
    api.expect("PATCH", path, &json!({"push": {"schedule": ["1d"]}}), 200);
    for body in ["late", "soon"] {
        receiver.answers(move |request| match request.text() {
            "late" => Some((429, "retry-after: 1\r\n")),
            _ => Some((204, "")),
        });
        api.publish("gone", body, &[]);
    }
    let soon = || receiver.received().iter().any(|request| request.text() == "soon");
    assert!(wait_until(WITHIN, soon), "{}", api.subscription("gone", "hook"));
    api.expect("POST", "/v1/topics/gone/subscriptions/hook:seek", &json!({"to": "latest"}), 200);
    api.expect("PATCH", path, &json!({"push": {"schedule": ["100ms"]}}), 200);
    receiver.answers(|_| Some((410, "")));
    for n in 0..3 {
        api.publish("gone", &n.to_string(), &[]);
    }
    let suspended = || api.subscription("gone", "hook")["state"] == json!("suspended");
    assert!(wait_until(WITHIN, suspended));
    let shown = api.subscription("gone", "hook");
    assert_eq!((&shown["reason"], &shown["backlog"]), (&json!("endpoint-gone"), &json!(3)));
    receiver.answers(|_| Some((204, "")));
    api.expect("POST", "/v1/topics/gone/subscriptions/hook:resume", &Value::Null, 200);
    settled(api, "gone", "hook");
    let bodies: BTreeSet<String> = receiver.received().iter().map(|request| request.text().to_owned()).collect();
    assert_eq!(bodies, ["rest", "late", "soon", "0", "1", "2"].map(str::to_owned).into());
}

fn messages_of_a_key_keep_their_order(api: Api) {
    let receiver = Receiver::start();
    api.expect("PUT", "/v1/topics/keyed", &Value::Null, 201);
    subscribe(api, "keyed", "hook", &receiver, &json!({"order": "key"}));
    // The first attempt of every fifth message fails; the successors of its key wait for it.
    receiver.answers(|request| {
        let number: u32 = request.text().parse().unwrap();
        let fails = number.is_multiple_of(5) && request.header("webhook-attempt") == "1";
        Some((if fails { 500 } else { 204 }, ""))
    });
    for n in 0..40 {
        api.publish("keyed", &n.to_string(), &[("x-key", ["a", "b", "c"][n % 3])]);
    }
    arrived(api, "keyed", &receiver, 48);
    let mut delivered: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for request in receiver.received() {
        let number: u32 = request.text().parse().unwrap();
        let numbers = delivered.entry(request.header("x-key").to_owned()).or_default();
        if numbers.last() != Some(&number) {
            numbers.push(number);
        }
    }
    for (key, numbers) in delivered {
        assert!(numbers.is_sorted(), "{key}: {numbers:?}");
    }
}

fn targets_are_guarded(api: Api) {
    api.expect("PUT", "/v1/topics/guarded", &Value::Null, 201);
    let path = "/v1/topics/guarded/subscriptions/hook";
    for url in ["http://10.0.0.1/", "http://169.254.169.254/latest", "http://[::1]:8081/", "http://[::ffff:127.0.0.1]/"]
    {
        let refused = api.expect("PUT", path, &json!({"mode": "push", "push": {"url": url}}), 422);
        assert_eq!((&refused["code"], &refused["field"]), (&json!("blocked-target"), &json!("push.url")), "{url}");
    }
    for (body, field) in [
        (json!({"mode": "push"}), "push.url"),
        (json!({"mode": "push", "push": {"url": "ftp://a.example/"}}), "push.url"),
        (json!({"mode": "push", "push": {"url": "http://127.0.0.1/", "rate": 0}}), "push.rate"),
        (json!({"mode": "push", "push": {"url": "http://127.0.0.1/", "x": 0}}), "push.x"),
        (json!({"mode": "pull", "push": {"url": "http://127.0.0.1/"}}), "push"),
    ] {
        assert_eq!(api.expect("PUT", path, &body, 400)["field"], json!(field), "{body}");
    }
}

#[test]
fn push_on_the_embedded_engine() {
    let up = Up::with(&[ALLOWED]);
    let api = Api(up.command);
    every_message_arrives_signed(api);
    bodies_have_the_form_that_is_set(api);
    a_failed_message_is_sent_again_and_given_up(api);
    an_endpoint_can_rest_and_leave(api);
    messages_of_a_key_keep_their_order(api);
    targets_are_guarded(api);
}

/// A file of keys that seal secrets.
fn keys() -> tempfile::NamedTempFile {
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), format!("k1 {}\n", STANDARD.encode([7; 32]))).unwrap();
    keys
}

#[test]
fn push_on_kafka() {
    let keys = keys();
    let file = keys.path().display().to_string();
    let Some(brokers) = millrace_testkit::kafka("push") else { return };
    let Some(cluster) = Cluster::with(brokers, "push", 2, &[ALLOWED, ("delivery.secrets_file", &file)]) else { return };
    let addresses = cluster.publics("command");
    every_message_arrives_signed(Api(addresses[0]));
    a_failed_message_is_sent_again_and_given_up(Api(addresses[1]));
    an_endpoint_can_rest_and_leave(Api(addresses[0]));
    messages_of_a_key_keep_their_order(Api(addresses[1]));
}

#[test]
fn without_a_file_of_keys_push_is_refused() {
    let Some(cluster) = Cluster::on_shared_servers("push without keys", 1) else { return };
    let api = Api(cluster.publics("command")[0]);
    api.expect("PUT", "/v1/topics/t", &Value::Null, 201);
    let body = json!({"mode": "push", "push": {"url": "https://a.example/"}});
    let refused = api.expect("PUT", "/v1/topics/t/subscriptions/hook", &body, 400);
    assert!(refused["detail"].as_str().unwrap().contains("delivery.secrets_file"), "{refused}");
}

/// Every message arrives at least once, through kills with requests in flight; none is sent again once it is settled and
/// was read back.
#[test]
fn every_message_arrives_through_kills() {
    let mut up = Up::with(&[ALLOWED]);
    let api = Api(up.command);
    let receiver = Receiver::start();
    api.expect("PUT", "/v1/topics/t", &Value::Null, 201);
    subscribe(api, "t", "hook", &receiver, &json!({}));
    // Some first attempts fail; too few to open the breaker.
    receiver.answers(|request| {
        let number: u32 = request.text().parse().unwrap();
        let fails = number.is_multiple_of(3) && request.header("webhook-attempt") == "1";
        Some((if fails { 503 } else { 204 }, ""))
    });
    let mut ids = BTreeSet::new();
    for _ in 0..3 {
        for n in 0..40 {
            ids.insert(api.publish("t", &n.to_string(), &[])["id"].as_str().unwrap().to_owned());
        }
        up.service.kill();
        up.service.restart();
        up.service.wait_ready(up.command);
    }
    settled(api, "t", "hook");
    let arrived: BTreeSet<String> = receiver.received().iter().map(|request| request.id().to_owned()).collect();
    assert_eq!(arrived, ids);
    let letters = api.expect("GET", "/v1/topics/t/subscriptions/hook/dead-letters", &Value::Null, 200);
    assert_eq!(letters["dead_letters"], json!([]));
}
