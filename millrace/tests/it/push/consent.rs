//! The consent handshake, on both engines: nothing is sent to an endpoint that did not agree.

use std::time::Duration;

use serde_json::{Value, json};

use super::receiver::Receiver;
use super::{ALLOWED, arrived};
use crate::cluster::Cluster;
use crate::run::Up;
use crate::topics::Api;

const PATH: &str = "/v1/topics/consent/subscriptions/hook";
const AGREED: &str = "webhook-allowed-origin: millrace\r\nwebhook-allowed-rate: 120\r\n";

fn methods(receiver: &Receiver) -> Vec<String> {
    receiver.received().iter().map(|request| request.method.clone()).collect()
}

fn an_endpoint_is_asked_before_anything_is_sent(api: Api) {
    let none = &Value::Null;
    let receiver = Receiver::start();
    let settings = |more: Value| {
        let mut push = json!({"url": receiver.url(), "consent": true, "headers": {"Authorization": "Bearer t"}});
        push.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"mode": "push", "push": push})
    };
    api.expect("PUT", "/v1/topics/consent", none, 201);
    for (status, headers) in [
        (405, ""),
        (200, ""),
        (200, "webhook-allowed-origin: elsewhere.example\r\n"),
        (200, "webhook-allowed-origin: *\r\nwebhook-allowed-rate: 0\r\n"),
        (302, AGREED),
    ] {
        receiver.answers(move |_| Some((status, headers)));
        let refused = api.expect("PUT", PATH, &settings(json!({})), 422);
        let named = (&refused["code"], &refused["field"]);
        assert_eq!(named, (&json!("consent-refused"), &json!("push.consent")), "{status} {headers}");
    }
    api.expect("GET", PATH, none, 404);
    assert_eq!(methods(&receiver), ["OPTIONS"; 5]);
    for request in receiver.received() {
        assert_eq!(request.header("webhook-request-origin"), "millrace");
        // Who has not agreed gets nothing of the subscription.
        assert!(request.header("authorization").is_empty() && request.header("webhook-signature").is_empty());
    }
    receiver.answers(|_| Some((200, AGREED)));
    let created = api.expect("PUT", PATH, &settings(json!({})), 201);
    let push = &created["push"];
    assert_eq!((&push["consent"], &push["rate"], &push["allowed_rate"]), (&json!(true), &Value::Null, &json!(2)));
    // It is asked once for a URL.
    api.expect("PUT", PATH, &settings(json!({})), 200);
    api.expect("PATCH", PATH, &json!({"push": {"timeout": "5s"}}), 200);
    assert_eq!(methods(&receiver), ["OPTIONS"; 6]);
    // Its rate is kept: 120 a minute are one each half a second.
    for n in 0..3 {
        api.publish("consent", &n.to_string(), &[]);
    }
    arrived(api, "consent", &receiver, 9);
    let sent = &receiver.received()[6..];
    assert!(sent[2].at - sent[0].at >= Duration::from_millis(900), "{sent:?}");
    // A lower rate of its own is asked for, and counts.
    api.expect("PATCH", PATH, &json!({"push": {"consent": false}}), 200);
    assert!(api.subscription("consent", "hook")["push"].get("allowed_rate").is_none());
    let altered = api.expect("PATCH", PATH, &json!({"push": {"consent": true, "rate": 1}}), 200);
    assert_eq!((&altered["push"]["rate"], &altered["push"]["allowed_rate"]), (&json!(1), &json!(2)));
    assert_eq!(receiver.received().pop().unwrap().header("webhook-request-rate"), "60");
    // Another URL is asked for itself, and one that refuses changes nothing.
    let other = Receiver::start();
    other.answers(|_| Some((403, "")));
    let elsewhere = json!({"push": {"url": other.url()}});
    assert_eq!(api.expect("PATCH", PATH, &elsewhere, 422)["code"], json!("consent-refused"));
    assert_eq!(api.subscription("consent", "hook")["push"]["url"], json!(receiver.url()));
    other.answers(|_| Some((204, "webhook-allowed-origin: *\r\nwebhook-allowed-rate: 90\r\n")));
    let moved = api.expect("PATCH", PATH, &json!({"push": {"url": other.url()}}), 200);
    let push = &moved["push"];
    assert_eq!((&push["url"], &push["rate"], &push["allowed_rate"]), (&json!(other.url()), &json!(1), &json!(1.5)));
    // What is shown can be sent back.
    let same = api.expect("PATCH", PATH, &json!({"push": push}), 200);
    assert_eq!((&same["push"]["rate"], &same["push"]["allowed_rate"]), (&json!(1), &json!(1.5)));
    assert_eq!(methods(&other), ["OPTIONS"; 2]);
    // Who is not asked is not asked.
    let unasked = Receiver::start();
    super::subscribe(api, "consent", "unasked", &unasked, &json!({}));
    assert!(unasked.received().is_empty());
    assert_eq!(api.expect("PATCH", PATH, &json!({"push": {"consent": 1}}), 400)["field"], json!("push.consent"));
}

#[test]
fn consent_on_the_embedded_engine() {
    let up = Up::with(&[ALLOWED]);
    an_endpoint_is_asked_before_anything_is_sent(Api(up.command));
}

#[test]
fn consent_on_kafka() {
    let keys = super::keys();
    let file = keys.path().display().to_string();
    let Some(brokers) = millrace_testkit::kafka("the consent of endpoints") else { return };
    let more = [ALLOWED, ("delivery.secrets_file", &*file)];
    let Some(cluster) = Cluster::with(brokers, "the consent of endpoints", 1, &more) else { return };
    an_endpoint_is_asked_before_anything_is_sent(Api(cluster.publics("command")[0]));
}
