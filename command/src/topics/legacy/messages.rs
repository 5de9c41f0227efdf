//! Publishing, getting and acknowledging messages.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::{Method, StatusCode};
use millrace_contracts::topics::{Name, Published, Reply, Request as Call};
use millrace_contracts::{Code, Refusal};
use millrace_service::http::read_body;
use serde::Serialize;

use super::content::reserialized;
use super::exchange::{Failure, LegacyCall, json, json_only, position, respond};
use crate::app::App;
use crate::intake::Durability;
use crate::topics::directory::unexpected;
use crate::topics::exchange::{Application, Incoming};
use crate::topics::message::new_id;
use crate::topics::publish::too_large;
use crate::topics::pull::get_only;
use crate::topics::{TopicsConfig, directory::Placement};

/// A message as these calls show it.
#[derive(Serialize)]
struct MessageBody<'a> {
    topic: &'a Name,
    content: &'a str,
}

/// `POST /message/publish/{topic}`: 201 once the message is durable, whatever the level of others.
pub(super) async fn publish(state: Application, request: Incoming) -> Response {
    respond(publish_it(&state.0, request).await)
}

async fn publish_it(app: &Arc<App>, request: Incoming) -> Result<Response, Failure> {
    let LegacyCall { by, topic } = LegacyCall::of(&request)?;
    json_only(request.headers())?;
    let found = app.directory.publishable(&topic, &by).await.map_err(|refusal| match refusal.code {
        Code::NotFound => not_registered(&topic),
        Code::Forbidden => Failure::new(Code::Unauthenticated, refusal.detail),
        _ => refusal.into(),
    })?;
    let max = found.settings.max_message_bytes;
    let headers = request.headers();
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if !headers.contains_key(CONTENT_ENCODING) && declared.is_some_and(|length| length > max) {
        return Err(too_large(max).into());
    }
    let body = read_body(request, &TopicsConfig::body_limits(&app.config.limits), &app.bodies).await?;
    if body.len() as u64 > max {
        return Err(too_large(max).into());
    }
    let malformed = || Failure::new(Code::BadRequest, "the message is not JSON in utf-8");
    let content = reserialized(&body).ok_or_else(malformed)?;
    let published = Published {
        id: new_id(),
        key: None,
        idempotency_key: None,
        deliver_at_ms: None,
        content_type: "application/json".into(),
        attributes: Vec::new(),
        body: content.clone().into_bytes(),
    };
    let now_ms = app.clock.now_ms();
    let placed = app.directory.append(&topic, &found, published, now_ms, Durability::Replicated).await;
    placed.map_err(Failure::from).map(|_: Placement| shown(StatusCode::CREATED, &topic, &content))
}

fn shown(status: StatusCode, topic: &Name, content: &str) -> Response {
    json(status, &MessageBody { topic, content })
}

/// `GET /message/get/{topic}`: the same message until it is acknowledged.
pub(super) async fn get(state: Application, request: Incoming) -> Response {
    if request.method() != Method::GET {
        return get_only();
    }
    let result = async move {
        let made = LegacyCall::of(&request)?;
        let call = Call::Current(made.subscription()?);
        let LegacyCall { by, topic } = made;
        match state.0.directory.call(&topic, by, call).await {
            Ok(Reply::Messages(messages)) => Ok(match messages.first() {
                None => nothing(),
                Some(message) => shown(StatusCode::OK, &topic, &String::from_utf8_lossy(&message.body)),
            }),
            Ok(_) => Err(unexpected().into()),
            Err(refusal) => Err(not_subscribed(&topic, refusal)),
        }
    };
    respond(result.await)
}

/// `POST /message/ack/{topic}`: acknowledges what the last get handed out.
pub(super) async fn ack(state: Application, request: Incoming) -> Response {
    let result = async move {
        let made = LegacyCall::of(&request)?;
        let call = Call::AckCurrent(made.subscription()?);
        let LegacyCall { by, topic } = made;
        match state.0.directory.call(&topic, by, call).await {
            Ok(Reply::Position(Some(bytes))) => Ok(position(&topic, bytes)),
            Ok(Reply::Position(None)) => Ok(nothing()),
            Ok(_) => Err(unexpected().into()),
            Err(refusal) => Err(not_subscribed(&topic, refusal)),
        }
    };
    respond(result.await)
}

fn nothing() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

fn not_registered(topic: &Name) -> Failure {
    Failure::of_topic(Code::NotFound, topic, "not registered")
}

/// An unknown topic has no subscribers either.
fn not_subscribed(topic: &Name, refusal: Refusal) -> Failure {
    match refusal.code {
        Code::NotFound | Code::Forbidden => Failure::of_topic(Code::Forbidden, topic, "not subscribed"),
        _ => refusal.into(),
    }
}
