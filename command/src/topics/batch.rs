//! `POST /v1/topics/{topic}/messages:batch`: many messages, with a result for each, in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};
use millrace_contracts::topics::{Name, Principal, Published, TopicView};
use millrace_contracts::{Code, Refusal};
use millrace_service::auth::Identity;
use millrace_service::http::{BatchFormat, FinalBody, read_text};
use millrace_service::status_of;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::directory::Placement;
use super::exchange::{Application, Incoming, principal, respond};
use super::fields::{time, unknown_member};
use super::path::Path;
use super::publish::{send, status, too_large};
use super::topic::no_parameters;
use super::{message, render};
use crate::app::App;
use crate::intake::Terms;
use crate::topics::TopicsConfig;

/// Most messages of a batch.
pub(super) const MAX_ITEMS: usize = 1_000;

/// The members of an item.
const MEMBERS: [&str; 8] =
    ["body", "body_base64", "content_type", "attributes", "key", "idempotency_key", "deliver_after", "deliver_at"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item<'a> {
    #[serde(borrow, default, deserialize_with = "given")]
    body: Option<&'a RawValue>,
    body_base64: Option<String>,
    content_type: Option<String>,
    #[serde(default)]
    attributes: Map<String, Value>,
    key: Option<String>,
    idempotency_key: Option<String>,
    deliver_after: Option<String>,
    deliver_at: Option<Value>,
}

/// A member that is there, `null` too, which is JSON like any other.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// What became of one message.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = PublishResult)]
pub(crate) struct ResultBody {
    status: u16,
    /// `published` or `duplicate`, or the code of a problem.
    code: &'static str,
    offset: Option<u64>,
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    duplicate: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    field: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    detail: Option<String>,
}

pub(super) async fn post(state: Application, request: Incoming) -> Response {
    let terms = Terms::of(&state.0.config, request.headers());
    let mut response = respond(publish_all(&state.0, request, terms).await);
    BatchFormat::TYPES.describe(&mut response);
    if response.status().is_success() {
        terms.add_header(response.headers_mut());
    }
    response
}

async fn publish_all(app: &Arc<App>, request: Incoming, terms: Terms) -> Result<Response, Refusal> {
    let by = principal(&request);
    let name = Path::of(request.uri()).topic()?;
    no_parameters(&request)?;
    let topic = app.directory.publishable(&name, &by).await?;
    let limits = TopicsConfig::batch_limits(&app.config.limits);
    let (format, charset) = BatchFormat::TYPES.of(request.headers())?;
    let identity = Identity::of(request.extensions());
    let body = read_text(request, charset, &limits, &app.bodies).await?;
    let items = format.split(&body, MAX_ITEMS)?;
    if items.is_empty() {
        return Err(Refusal::new(Code::EmptyBatch, "the batch has no messages"));
    }
    identity.charge(items.len() as u64 - 1, 0);
    let now_ms = app.clock.now_ms();
    let read: Vec<Result<Published, Refusal>> =
        items.into_iter().map(|item| read_item(item?, topic.settings.max_message_bytes, now_ms)).collect();
    let results = send_all(app, &name, &topic, &by, read, terms).await;
    Ok(answer(&results, terms))
}

/// Plain messages are appended by one call; with keys or delays among them, one after the other keeps the order.
async fn send_all(
    app: &Arc<App>,
    name: &Name,
    topic: &TopicView,
    by: &Principal,
    read: Vec<Result<Published, Refusal>>,
    terms: Terms,
) -> Vec<Result<Placement, Refusal>> {
    let plain = |published: &Published| published.idempotency_key.is_none() && published.deliver_at_ms.is_none();
    if read.iter().flatten().all(plain) {
        return app.directory.append_all(name, topic, read, app.clock.now_ms(), terms.durability).await;
    }
    let mut results = Vec::with_capacity(read.len());
    for item in read {
        results.push(match item {
            Ok(published) => send(app, name, topic, by, published, terms).await,
            Err(refusal) => Err(refusal),
        });
    }
    results
}

/// Why a text is no item. A member that is not known is refused by its name, as in other bodies.
fn no_item(text: &str, error: &serde_json::Error) -> Refusal {
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(text).unwrap_or_default();
    match members.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
        Some(name) => unknown_member(name),
        None => Refusal::new(Code::MalformedBody, format!("not a message: {error}")),
    }
}

fn read_item(text: &str, max: u64, now_ms: i64) -> Result<Published, Refusal> {
    let item: Item<'_> = serde_json::from_str(text).map_err(|error| no_item(text, &error))?;
    let wrong = |field: &'static str, detail: &'static str| Refusal::new(Code::InvalidField, detail).field(field);
    let (body, json) = match (item.body, item.body_base64) {
        (Some(_), Some(_)) => {
            return Err(Refusal::new(Code::DuplicateField, "body and body_base64 exclude each other").field("body"));
        }
        (Some(raw), None) => (raw.get().as_bytes().to_vec(), true),
        (None, Some(text)) => (STANDARD.decode(text).map_err(|_| wrong("body_base64", "must be base64"))?, false),
        (None, None) => return Err(Refusal::new(Code::MissingField, "body or body_base64 must be given").field("body")),
    };
    if body.len() as u64 > max {
        return Err(too_large(max));
    }
    let text = |(name, value): (String, Value)| match value {
        Value::String(text) => Ok((name, text)),
        _ => Err(wrong("attributes", "values must be texts")),
    };
    let attributes = item.attributes.into_iter().map(text).collect::<Result<Vec<_>, _>>()?;
    let default = if json { "application/json" } else { "application/octet-stream" };
    let content_type = item.content_type.unwrap_or_else(|| default.to_owned());
    if content_type.is_empty()
        || content_type.len() > 256
        || !content_type.bytes().all(|byte| (b' '..=b'~').contains(&byte))
    {
        return Err(wrong("content_type", "must be 1..=256 bytes of printable ASCII"));
    }
    if item
        .idempotency_key
        .as_ref()
        .is_some_and(|key| !(1..=128).contains(&key.len()) || key.contains(char::is_control))
    {
        return Err(wrong("idempotency_key", "must have 1..=128 bytes and no control characters"));
    }
    let at = item.deliver_at.filter(|value| !value.is_null()).map(|value| time(&value).ok_or("deliver_at"));
    let after = item.deliver_after.as_deref();
    let published = Published {
        id: message::new_id(),
        key: item.key,
        idempotency_key: item.idempotency_key,
        deliver_at_ms: message::deliver_at(after, at, now_ms, "deliver_after", "deliver_at")?,
        content_type,
        attributes,
        body,
    };
    message::check(&published)?;
    Ok(published)
}

/// 200, or 202 at a weaker level, when all are good, 207 when some are; when none is, the first one's status, or 503 if any
/// was our failure.
fn answer(results: &[Result<Placement, Refusal>], terms: Terms) -> Response {
    let bodies: Vec<ResultBody> = results.iter().map(|result| result_body(result, terms)).collect();
    let mut failures = results.iter().filter_map(|result| result.as_ref().err());
    let failed = failures.clone().count();
    let ours = failures.clone().find(|refusal| status_of(refusal.code).is_server_error());
    let status = match failures.next() {
        None if terms.status() == StatusCode::NO_CONTENT => StatusCode::OK,
        None => terms.status(),
        Some(_) if failed < results.len() => StatusCode::MULTI_STATUS,
        Some(first) => status_of(ours.unwrap_or(first).code),
    };
    let mut response = render::json(status, &bodies);
    if let Some(after) = ours.and_then(|refusal| refusal.retry_after) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
    }
    response.extensions_mut().insert(FinalBody);
    response
}

fn result_body(result: &Result<Placement, Refusal>, terms: Terms) -> ResultBody {
    match result {
        Ok(placement) => ResultBody {
            status: status(&placement.answer, terms).as_u16(),
            code: if placement.answer.duplicate { "duplicate" } else { "published" },
            offset: placement.offset,
            id: Some(placement.answer.id.clone()),
            duplicate: Some(placement.answer.duplicate),
            field: None,
            detail: None,
        },
        Err(refusal) => ResultBody {
            status: status_of(refusal.code).as_u16(),
            code: refusal.code.as_str(),
            offset: None,
            id: None,
            duplicate: None,
            field: refusal.field.as_ref().map(ToString::to_string),
            detail: Some(refusal.detail.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_items_body_is_the_bytes_as_they_were_written() {
        let published =
            read_item(r#"{"body": {"n": 1.50, "big": 12345678901234567890}, "key": "k"}"#, 1_000, 0).unwrap();
        assert_eq!(published.body, br#"{"n": 1.50, "big": 12345678901234567890}"#);
        assert_eq!((&*published.content_type, published.key.as_deref()), ("application/json", Some("k")));
        let published = read_item(r#"{"body_base64": "aGk=", "attributes": {"ce-type": "t"}}"#, 1_000, 0).unwrap();
        assert_eq!((&*published.body, &*published.content_type), (&b"hi"[..], "application/octet-stream"));
        assert_eq!(read_item(r#"{"body": null}"#, 1_000, 0).unwrap().body, b"null");
        for (bad, code) in [
            (r"{}", Code::MissingField),
            (r#"{"body":1,"body_base64":""}"#, Code::DuplicateField),
            (r#"{"body_base64":"?"}"#, Code::InvalidField),
            (r#"{"body":1,"attributes":{"a":1}}"#, Code::InvalidField),
            (r#"{"body":1,"x":1}"#, Code::UnknownField),
            (r#"{"body":1,"key":1}"#, Code::MalformedBody),
            (r#"{"body":1,"body":1}"#, Code::MalformedBody),
            ("1", Code::MalformedBody),
            (r#"{"body":"0123456789"}"#, Code::TooLarge),
        ] {
            assert_eq!(read_item(bad, 8, 0).map_err(|refusal| refusal.code), Err(code), "{bad}");
        }
        assert_eq!(read_item(r#"{"body":1,"x":1}"#, 8, 0).unwrap_err().field.as_deref(), Some("x"));
        // Each member that the struct has is known.
        for member in MEMBERS {
            let item = format!(r#"{{"{member}":{{"a":[]}},"x":1}}"#);
            assert_eq!(read_item(&item, 8, 0).unwrap_err().field.as_deref(), Some("x"), "{item}");
        }
    }
}
