//! Topics, subscriptions and messages as JSON.

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_TYPE, ETAG};
use http::{HeaderValue, StatusCode};
use millrace_contracts::topics::{
    AttemptError, Grant, Order, SubscriptionState, SubscriptionView, TopicSettings, TopicView,
};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

use super::fields::{duration_text, measured_text, time_text};

/// A JSON response.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let mut body = serde_json::to_vec(value).unwrap_or_default();
    body.push(b'\n');
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(super) fn with_etag(status: StatusCode, value: &impl Serialize, etag: &str) -> Response {
    let mut response = json(status, value);
    if let Ok(etag) = HeaderValue::try_from(etag) {
        response.headers_mut().insert(ETAG, etag);
    }
    response
}

/// A topic.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Topic)]
pub(crate) struct TopicBody {
    name: String,
    /// Its partition and the offset of the command that created it.
    id: String,
    owner: String,
    created_at: Option<String>,
    settings: SettingsBody,
    /// Rights of principals other than the owner.
    #[schema(value_type = std::collections::HashMap<String, GrantBody>)]
    grants: BTreeMap<String, Grant>,
    partition: u32,
    /// Messages ever published.
    messages: u64,
    newest_at: Option<String>,
    subscriptions: u64,
    etag: String,
}

/// A topic's settings.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = TopicSettings)]
pub(crate) struct SettingsBody {
    /// Messages older than this are handed out no more.
    #[schema(example = "72h")]
    retention: String,
    /// Messages are handed out so long after they were published.
    #[schema(example = "0s")]
    delay: String,
    max_message_bytes: u64,
    description: String,
}

/// Rights of a principal.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Grant)]
pub(crate) struct GrantBody {
    publish: bool,
    subscribe: bool,
    manage: bool,
}

fn settings(settings: &TopicSettings) -> SettingsBody {
    SettingsBody {
        retention: duration_text(settings.retention_ms),
        delay: duration_text(settings.delay_ms),
        max_message_bytes: settings.max_message_bytes,
        description: settings.description.clone(),
    }
}

pub(super) fn topic(topic: &TopicView) -> TopicBody {
    TopicBody {
        name: topic.name.to_string(),
        id: topic.id.to_string(),
        owner: topic.owner.clone(),
        created_at: time_text(topic.created_ms),
        settings: settings(&topic.settings),
        grants: topic.grants.clone(),
        partition: topic.id.partition,
        messages: topic.messages,
        newest_at: topic.newest_ms.and_then(time_text),
        subscriptions: topic.subscriptions,
        etag: topic.etag.clone(),
    }
}

/// A subscription.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Subscription)]
pub(crate) struct SubscriptionBody {
    name: String,
    topic: String,
    owner: String,
    /// `pull` or `push`.
    mode: &'static str,
    /// `active` or `suspended`.
    state: &'static str,
    /// Why it is suspended.
    reason: Option<String>,
    epoch: u64,
    position: PositionBody,
    /// Messages of the topic that are settled or passed over.
    settled: u64,
    /// Messages not acknowledged, retry included; an upper bound under a filter.
    backlog: u64,
    oldest_unacked_at: Option<String>,
    in_retry: u64,
    leased: u64,
    last_error: Option<&'static str>,
    next_attempt_at: Option<String>,
    /// For how long the oldest unacknowledged message is still retained, to two units.
    retention_left: Option<String>,
    recent_attempts: Option<RecentAttemptsBody>,
    #[schema(value_type = Option<Object>)]
    filter: Option<Value>,
    ack_deadline: Option<String>,
    /// `none` or `key`.
    order: &'static str,
    max_attempts: Option<u32>,
    #[schema(value_type = Option<Object>)]
    push: Option<Value>,
    /// The signing key of a push subscription: shown once, when it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<String>,
    etag: String,
}

/// How the last attempts of a push subscription ended, at most 100 of them; in the memory of the coordinator, so that another
/// one begins with none.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = RecentAttempts)]
pub(crate) struct RecentAttemptsBody {
    total: u32,
    succeeded: u32,
    /// 99 % of them took no longer, in ms.
    p99_ms: u32,
}

/// Everything up to this offset is settled.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Position)]
pub(crate) struct PositionBody {
    /// -1: nothing is.
    offset: i64,
    /// Messages of the topic up to it.
    ordinal: u64,
}

pub(super) fn subscription(subscription: &SubscriptionView) -> SubscriptionBody {
    let settings = &subscription.settings;
    let (state, reason) = match &subscription.state {
        SubscriptionState::Active => ("active", None),
        SubscriptionState::Suspended(reason) => ("suspended", Some(reason.clone())),
    };
    SubscriptionBody {
        name: subscription.name.to_string(),
        topic: subscription.topic.to_string(),
        owner: subscription.owner.clone(),
        mode: if settings.push.is_some() { "push" } else { "pull" },
        state,
        reason,
        epoch: subscription.epoch,
        position: PositionBody { offset: subscription.floor, ordinal: subscription.floor_ordinal },
        settled: subscription.settled,
        backlog: subscription.backlog,
        oldest_unacked_at: subscription.oldest_unacked_ms.and_then(time_text),
        in_retry: subscription.in_retry,
        leased: subscription.leased,
        last_error: subscription.last_error.map(AttemptError::as_str),
        next_attempt_at: subscription.next_attempt_ms.and_then(time_text),
        retention_left: subscription.retention_left_ms.map(measured_text),
        recent_attempts: subscription.recent_attempts.map(|recent| RecentAttemptsBody {
            total: recent.total,
            succeeded: recent.succeeded,
            p99_ms: recent.p99_ms,
        }),
        filter: settings.filter.as_ref().and_then(|filter| serde_json::to_value(filter).ok()),
        ack_deadline: settings.ack_deadline_ms.map(duration_text),
        order: match settings.order {
            Order::None => "none",
            Order::Key => "key",
        },
        max_attempts: settings.max_attempts,
        push: settings.push.as_ref().map(super::push::settings),
        secret: None,
        etag: subscription.etag.clone(),
    }
}
