//! Topics: create, describe, list, alter, delete, grant.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use millrace_contracts::topics::{Grant, Listing, Name, Reply, Request as Call, TopicSettings};
use millrace_contracts::{Code, Refusal};
use millrace_service::http::query_string::{Unknown, parameters};

use super::directory::unexpected;
use super::exchange::{Application, Incoming, principal, respond};
use super::fields::{Fields, if_match, invalid, query_number};
use super::path::{Path, creatable};
use super::render;
use crate::app::App;

/// Most items of a page.
pub(super) const MAX_PAGE: usize = 1_000;
/// Longest description in bytes.
pub(super) const MAX_DESCRIPTION: usize = 4_096;
/// The largest message a topic may allow, in bytes: with its envelope it fits a record of the log.
pub(super) const MAX_MESSAGE_BYTES: u64 = 1 << 20;

pub(super) async fn create(state: Application, request: Incoming) -> Response {
    respond(create_it(&state.0, request).await)
}

async fn create_it(app: &Arc<App>, request: Incoming) -> Result<Response, Refusal> {
    let by = principal(&request);
    let name = Path::of(request.uri()).topic()?;
    creatable(&name, "topic")?;
    no_parameters(&request)?;
    let config = &app.directory.config;
    let if_match = if_match(request.headers());
    let mut fields = Fields::of_body(app, request).await?;
    let defaults = config.default_settings();
    let max_ms = config.max_retention.as_millis();
    let settings = TopicSettings {
        retention_ms: fields.duration("retention", 1_000..=max_ms)?.unwrap_or(defaults.retention_ms),
        delay_ms: fields.duration("delay", 0..=max_ms)?.unwrap_or(defaults.delay_ms),
        max_message_bytes: fields
            .number("max_message_bytes", 1..=MAX_MESSAGE_BYTES)?
            .unwrap_or(defaults.max_message_bytes),
        description: description(&mut fields)?.unwrap_or(defaults.description),
    };
    fields.finish()?;
    if if_match.is_some() {
        let (retention_ms, delay_ms, max_message_bytes, description) = (None, None, None, None);
        let unchanged = Call::AlterTopic { retention_ms, delay_ms, max_message_bytes, description, if_match };
        app.directory.call(&name, by.clone(), unchanged).await.map_err(absent_fails)?;
    }
    let reply = app.directory.call(&name, by, Call::CreateTopic { settings, grants: BTreeMap::new() }).await?;
    topic_response(reply)
}

/// With `If-Match`, what is absent fails the precondition.
pub(super) fn absent_fails(refusal: Refusal) -> Refusal {
    if refusal.code == Code::NotFound {
        return Refusal::new(Code::PreconditionFailed, "it does not exist").field("If-Match");
    }
    refusal
}

fn description(fields: &mut Fields) -> Result<Option<String>, Refusal> {
    let text = fields.text("description")?;
    if text.as_ref().is_some_and(|text| text.len() > MAX_DESCRIPTION) {
        return Err(invalid("description", format!("must have at most {MAX_DESCRIPTION} bytes")));
    }
    Ok(text)
}

fn topic_response(reply: Reply) -> Result<Response, Refusal> {
    let Reply::Topic { topic, created } = reply else { return Err(unexpected()) };
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(render::with_etag(status, &render::topic(&topic), &topic.etag))
}

pub(super) async fn describe(state: Application, request: Incoming) -> Response {
    let result = async move {
        let by = principal(&request);
        let name = Path::of(request.uri()).topic()?;
        no_parameters(&request)?;
        topic_response(state.0.directory.call(&name, by, Call::DescribeTopic).await?)
    };
    respond(result.await)
}

pub(super) fn no_parameters(request: &Incoming) -> Result<(), Refusal> {
    parameters(request.uri().query().unwrap_or_default(), [], Unknown::Refuse).map(|_: [Option<_>; 0]| ())
}

/// The page that a list's parameters name.
pub(super) fn page(request: &Incoming) -> Result<Listing, Refusal> {
    let names = ["prefix", "limit", "after"];
    let [prefix, limit, after] = parameters(request.uri().query().unwrap_or_default(), names, Unknown::Refuse)?;
    let limit = limit.map(|text| query_number(&text, "limit", &(1..=MAX_PAGE))).transpose()?.unwrap_or(100);
    let after = after.filter(|text| !text.is_empty());
    let after =
        after.map(|text| Name::of_system(&text).map_err(|error| invalid("after", error.to_string()))).transpose()?;
    Ok(Listing { prefix: prefix.unwrap_or_default().into_owned(), after, limit })
}

pub(super) async fn list(state: Application, request: Incoming) -> Response {
    let result = async move {
        let by = principal(&request);
        let listing = page(&request)?;
        let (topics, more) = state.0.directory.list_topics(by, listing).await?;
        let next = topics.last().filter(|_| more).map(|topic| topic.name.clone());
        let topics: Vec<_> = topics.iter().map(render::topic).collect();
        Ok(render::json(StatusCode::OK, &serde_json::json!({ "topics": topics, "next": next })))
    };
    respond(result.await)
}

pub(super) async fn alter(state: Application, request: Incoming) -> Response {
    let result = async move {
        let app = &state.0;
        let by = principal(&request);
        let name = Path::of(request.uri()).topic()?;
        no_parameters(&request)?;
        let config = &app.directory.config;
        let if_match = if_match(request.headers());
        let mut fields = Fields::of_body(app, request).await?;
        // A merge patch: null restores the default.
        let max_ms = config.max_retention.as_millis();
        let retention = fields.nullable("retention", |fields| fields.duration("retention", 1_000..=max_ms))?;
        let delay = fields.nullable("delay", |fields| fields.duration("delay", 0..=max_ms))?;
        let max_bytes =
            fields.nullable("max_message_bytes", |fields| fields.number("max_message_bytes", 1..=MAX_MESSAGE_BYTES))?;
        let text = fields.nullable("description", description)?;
        fields.finish()?;
        let alter = Call::AlterTopic {
            retention_ms: retention.map(|ms| ms.unwrap_or(config.default_retention_ms())),
            delay_ms: delay.map(Option::unwrap_or_default),
            max_message_bytes: max_bytes.map(|bytes| bytes.unwrap_or(config.max_message_bytes.0)),
            description: text.map(Option::unwrap_or_default),
            if_match,
        };
        topic_response(app.directory.call(&name, by, alter).await?)
    };
    respond(result.await)
}

pub(super) async fn delete(state: Application, request: Incoming) -> Response {
    let result = async move {
        let by = principal(&request);
        let name = Path::of(request.uri()).topic()?;
        no_parameters(&request)?;
        let if_match = if_match(request.headers());
        state.0.directory.call(&name, by, Call::DeleteTopic { if_match }).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    };
    respond(result.await)
}

pub(super) async fn grant(state: Application, request: Incoming) -> Response {
    let result = async move {
        let app = &state.0;
        let by = principal(&request);
        let mut path = Path::of(request.uri());
        let (name, grantee) = (path.topic()?, path.principal()?);
        no_parameters(&request)?;
        let if_match = if_match(request.headers());
        let mut fields = Fields::of_body(app, request).await?;
        let grant = Grant {
            publish: fields.flag("publish")?.unwrap_or_default(),
            subscribe: fields.flag("subscribe")?.unwrap_or_default(),
            manage: fields.flag("manage")?.unwrap_or_default(),
        };
        fields.finish()?;
        if grant.manage && grantee == Grant::EVERYBODY {
            return Err(invalid("manage", "cannot be granted to everybody".into()));
        }
        let call = Call::SetGrant { principal: grantee, grant: Some(grant), if_match };
        app.directory.call(&name, by, call).await?;
        Ok(render::json(StatusCode::OK, &grant))
    };
    respond(result.await)
}

pub(super) async fn revoke(state: Application, request: Incoming) -> Response {
    let result = async move {
        let by = principal(&request);
        let mut path = Path::of(request.uri());
        let (name, grantee) = (path.topic()?, path.principal()?);
        no_parameters(&request)?;
        let if_match = if_match(request.headers());
        let call = Call::SetGrant { principal: grantee, grant: None, if_match };
        match state.0.directory.call(&name, by, call).await {
            Ok(_) => Ok(StatusCode::NO_CONTENT.into_response()),
            Err(refusal) if refusal.code == Code::NotFound && refusal.field.as_deref() == Some("principal") => {
                Ok(StatusCode::NO_CONTENT.into_response())
            }
            Err(refusal) => Err(refusal),
        }
    };
    respond(result.await)
}
