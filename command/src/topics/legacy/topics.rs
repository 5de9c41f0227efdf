//! Registering a topic, and subscribing to one.

use axum::response::Response;
use millrace_contracts::Code;
use millrace_contracts::topics::{Grant, PushPatch, Reply, Request as Call, Start, SubscriptionSettings};

use super::exchange::{Failure, LegacyCall, position, respond};
use crate::topics::directory::unexpected;
use crate::topics::exchange::{Application, Incoming};
use crate::topics::path::creatable;

/// `POST /topic/register/{topic}`: the topic is open to every subscriber.
pub(super) async fn register(state: Application, request: Incoming) -> Response {
    let result = async move {
        let LegacyCall { by, topic } = LegacyCall::of(&request)?;
        creatable(&topic, "topic")?;
        let directory = &state.0.directory;
        let everybody = Grant { subscribe: true, ..Grant::default() };
        let grants = [(Grant::EVERYBODY.to_owned(), everybody)].into();
        let call = Call::CreateTopic { settings: directory.config.default_settings(), grants };
        let registered = || Failure::of_topic(Code::Exists, &topic, "already registered");
        match directory.call(&topic, by, call).await {
            Ok(Reply::Topic { created: true, .. }) => Ok(position(&topic, 0)),
            Ok(Reply::Topic { .. }) => Err(registered()),
            Ok(_) => Err(unexpected().into()),
            Err(refusal) if refusal.code == Code::Exists => Err(registered()),
            Err(refusal) => Err(refusal.into()),
        }
    };
    respond(result.await)
}

/// `POST /topic/subscribe/{topic}`: begins at the newest message.
pub(super) async fn subscribe(state: Application, request: Incoming) -> Response {
    let result = async move {
        let made = LegacyCall::of(&request)?;
        let subscription = made.subscription()?;
        let LegacyCall { by, topic } = made;
        let push = PushPatch { push: Some(false), settings: None };
        let settings = SubscriptionSettings::default();
        let call = Call::CreateSubscription { subscription, settings, push, start: Start::Newest };
        let subscribed = || Failure::of_topic(Code::Exists, &topic, "already subscribed");
        match state.0.directory.call(&topic, by, call).await {
            Ok(Reply::Subscription { created: true, .. }) => Ok(position(&topic, 0)),
            Ok(Reply::Subscription { .. }) => Err(subscribed()),
            Ok(_) => Err(unexpected().into()),
            Err(refusal) if refusal.code == Code::Exists => Err(subscribed()),
            Err(refusal) if refusal.code == Code::NotFound => {
                Err(Failure::of_topic(Code::NotFound, &topic, "not registered"))
            }
            Err(refusal) => Err(refusal.into()),
        }
    };
    respond(result.await)
}
