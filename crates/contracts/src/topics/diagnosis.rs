//! What shows why a message was delivered or was not: a sample request to an endpoint, and the verdict on a message.

use serde::{Deserialize, Serialize};

use super::AttemptError;

/// A signed sample, as it was sent to an endpoint, and how that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleView {
    /// Where it was sent.
    pub url: String,
    /// Its headers; `None` for values that are never shown.
    pub headers: Vec<(String, Option<String>)>,
    /// Its body.
    pub body: String,
    /// The addresses of the endpoint's host, all of them allowed.
    pub addresses: Vec<String>,
    /// The status, if the endpoint answered.
    pub status: Option<u16>,
    /// How long it took, in ms.
    pub latency_ms: u64,
    /// Why it failed.
    pub error: Option<AttemptError>,
    /// The beginning of the answer.
    pub answer: Option<String>,
}

/// What became of a message for a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It is settled.
    Delivered,
    /// The filter passes over it.
    Filtered,
    /// It is still to be handed out, or in somebody's hands.
    Pending,
    /// It failed and is handed out again.
    InRetry,
    /// It is a dead letter.
    DeadLettered,
    /// The subscription began behind it, or was set to a position behind it.
    BeforeStart,
    /// Its retention is over: it is not handed out any more.
    Expired,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Delivered,
        Self::Filtered,
        Self::Pending,
        Self::InRetry,
        Self::DeadLettered,
        Self::BeforeStart,
        Self::Expired,
    ];

    /// The verdict's name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Filtered => "filtered",
            Self::Pending => "pending",
            Self::InRetry => "in-retry",
            Self::DeadLettered => "dead-lettered",
            Self::BeforeStart => "before-start",
            Self::Expired => "expired",
        }
    }
}

/// The verdict on a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplanationView {
    /// What became of it.
    pub verdict: Verdict,
    /// Attempts, as far as they are known.
    pub attempts: Option<u32>,
    /// When it is handed out next, if that is known and not now, ms since the epoch.
    pub next_attempt_ms: Option<i64>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
}

impl From<Verdict> for ExplanationView {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, attempts: None, next_attempt_ms: None, last_error: None }
    }
}
