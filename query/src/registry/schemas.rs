//! The schemas of the log in the read API of Confluent's schema registry, so that its tools decode the topics.
//!
//! Ids and schemas are fixed (`millrace-contracts`), so the registry is read-only, and the versions of a subject count
//! from 1 in the order of their ids.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{ALLOW, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use millrace_contracts::{Names, Topic, schemas};
use millrace_service::http::FinalBody;
use millrace_service::http::query_string::decode_segment;
use millrace_service::shown;
use serde_json::json;

pub(super) const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";
/// A released schema never changes, which is the strictest compatibility.
const COMPATIBILITY: &str = "FULL_TRANSITIVE";

/// A version of a subject.
struct SchemaVersion {
    subject: String,
    version: u32,
    id: u32,
    schema: String,
}

/// Every version of every subject.
pub(super) struct Registry {
    versions: Vec<SchemaVersion>,
}

/// An error in the form that clients of a registry expect.
struct RegistryError {
    error_code: u32,
    message: String,
}

impl RegistryError {
    fn new(error_code: u32, message: impl Into<String>) -> Self {
        Self { error_code, message: message.into() }
    }

    fn subject(subject: &str) -> Self {
        Self::new(40_401, format!("Subject '{}' not found.", shown(subject)))
    }

    fn schema(id: &str) -> Self {
        Self::new(40_403, format!("Schema {} not found", shown(id)))
    }

    /// The HTTP status: the first three digits of the error code.
    fn status(&self) -> StatusCode {
        let code = if self.error_code > 999 { self.error_code / 100 } else { self.error_code };
        u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::BAD_REQUEST)
    }
}

/// The response to any request below `/registry`.
pub(super) async fn answer(State(registry): State<Arc<Registry>>, request: Request) -> Response {
    let path = request.uri().path().strip_prefix("/registry").unwrap_or_default();
    let found = if matches!(*request.method(), Method::GET | Method::HEAD) {
        let query = request.uri().query().unwrap_or_default();
        registry.find(path, query.split('&').any(|pair| pair == "defaultToGlobal=true"))
    } else {
        Err(RegistryError::new(405, "HTTP 405 Method Not Allowed: this registry is read-only, its schemas are fixed"))
    };
    let (status, body) = match found {
        Ok(body) => (StatusCode::OK, body),
        Err(error) => {
            let body = json!({"error_code": error.error_code, "message": error.message});
            (error.status(), body.to_string())
        }
    };
    let mut response = (status, body).into_response();
    // Clients of a registry expect its own errors, not problem documents.
    response.extensions_mut().insert(FinalBody);
    let headers = response.headers_mut();
    if status != StatusCode::OK
        && let Ok(id) = HeaderValue::try_from(uuid::Uuid::now_v7().to_string())
    {
        headers.insert("x-request-id", id);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET,HEAD"));
    }
    response
}

impl Registry {
    pub(super) fn new(names: &Names) -> Self {
        let mut versions: Vec<SchemaVersion> = Vec::new();
        for schema in schemas() {
            let topic = millrace_contracts::TOPICS.iter().find(|topic: &&Topic| topic.name == schema.topic);
            let subject = schema.subject(&topic.map_or_else(|| schema.topic.to_owned(), |topic| names.topic(topic)));
            let before = versions.iter().filter(|version| version.subject == subject).count();
            let version = u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1);
            versions.push(SchemaVersion { subject, version, id: schema.id, schema: minify(schema.text) });
        }
        Self { versions }
    }

    /// The body for a path below `/registry`. With `global`, a subject's config is the global one: subjects have none.
    fn find(&self, path: &str, global: bool) -> Result<String, RegistryError> {
        let segments: Option<Vec<_>> =
            path.split('/').filter(|segment| !segment.is_empty()).map(|segment| decode_segment(segment).ok()).collect();
        let segments =
            segments.ok_or_else(|| RegistryError::new(400, "HTTP 400 Bad Request: broken percent-encoding"))?;
        let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
        let body = match segments[..] {
            [] => json!({}),
            ["subjects"] => {
                let mut subjects: Vec<&str> = self.versions.iter().map(|version| &*version.subject).collect();
                subjects.sort_unstable();
                subjects.dedup();
                json!(subjects)
            }
            ["subjects", subject, "versions"] => self.subject(subject)?.iter().map(|version| version.version).collect(),
            ["subjects", subject, "versions", version] => {
                let SchemaVersion { subject, version, id, schema } = self.version(subject, version)?;
                json!({"subject": subject, "version": version, "id": id, "schema": schema})
            }
            ["subjects", subject, "versions", version, "schema"] => {
                return Ok(self.version(subject, version)?.schema.clone());
            }
            ["schemas", "types"] => json!(["AVRO"]),
            ["schemas", "ids", id] => json!({"schema": self.schema(id)?.schema}),
            ["schemas", "ids", id, "schema"] => return Ok(self.schema(id)?.schema.clone()),
            ["schemas", "ids", id, "versions"] => {
                let SchemaVersion { subject, version, .. } = self.schema(id)?;
                json!([{"subject": subject, "version": version}])
            }
            ["schemas", "ids", id, "subjects"] => json!([self.schema(id)?.subject]),
            ["config"] => json!({"compatibilityLevel": COMPATIBILITY}),
            ["config", _] if global => json!({"compatibilityLevel": COMPATIBILITY}),
            ["config", subject] => {
                self.subject(subject)?;
                let what = "does not have subject-level compatibility configured";
                return Err(RegistryError::new(40_408, format!("Subject '{}' {what}", shown(subject))));
            }
            ["mode"] => json!({"mode": "READONLY"}),
            _ => return Err(RegistryError::new(404, "HTTP 404 Not Found")),
        };
        Ok(body.to_string())
    }

    fn subject(&self, subject: &str) -> Result<Vec<&SchemaVersion>, RegistryError> {
        let versions: Vec<_> = self.versions.iter().filter(|version| version.subject == subject).collect();
        if versions.is_empty() { Err(RegistryError::subject(subject)) } else { Ok(versions) }
    }

    fn version(&self, subject: &str, version: &str) -> Result<&SchemaVersion, RegistryError> {
        let versions = self.subject(subject)?;
        let missing = || RegistryError::new(40_402, format!("Version {} not found.", shown(version)));
        // -1 is the older name of latest.
        if matches!(version, "latest" | "-1") {
            return versions.last().copied().ok_or_else(missing);
        }
        let number: i32 = version.parse().ok().filter(|&number| number > 0).ok_or_else(|| {
            let what = "is not a valid version id. Allowed values are between [1, 2^31-1] and the string \"latest\"";
            RegistryError::new(42_202, format!("The specified version '{}' {what}", shown(version)))
        })?;
        versions.into_iter().find(|found| i64::from(found.version) == i64::from(number)).ok_or_else(missing)
    }

    fn schema(&self, id: &str) -> Result<&SchemaVersion, RegistryError> {
        let number: Option<u32> = id.parse().ok();
        self.versions.iter().find(|version| Some(version.id) == number).ok_or_else(|| RegistryError::schema(id))
    }
}

/// JSON without whitespace between tokens. Keeps the order of keys, unlike parsing and serializing.
fn minify(json: &str) -> String {
    let (mut quoted, mut escaped) = (false, false);
    json.chars()
        .filter(|&c| {
            let keep = quoted || !c.is_ascii_whitespace();
            match c {
                '"' if !escaped => quoted = !quoted,
                _ => {}
            }
            escaped = quoted && c == '\\' && !escaped;
            keep
        })
        .collect()
}
