//! Subscriptions: create, describe, list, alter, delete, suspend, resume, seek.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use millrace_contracts::topics::{Filter, Name, Order, PushPatch, Reply, Request as Call, Start, SubscriptionSettings};
use millrace_contracts::{Code, Refusal};
use serde_json::Value;

use super::directory::unexpected;
use super::exchange::{Application, Incoming, principal, respond};
use super::fields::{self, Fields, if_match, invalid};
use super::path::{Path, creatable};
use super::push;
use super::render;
use super::topic::{absent_fails, no_parameters, page};
use crate::app::App;

/// Largest `max_attempts`.
pub(super) const MAX_ATTEMPTS: u64 = 1_000_000;
/// A lease, in ms: 1 s to 12 h.
pub(super) const LEASE_MS: std::ops::RangeInclusive<u64> = 1_000..=43_200_000;

pub(super) async fn create(state: Application, request: Incoming) -> Response {
    let result = async move {
        let app = &state.0;
        let by = principal(&request);
        let mut path = Path::of(request.uri());
        let (topic, subscription) = (path.topic()?, path.subscription()?);
        creatable(&subscription, "subscription")?;
        no_parameters(&request)?;
        let if_match = if_match(request.headers());
        let mut fields = Fields::of_body(app, request).await?;
        let push = push::patch(&mut fields)?;
        if push.push.is_none() {
            return Err(Refusal::new(Code::MissingField, "mode must be given").field("mode"));
        }
        let start = start(fields.take("start"), "start")?.unwrap_or(Start::Latest);
        let settings = SubscriptionSettings {
            filter: filter(&mut fields)?.flatten(),
            ack_deadline_ms: ack_deadline(&mut fields)?.flatten(),
            order: order(&mut fields)?,
            max_attempts: max_attempts(&mut fields)?.flatten(),
            push: None,
        };
        fields.finish()?;
        if if_match.is_some() {
            let (subscription, filter, ack_deadline_ms, max_attempts) = (subscription.clone(), None, None, None);
            let push = PushPatch::default();
            let unchanged =
                Call::AlterSubscription { subscription, filter, ack_deadline_ms, max_attempts, push, if_match };
            app.directory.call(&topic, by.clone(), unchanged).await.map_err(absent_fails)?;
        }
        let call = Call::CreateSubscription { subscription, settings, push, start };
        subscription_response(&app.directory.call(&topic, by, call).await?)
    };
    respond(result.await)
}

fn subscription_response(reply: &Reply) -> Result<Response, Refusal> {
    let Reply::Subscription { subscription, created, secret } = reply else { return Err(unexpected()) };
    let status = if *created { StatusCode::CREATED } else { StatusCode::OK };
    let mut body = render::subscription(subscription);
    body.secret.clone_from(secret);
    Ok(render::with_etag(status, &body, &subscription.etag))
}

#[expect(clippy::option_option, reason = "a member of a merge patch is absent, null or a value")]
fn filter(fields: &mut Fields) -> Result<Option<Option<Filter>>, Refusal> {
    match fields.take("filter") {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(value) => {
            Filter::parse(&value).map(|filter| Some(Some(filter))).map_err(|error| invalid("filter", error.to_string()))
        }
    }
}

#[expect(clippy::option_option, reason = "a member of a merge patch is absent, null or a value")]
fn ack_deadline(fields: &mut Fields) -> Result<Option<Option<u64>>, Refusal> {
    fields.nullable("ack_deadline", |fields| fields.duration("ack_deadline", LEASE_MS))
}

#[expect(clippy::option_option, reason = "a member of a merge patch is absent, null or a value")]
fn max_attempts(fields: &mut Fields) -> Result<Option<Option<u32>>, Refusal> {
    let read = fields.nullable("max_attempts", |fields| fields.number("max_attempts", 1..=MAX_ATTEMPTS))?;
    Ok(read.map(|number| number.map(|number| u32::try_from(number).unwrap_or(u32::MAX))))
}

fn order(fields: &mut Fields) -> Result<Order, Refusal> {
    match fields.text("order")?.as_deref() {
        None | Some("none") => Ok(Order::None),
        Some("key") => Ok(Order::Key),
        Some(_) => Err(invalid("order", "must be \"none\" or \"key\"".into())),
    }
}

/// `latest`, `earliest`, `{"at": time}` or `{"offset": n}`.
fn start(value: Option<Value>, field: &'static str) -> Result<Option<Start>, Refusal> {
    let wrong = || invalid(field, "must be \"latest\", \"earliest\", {\"at\": time} or {\"offset\": number}".into());
    match value {
        None => Ok(None),
        Some(Value::String(text)) if text == "latest" => Ok(Some(Start::Latest)),
        Some(Value::String(text)) if text == "earliest" => Ok(Some(Start::Earliest)),
        Some(Value::Object(members)) if members.len() == 1 => {
            let at = members.get("at").map(|value| fields::time(value).map(Start::At));
            let offset = members.get("offset").map(|value| {
                let offset = fields::whole(value).filter(|offset| i64::try_from(*offset).is_ok());
                offset.map(Start::Offset)
            });
            at.or(offset).flatten().map(Some).ok_or_else(wrong)
        }
        Some(_) => Err(wrong()),
    }
}

pub(super) async fn describe(state: Application, request: Incoming) -> Response {
    let result = async move {
        let by = principal(&request);
        let mut path = Path::of(request.uri());
        let (topic, subscription) = (path.topic()?, path.subscription()?);
        no_parameters(&request)?;
        subscription_response(&state.0.directory.call(&topic, by, Call::DescribeSubscription(subscription)).await?)
    };
    respond(result.await)
}

pub(super) async fn list(state: Application, request: Incoming) -> Response {
    let result = async move {
        let by = principal(&request);
        let topic = Path::of(request.uri()).topic()?;
        let listing = page(&request)?;
        let reply = state.0.directory.call(&topic, by, Call::ListSubscriptions(listing)).await?;
        let Reply::Subscriptions(subscriptions, more) = reply else { return Err(unexpected()) };
        let next = subscriptions.last().filter(|_| more).map(|subscription| subscription.name.clone());
        let subscriptions: Vec<_> = subscriptions.iter().map(render::subscription).collect();
        Ok(render::json(StatusCode::OK, &serde_json::json!({ "subscriptions": subscriptions, "next": next })))
    };
    respond(result.await)
}

pub(super) async fn alter(state: Application, request: Incoming) -> Response {
    let result = async move {
        let app = &state.0;
        let by = principal(&request);
        let mut path = Path::of(request.uri());
        let (topic, subscription) = (path.topic()?, path.subscription()?);
        no_parameters(&request)?;
        let if_match = if_match(request.headers());
        let mut fields = Fields::of_body(app, request).await?;
        for fixed in ["start", "order"] {
            if fields.take(fixed).is_some() {
                return Err(invalid(fixed, "cannot be changed; seek moves the position".into()));
            }
        }
        let call = Call::AlterSubscription {
            subscription,
            filter: filter(&mut fields)?,
            ack_deadline_ms: ack_deadline(&mut fields)?,
            max_attempts: max_attempts(&mut fields)?,
            push: push::patch(&mut fields)?,
            if_match,
        };
        fields.finish()?;
        subscription_response(&app.directory.call(&topic, by, call).await?)
    };
    respond(result.await)
}

pub(super) async fn delete(state: Application, request: Incoming) -> Response {
    let result = async move {
        let by = principal(&request);
        let mut path = Path::of(request.uri());
        let (topic, subscription) = (path.topic()?, path.subscription()?);
        no_parameters(&request)?;
        let if_match = if_match(request.headers());
        state.0.directory.call(&topic, by, Call::DeleteSubscription { subscription, if_match }).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    };
    respond(result.await)
}

pub(super) async fn suspend(state: Application, request: Incoming) -> Response {
    act(&state.0, request, |subscription, _| Ok(Call::Suspend(subscription)), subscription_response).await
}

pub(super) async fn resume(state: Application, request: Incoming) -> Response {
    act(&state.0, request, |subscription, _| Ok(Call::Resume(subscription)), subscription_response).await
}

pub(super) async fn rotate_secret(state: Application, request: Incoming) -> Response {
    let read =
        |subscription, fields: &mut Fields| Ok(Call::RotateSecret { subscription, overlap_ms: push::overlap(fields)? });
    act(&state.0, request, read, subscription_response).await
}

pub(super) async fn seek(state: Application, request: Incoming) -> Response {
    let read = |subscription, fields: &mut Fields| {
        let to = start(fields.take("to"), "to")?;
        let to = to.ok_or_else(|| Refusal::new(Code::MissingField, "to must be given").field("to"))?;
        Ok(Call::Seek { subscription, to })
    };
    act(&state.0, request, read, subscription_response).await
}

/// A POST about a subscription: reads its name from the path and the call from the body, brings it to the coordinator, and
/// shows the reply.
pub(super) async fn act(
    app: &Arc<App>,
    request: Incoming,
    read: impl FnOnce(Name, &mut Fields) -> Result<Call, Refusal>,
    show: impl FnOnce(&Reply) -> Result<Response, Refusal>,
) -> Response {
    let result = async move {
        let by = principal(&request);
        let mut path = Path::of(request.uri());
        let (topic, subscription) = (path.topic()?, path.subscription_of_verb()?);
        no_parameters(&request)?;
        let mut fields = Fields::of_body(app, request).await?;
        let call = read(subscription, &mut fields)?;
        fields.finish()?;
        show(&app.directory.call(&topic, by, call).await?)
    };
    respond(result.await)
}
