//! Topics, subscriptions and dead letters as the API shows them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{AttemptError, Delivery, Grant, Name, SubscriptionSettings, TopicId, TopicSettings};

/// A topic as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicView {
    /// Its name.
    pub name: Name,
    /// Its id.
    pub id: TopicId,
    /// The creating principal.
    pub owner: String,
    /// When it was created, ms since the epoch.
    pub created_ms: i64,
    /// Its settings.
    pub settings: TopicSettings,
    /// Rights of others.
    pub grants: BTreeMap<String, Grant>,
    /// Messages ever published.
    pub messages: u64,
    /// When the newest one was published, ms since the epoch.
    pub newest_ms: Option<i64>,
    /// Number of subscriptions.
    pub subscriptions: u64,
    /// Changes with settings and grants.
    pub etag: String,
}

/// Whether a subscription hands out messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SubscriptionState {
    /// It does.
    Active,
    /// It does not, for this reason; the position stays.
    Suspended(String),
}

/// A subscription as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionView {
    /// Its name.
    pub name: Name,
    /// Its topic.
    pub topic: Name,
    /// The creating principal.
    pub owner: String,
    /// Its settings.
    pub settings: SubscriptionSettings,
    /// Whether it hands out messages.
    pub state: SubscriptionState,
    /// The cursor's epoch.
    pub epoch: u64,
    /// Everything up to this offset is settled; -1: nothing is.
    pub floor: i64,
    /// Messages of the topic up to it.
    pub floor_ordinal: u64,
    /// Messages of the topic that are settled or passed over.
    pub settled: u64,
    /// Messages not acknowledged, retry included; an upper bound under a filter.
    pub backlog: u64,
    /// When the oldest of them was published, ms since the epoch, if that is at hand.
    pub oldest_unacked_ms: Option<i64>,
    /// Messages in retry.
    pub in_retry: u64,
    /// Messages under a lease.
    pub leased: u64,
    /// Why the last attempt of a push subscription failed; `None` after a success.
    pub last_error: Option<AttemptError>,
    /// When the next message in retry is due, ms since the epoch.
    pub next_attempt_ms: Option<i64>,
    /// For how long the oldest unacknowledged message is still retained, in ms.
    pub retention_left_ms: Option<u64>,
    /// How the last attempts of a push subscription ended; `None` before the first.
    pub recent_attempts: Option<RecentAttempts>,
    /// Changes with settings.
    pub etag: String,
}

/// How the last attempts of a push subscription ended, as far as its coordinator remembers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecentAttempts {
    /// How many there were.
    pub total: u32,
    /// How many of them succeeded.
    pub succeeded: u32,
    /// 99 % of them took no longer, in ms.
    pub p99_ms: u32,
}

/// A dead letter as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterView {
    /// Its offset in `dead-letters`.
    pub offset: u64,
    /// When the message was given up, ms since the epoch.
    pub dead_lettered_ms: i64,
    /// Why.
    pub reason: String,
    /// Failed attempts.
    pub attempts: u32,
    /// When it failed first, ms since the epoch.
    pub first_attempt_ms: Option<i64>,
    /// When it failed last, ms since the epoch.
    pub last_attempt_ms: Option<i64>,
    /// The status of the last response.
    pub last_status: Option<u16>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// The message; its token is empty.
    pub message: Delivery,
}
