//! The schema registry's read API, as Confluent's clients use it.

use millrace_testkit::Response;
use serde_json::{Value, json};

use crate::harness::Server;

fn body(reply: &Response) -> Value {
    assert_eq!(reply.header("content-type"), Some("application/vnd.schemaregistry.v1+json"), "{}", reply.text());
    serde_json::from_slice(&reply.body).unwrap()
}

#[tokio::test]
async fn finds_every_schema_by_id_and_by_subject() {
    let server = Server::start().await;
    for schema in millrace_contracts::schemas() {
        let id = schema.id;
        let parsed: Value = serde_json::from_str(schema.text).unwrap();
        let subject = schema.subject(&format!("millrace.{}", schema.topic));

        let by_id = body(&server.get(&format!("/registry/schemas/ids/{id}"), &[]).await);
        let text = by_id["schema"].as_str().unwrap();
        assert_eq!(serde_json::from_str::<Value>(text).unwrap(), parsed);
        assert!(!text.contains('\n'));
        assert_eq!(body(&server.get(&format!("/registry/schemas/ids/{id}/schema"), &[]).await), parsed);
        let versions = body(&server.get(&format!("/registry/schemas/ids/{id}/versions"), &[]).await);
        assert_eq!(versions, json!([{"subject": subject, "version": 1}]));
        assert_eq!(body(&server.get(&format!("/registry/schemas/ids/{id}/subjects"), &[]).await), json!([subject]));

        for version in ["1", "latest"] {
            let path = format!("/registry/subjects/{subject}/versions/{version}");
            let found = body(&server.get(&path, &[]).await);
            assert_eq!(found, json!({"subject": subject, "version": 1, "id": id, "schema": text}));
            assert_eq!(body(&server.get(&format!("{path}/schema"), &[]).await), parsed);
        }
        assert_eq!(body(&server.get(&format!("/registry/subjects/{subject}/versions"), &[]).await), json!([1]));
    }
    let subjects = body(&server.get("/registry/subjects", &[]).await);
    assert!(subjects.as_array().unwrap().contains(&json!("millrace.analytics.events-value")));
    assert_eq!(subjects.as_array().unwrap().len(), millrace_contracts::schemas().len());
}

#[tokio::test]
async fn global_settings() {
    let server = Server::start().await;
    for (path, expected) in [
        ("/registry", json!({})),
        ("/registry/", json!({})),
        ("/registry/schemas/types", json!(["AVRO"])),
        ("/registry/config", json!({"compatibilityLevel": "FULL_TRANSITIVE"})),
        ("/registry/config/x?defaultToGlobal=true", json!({"compatibilityLevel": "FULL_TRANSITIVE"})),
        ("/registry/mode", json!({"mode": "READONLY"})),
    ] {
        let reply = server.get(path, &[]).await;
        assert_eq!((reply.status, body(&reply)), (200, expected), "{path}");
    }
}

#[tokio::test]
async fn errors() {
    let server = Server::start().await;
    let subject = "millrace.analytics.events-value";
    for (path, status, error_code) in [
        ("/registry/subjects/none/versions", 404, 40_401),
        ("/registry/subjects/none/versions/1", 404, 40_401),
        (&*format!("/registry/subjects/{subject}/versions/2"), 404, 40_402),
        (&*format!("/registry/subjects/{subject}/versions/0"), 422, 42_202),
        (&*format!("/registry/subjects/{subject}/versions/x"), 422, 42_202),
        ("/registry/schemas/ids/99", 404, 40_403),
        ("/registry/schemas/ids/x/schema", 404, 40_403),
        ("/registry/config/none", 404, 40_401),
        (&*format!("/registry/config/{subject}"), 404, 40_408),
        ("/registry/nothing", 404, 404),
    ] {
        let reply = server.get(path, &[]).await;
        let body = body(&reply);
        assert_eq!((reply.status, &body["error_code"]), (status, &json!(error_code)), "{path}");
        assert!(body["message"].is_string());
        assert!(reply.header("x-request-id").is_some());
    }
    for method in ["POST", "PUT", "DELETE"] {
        let reply = server.send(method, &format!("/registry/subjects/{subject}/versions"), &[]).await;
        assert_eq!((reply.status, &body(&reply)["error_code"]), (405, &json!(405)), "{method}");
        assert_eq!(reply.header("allow"), Some("GET,HEAD"));
    }
}
