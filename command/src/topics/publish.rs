//! `POST /v1/topics/{topic}/messages`: one message, 201 when it is durable, 202 at a weaker level.

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use http::header::CONTENT_LENGTH;
use millrace_contracts::topics::{Name, Principal, PublishAnswer, Published, TopicView};
use millrace_contracts::{Code, Refusal};
use millrace_service::http::read_body;
use serde_json::json;

use super::directory::Placement;
use super::exchange::{Application, Incoming, principal, respond};
use super::fields::time_text;
use super::path::Path;
use super::topic::no_parameters;
use super::{message, render};
use crate::app::App;
use crate::intake::Terms;
use crate::topics::TopicsConfig;

pub(super) async fn post(state: Application, request: Incoming) -> Response {
    let terms = Terms::of(&state.0.config, request.headers());
    let mut response = respond(publish(&state.0, request, terms).await);
    if response.status().is_success() {
        terms.add_header(response.headers_mut());
    }
    response
}

async fn publish(app: &Arc<App>, request: Incoming, terms: Terms) -> Result<Response, Refusal> {
    let by = principal(&request);
    let name = Path::of(request.uri()).topic()?;
    no_parameters(&request)?;
    let topic = app.directory.publishable(&name, &by).await?;
    let mut given = message::of_headers(request.headers(), app.clock.now_ms())?;
    let max = topic.settings.max_message_bytes;
    let coded = request.headers().contains_key(http::header::CONTENT_ENCODING);
    let declared = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if !coded && declared.is_some_and(|length| length > max) {
        return Err(too_large(max));
    }
    let body = read_body(request, &TopicsConfig::body_limits(&app.config.limits), &app.bodies).await?;
    if body.len() as u64 > max {
        return Err(too_large(max));
    }
    given.body = body.to_vec();
    let answer = send(app, &name, &topic, &by, given, terms).await?;
    Ok(published(&name, topic.id.partition, &answer, terms))
}

pub(super) fn too_large(max: u64) -> Refusal {
    Refusal::new(Code::TooLarge, format!("the message is larger than the topic's {max} bytes"))
}

/// Publishes a message that was checked: through the coordinator if it has a key or a delay, else by itself.
pub(super) async fn send(
    app: &Arc<App>,
    name: &Name,
    topic: &TopicView,
    by: &Principal,
    mut published: Published,
    terms: Terms,
) -> Result<Placement, Refusal> {
    let now_ms = app.clock.now_ms();
    if let Some(at) = published.deliver_at_ms {
        let retention = i64::try_from(topic.settings.retention_ms).unwrap_or(i64::MAX);
        if at > now_ms.saturating_add(retention) {
            let latest = time_text(now_ms.saturating_add(retention)).unwrap_or_default();
            let detail = format!("the time of delivery is beyond the topic's retention, which ends {latest}");
            return Err(Refusal::new(Code::OutsideWindow, detail).field("deliver_at"));
        }
        if at <= now_ms {
            published.deliver_at_ms = None;
        }
    }
    if published.idempotency_key.is_some() || published.deliver_at_ms.is_some() {
        let answer = app.directory.publish(name, by.clone(), published).await?;
        let offset = Some(answer.offset);
        return Ok(Placement { answer, offset });
    }
    app.directory.append(name, topic, published, now_ms, terms.durability).await
}

/// The status of a publish.
pub(super) fn status(answer: &PublishAnswer, terms: Terms) -> StatusCode {
    if answer.duplicate {
        StatusCode::OK
    } else if terms.status() == StatusCode::NO_CONTENT {
        StatusCode::CREATED
    } else {
        terms.status()
    }
}

/// The answer to a publish.
fn published(topic: &Name, partition: u32, placement: &Placement, terms: Terms) -> Response {
    let answer = &placement.answer;
    let body = json!({
        "topic": topic,
        "partition": partition,
        "offset": placement.offset,
        "id": answer.id,
        "published_at": time_text(answer.published_ms),
        "duplicate": answer.duplicate,
    });
    render::json(status(answer, terms), &body)
}
