//! The audit log, from the outside.

use std::net::SocketAddr;
use std::process::Output;

use millrace_testkit::{http, http_get, wait_until};
use serde_json::Value;

use crate::auth::{Keys, bearer, id};
use crate::cluster::Cluster;
use crate::run::{Up, WITHIN, stderr, stdout};

/// The records of `millrace audit --json`, as action, principal, object, outcome and code.
fn records(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", stderr(output));
    stdout(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn audit(up: &Up, filters: &[&str]) -> Vec<Value> {
    records(&up.tool(&[&["audit", "--json"], filters].concat()))
}

fn brief(record: &Value) -> [&str; 5] {
    ["action", "principal", "object", "outcome", "code"].map(|field| record[field].as_str().unwrap())
}

fn call(address: SocketAddr, key: &str, method: &str, path: &str, body: &str) -> (u16, Option<String>) {
    let headers = [("authorization", &*bearer(key)), ("content-type", "application/json")];
    let response = http(address, method, path, &headers, body).unwrap();
    (response.status, response.header("x-request-id").map(str::to_owned))
}

#[test]
fn who_did_what_is_recorded_and_found_again() {
    let keys = Keys::new();
    let scopes = ["topics:manage", "topics:publish", "topics:subscribe"];
    let (alice, bob) = (keys.create("alice", &scopes), keys.create("bob", &scopes));
    let up = keys.up();
    let topic = "/v1/topics/orders";
    let subscription = "/v1/topics/orders/subscriptions/s";
    let (status, request_id) = call(up.command, &alice, "PUT", topic, "");
    assert_eq!(status, 201);
    assert_eq!(call(up.command, &bob, "DELETE", topic, "").0, 403);
    assert_eq!(call(up.command, &alice, "PUT", "/v1/topics/orders/grants/key%3Abob", r#"{"publish":true}"#).0, 200);
    assert_eq!(call(up.command, &alice, "PUT", subscription, r#"{"mode":"pull"}"#).0, 201);
    assert_eq!(call(up.command, &alice, "POST", &format!("{subscription}:suspend"), "").0, 200);
    assert_eq!(call(up.command, &alice, "POST", "/v1/topics/orders/messages", "1").0, 201, "hot: not recorded");
    assert_eq!(call(up.query, &bob, "GET", "/status", "").0, 403);
    assert_eq!(call(up.query, "mk_unknown", "GET", "/status?secret=1", "").0, 401);
    keys.revoke(&id(&bob));

    let all = || audit(&up, &[]);
    assert!(wait_until(WITHIN, || all().iter().any(|record| record["action"] == "keys.reload")), "{:?}", all());
    let all = all();
    let expected = [
        ["topic.create", "key:alice", topic, "done", ""],
        ["topic.delete", "key:bob", topic, "refused", "forbidden"],
        ["grant.set", "key:alice", "/v1/topics/orders/grants/key%3Abob", "done", ""],
        ["subscription.create", "key:alice", subscription, "done", ""],
        ["subscription.suspend", "key:alice", "/v1/topics/orders/subscriptions/s:suspend", "done", ""],
        ["authenticate", "key:bob", "GET /status", "refused", "forbidden"],
        ["authenticate", "", "GET /status", "refused", "unauthenticated"],
        ["keys.reload", "", &format!("removed {}", id(&bob)), "done", ""],
    ];
    assert_eq!(all.iter().map(brief).collect::<Vec<_>>(), expected);
    let first = &all[0];
    assert_eq!((first["credential"].as_str(), first["source"].as_str()), (Some(&*id(&alice)), Some("127.0.0.1")));
    assert_eq!(first["request_id"].as_str(), request_id.as_deref(), "the client can name the record");
    assert!(!first["instance"].as_str().unwrap().is_empty());

    let count = |filters: &[&str]| audit(&up, filters).len();
    assert_eq!(count(&["--principal", "key:bob"]), 2);
    assert_eq!(count(&["--action", "subscription."]), 2);
    assert_eq!(count(&["--action", "topic.delete", "--principal", "key:alice"]), 0);
    assert_eq!((count(&["--since", "1h"]), count(&["--until", "1h"])), (8, 0));
    let time = all[3]["time"].as_str().unwrap();
    assert_eq!(count(&["--since", time]) + count(&["--until", time]), 8);
    let text = stdout(&up.tool(&["audit", "--action", "grant."]));
    assert!(text.contains("key:alice  grant.set  /v1/topics/orders/grants/key%3Abob  done  -  127.0.0.1"), "{text}");
    assert!(wait_until(WITHIN, || up.metric("millrace_audit_records_total{outcome=\"written\"}") == 8));
}

#[test]
fn calls_of_the_earlier_system_are_recorded_alike() {
    let keys = Keys::new();
    let (alice, reader) = (keys.create("alice", &["topics:manage"]), keys.create("reader", &["counts:read"]));
    let up = keys.up_with(&[("topics.legacy.enabled", "true")]);
    let register = "/legacy/topic/register/orders";
    let created = call(up.command, &alice, "POST", register, "");
    let exists = call(up.command, &alice, "POST", register, "");
    let denied = call(up.command, &reader, "POST", register, "");
    assert_eq!([created.0, exists.0, denied.0], [201, 409, 403]);
    assert!(wait_until(WITHIN, || audit(&up, &[]).len() == 3));
    let all = audit(&up, &[]);
    let expected = [
        ["topic.create", "key:alice", register, "done", ""],
        ["topic.create", "key:alice", register, "refused", "exists"],
        ["authenticate", "key:reader", "POST /legacy/topic/register/orders", "refused", "forbidden"],
    ];
    assert_eq!(all.iter().map(brief).collect::<Vec<_>>(), expected);
    for (record, (_, request_id)) in all.iter().zip([created, exists, denied]) {
        assert_eq!(record["request_id"].as_str(), request_id.as_deref(), "{record}");
    }
}

#[test]
fn an_act_of_administration_is_recorded_before_and_after() {
    let up = Up::start();
    let rebuilt = up.tool(&["rebuild", "archive", "--yes"]);
    assert!(rebuilt.status.success(), "{}", stderr(&rebuilt));
    let rebuild = |outcome| ["store.rebuild", "anonymous", "/admin/rebuild?store=archive", outcome, ""];
    let done = || audit(&up, &[]).len() == 2;
    assert!(wait_until(WITHIN, done));
    assert_eq!(audit(&up, &[]).iter().map(brief).collect::<Vec<_>>(), [rebuild("begun"), rebuild("done")]);
    let unknown = http(up.admin, "PUT", "/admin/rebuild?store=none", &[], "").unwrap();
    assert_eq!(unknown.status, 400);
    assert!(wait_until(WITHIN, || audit(&up, &[]).len() == 4));
    assert_eq!(brief(&audit(&up, &[])[3])[3..], ["refused", "invalid-field"]);
}

#[test]
fn a_request_beyond_the_limits_of_its_principal_is_recorded() {
    let keys = Keys::new();
    let alice = keys.create_with("alice", &["topics:manage"], &["--max-request-rate", "1"]);
    let up = keys.up();
    let topic = "/v1/topics/orders";
    assert!(wait_until(WITHIN, || call(up.command, &alice, "DELETE", topic, "").0 == 429));
    let refused = ["topic.delete", "key:alice", topic, "refused", "rate-limited"];
    assert!(wait_until(WITHIN, || audit(&up, &[]).iter().any(|record| brief(record) == refused)));
}

#[test]
fn a_flood_of_failures_is_sampled() {
    let keys = Keys::new();
    let up = keys.up();
    for _ in 0..200 {
        assert_eq!(http_get(up.query, "/status").unwrap().status, 401);
    }
    let metric = |outcome: &str| up.metric(&format!("millrace_audit_records_total{{outcome=\"{outcome}\"}}"));
    assert!(wait_until(WITHIN, || metric("written") + metric("sampled") == 200));
    assert!(metric("sampled") > 0 && audit(&up, &["--action", "authenticate"]).len() as u64 == metric("written"));
}

#[test]
fn the_records_of_all_processes_are_in_one_log() {
    const SUITE: &str = "audit on Kafka";
    let keys = Keys::new();
    let file = keys.file().with_file_name("process.key");
    std::fs::write(&file, keys.create("processes", &["admin"])).unwrap();
    let alice = keys.create("alice", &["topics:manage"]);
    let (keys_file, file) = (keys.file().display().to_string(), file.display().to_string());
    let settings = [("auth.mode", "keys"), ("auth.keys_file", &*keys_file), ("auth.process_key_file", &*file)];
    let Some(brokers) = millrace_testkit::kafka(SUITE) else { return };
    let Some(cluster) = Cluster::with(brokers, SUITE, 1, &settings) else { return };
    let (command, query) = (cluster.publics("command")[0], cluster.publics("query")[0]);
    assert_eq!(call(command, &alice, "PUT", "/v1/topics/orders", "").0, 201);
    let recorded = || records(&cluster.tool(&["audit", "--json"]));
    // The query service opens the log when it can.
    let both = || {
        let refused = call(query, &alice, "GET", "/status", "").0 == 403;
        let all = recorded();
        refused && ["topic.create", "authenticate"].iter().all(|action| all.iter().any(|one| one["action"] == *action))
    };
    assert!(wait_until(WITHIN, both), "{:?}", recorded());
    let rebuilt = cluster.tool(&["rebuild", "archive", "--yes"]);
    assert!(rebuilt.status.success(), "{}", stderr(&rebuilt));
    let rebuilds = recorded().into_iter().filter(|one| one["action"] == "store.rebuild").collect::<Vec<_>>();
    assert_eq!(rebuilds.len(), 2);
    assert!(rebuilds[0]["principal"].as_str().unwrap().starts_with("os:"), "{rebuilds:?}");
    let instances: std::collections::BTreeSet<_> =
        recorded().iter().map(|one| one["instance"].as_str().unwrap().to_owned()).collect();
    assert!(instances.len() >= 3, "command, query and the tool: {instances:?}");
}
