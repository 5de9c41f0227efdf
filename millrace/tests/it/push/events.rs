//! Events about subscriptions, as a subscriber of `millrace-events` gets them, on both engines.

use std::collections::BTreeSet;

use millrace_testkit::wait_until;
use serde_json::{Value, json};

use super::receiver::{Received, Receiver};
use super::{ALLOWED, settled, subscribe};
use crate::cluster::Cluster;
use crate::run::{Up, WITHIN};
use crate::topics::Api;

const EVENTS: &str = "/v1/topics/millrace-events";

/// The events that `watch` has, by their order.
fn events(api: Api) -> Vec<Value> {
    let page = api.get("millrace-events", "watch", "?max=1000");
    assert!([200, 204].contains(&page.status), "{}", page.text());
    page.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits for so many events; returns the types and what they are about.
fn until(api: Api, count: usize) -> Vec<(String, String)> {
    assert!(wait_until(WITHIN, || events(api).len() >= count), "{:#?}", events(api));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    events(api).iter().map(|event| (text(&event["body"]["type"]), text(&event["body"]["subject"]))).collect()
}

fn watch(api: Api) {
    api.expect("PUT", &format!("{EVENTS}/subscriptions/watch"), &json!({"mode": "pull"}), 201);
}

fn each_change_is_reported_once(api: Api, other: Api) {
    let none = &Value::Null;
    watch(api);
    // Like any other subscription: pushed, filtered.
    let alarm = Receiver::start();
    let filter = json!({"filter": {"all": [{"exact": {"type": "subscription.suspended"}}, {"prefix": {"subject": "troubled/h"}}]}});
    subscribe(other, "millrace-events", "alarm", &alarm, &filter);
    // Its own failures are not reported: each would make another one.
    let deaf = Receiver::start();
    deaf.answers(|_| Some((500, "")));
    subscribe(api, "millrace-events", "deaf", &deaf, &json!({"max_attempts": 1}));
    let receiver = Receiver::start();
    api.expect("PUT", "/v1/topics/troubled", none, 201);
    subscribe(api, "troubled", "hook", &receiver, &json!({"max_attempts": 6}));
    api.expect("PUT", "/v1/topics/troubled/subscriptions/end", &json!({"mode": "pull"}), 201);
    let path = "/v1/topics/troubled/subscriptions/hook";
    receiver.answers(|_| Some((503, "")));
    let offset = api.publish("troubled", "hopeless", &[])["offset"].clone();
    until(api, 2);
    receiver.answers(|_| Some((204, "")));
    api.publish("troubled", "good", &[]);
    until(other, 3);
    receiver.answers(|_| Some((410, "")));
    api.publish("troubled", "gone", &[]);
    until(api, 4);
    receiver.answers(|_| Some((204, "")));
    for act in ["resume", "suspend", "suspend", "resume"] {
        other.expect("POST", &format!("{path}:{act}"), none, 200);
    }
    settled(api, "troubled", "hook");
    api.expect("POST", "/v1/topics/troubled/subscriptions/end:suspend", none, 200);
    let expected = [
        ("subscription.failing", "troubled/hook"),
        ("message.dead_lettered", "troubled/hook"),
        ("subscription.recovered", "troubled/hook"),
        ("subscription.suspended", "troubled/hook"),
        ("subscription.recovered", "troubled/hook"),
        ("subscription.suspended", "troubled/hook"),
        ("subscription.recovered", "troubled/hook"),
        ("subscription.suspended", "troubled/end"),
    ];
    assert_eq!(until(api, expected.len()), expected.map(|(kind, of)| (kind.to_owned(), of.to_owned())));
    let all = events(api);
    let data = |index: usize| all[index]["body"]["data"].clone();
    let of = |more: Value| {
        let mut data = json!({"topic": "troubled", "subscription": "hook"});
        data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        data
    };
    let last = json!({"offset": offset, "last_status": 503, "last_error": "http-status"});
    let with = |more: Value| {
        let mut both = of(more);
        both.as_object_mut().unwrap().extend(last.as_object().unwrap().clone());
        both
    };
    assert_eq!(data(0), with(json!({"attempts": 4})));
    assert_eq!(data(1), with(json!({"attempts": 6, "reason": "max-attempts"})));
    assert_eq!(data(2), of(json!({})));
    assert_eq!(data(3), of(json!({"reason": "endpoint-gone"})));
    assert_eq!(data(5), of(json!({"reason": "api"})));
    let body = &all[0]["body"];
    assert_eq!((&body["specversion"], &body["id"]), (&json!("1.0"), &all[0]["id"]));
    assert_eq!((&body["source"], &all[0]["attributes"]["ce-type"]), (&json!(path), &body["type"]));
    let ids: BTreeSet<&str> = all.iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), all.len());
    assert!(wait_until(WITHIN, || alarm.received().len() >= 2), "{:?}", alarm.received());
    settled(api, "millrace-events", "alarm");
    let received = alarm.received();
    let ids: Vec<&str> = received.iter().map(Received::id).collect();
    assert_eq!(ids, [all[3]["id"].as_str().unwrap(), all[5]["id"].as_str().unwrap()]);
    assert_eq!(received[0].header("content-type"), "application/cloudevents+json; charset=utf-8");
    assert_eq!(serde_json::from_slice::<Value>(&received[0].body).unwrap(), all[3]["body"]);
    assert!(wait_until(WITHIN, || deaf.received().len() >= expected.len()), "{:?}", deaf.received());
    settled(api, "millrace-events", "deaf");
    // What follows the dead letters of `deaf`.
    api.expect("POST", "/v1/topics/troubled/subscriptions/end:resume", none, 200);
    assert_eq!(until(api, expected.len() + 1).last().unwrap().0, "subscription.recovered");
    assert_eq!(events(api).len(), expected.len() + 1);
}

/// The topic is Millrace's own.
fn nobody_else_writes_it(api: Api) {
    let none = &Value::Null;
    let topic = api.expect("GET", EVENTS, none, 200);
    assert_eq!((&topic["owner"], &topic["settings"]["retention"]), (&json!("millrace"), &json!("72h")));
    assert_eq!(api.expect("POST", &format!("{EVENTS}/messages"), &json!("x"), 403)["code"], json!("forbidden"));
    assert_eq!(
        api.expect("POST", &format!("{EVENTS}/messages:batch"), &json!([{"body": 1}]), 403)["field"],
        json!("topic")
    );
    assert_eq!(api.expect("DELETE", EVENTS, none, 403)["field"], json!("topic"));
    let names = |query: &str| {
        let listed = api.expect("GET", &format!("/v1/topics{query}"), none, 200);
        listed["topics"].as_array().unwrap().iter().map(|topic| topic["name"].clone()).collect::<Vec<_>>()
    };
    assert!(!names("").contains(&json!("millrace-events")));
    assert_eq!(names("?prefix=millrace-"), [json!("millrace-events")]);
}

#[test]
fn events_on_the_embedded_engine() {
    let mut up = Up::with(&[ALLOWED]);
    let api = Api(up.command);
    nobody_else_writes_it(api);
    each_change_is_reported_once(api, api);
    // Each stands in the step of its change, so a crash loses none.
    let before = events(api).len();
    for round in 0..5 {
        let act = if round % 2 == 0 { "suspend" } else { "resume" };
        api.expect("POST", &format!("/v1/topics/troubled/subscriptions/hook:{act}"), &Value::Null, 200);
        up.service.kill();
        up.service.restart();
        up.service.wait_ready(up.command);
    }
    let ids = || events(api).iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>();
    assert!(wait_until(WITHIN, || ids().len() == before + 5), "{:#?}", events(api));
}

#[test]
fn events_on_kafka() {
    let keys = super::keys();
    let file = keys.path().display().to_string();
    let Some(brokers) = millrace_testkit::kafka("events about subscriptions") else { return };
    let more = [ALLOWED, ("delivery.secrets_file", &*file)];
    let Some(cluster) = Cluster::with(brokers, "events about subscriptions", 2, &more) else { return };
    let addresses = cluster.publics("command");
    nobody_else_writes_it(Api(addresses[0]));
    each_change_is_reported_once(Api(addresses[0]), Api(addresses[1]));
}
