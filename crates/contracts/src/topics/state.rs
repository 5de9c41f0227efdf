//! The keys of `topics.state` and what stands under them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    AttemptFailure, Cursor, Grant, Name, Redrive, SettledRange, SigningKey, SubscriptionEvent, SubscriptionSettings,
    TopicSettings,
};
use crate::codec::{DecodeError, Fields, begin, put_bytes};
use crate::schema;

/// A key of `topics.state`, readable in `kcat`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TopicStateKey {
    /// `open/{p}`: the coordinator in force.
    Open(u32),
    /// `topic/{t}`
    Topic(Name),
    /// `sub/{t}/{s}`
    Subscription(Name, Name),
    /// `cursor/{t}/{s}`
    Cursor(Name, Name),
    /// `retry/{t}/{s}/{offset}`
    Retry(Name, Name, i64),
    /// `redrive/{t}/{s}/{id}`
    Redrive(Name, Name, u64),
    /// `delay/{t}/{due}/{offset}`
    Delay(Name, i64, u64),
    /// `event/{offset}`: of the command that caused it.
    Event(u64),
    /// `head/{t}`
    Head(Name),
    /// `heads/{p}`: how far the heads cover `messages`.
    Heads(u32),
}

impl fmt::Display for TopicStateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(partition) => write!(f, "open/{partition}"),
            Self::Topic(topic) => write!(f, "topic/{topic}"),
            Self::Subscription(topic, subscription) => write!(f, "sub/{topic}/{subscription}"),
            Self::Cursor(topic, subscription) => write!(f, "cursor/{topic}/{subscription}"),
            Self::Retry(topic, subscription, offset) => write!(f, "retry/{topic}/{subscription}/{offset}"),
            Self::Redrive(topic, subscription, id) => write!(f, "redrive/{topic}/{subscription}/{id:016x}"),
            Self::Delay(topic, due, offset) => write!(f, "delay/{topic}/{due}/{offset}"),
            Self::Event(offset) => write!(f, "event/{offset}"),
            Self::Head(topic) => write!(f, "head/{topic}"),
            Self::Heads(partition) => write!(f, "heads/{partition}"),
        }
    }
}

impl TopicStateKey {
    /// Reads a record key; `None` if it is not one of these.
    pub fn parse(key: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(key).ok()?.split('/');
        let kind = parts.next()?;
        let first = parts.next()?;
        let name = |text: &str| Name::of_system(text).ok();
        let parsed = match kind {
            "open" => Self::Open(first.parse().ok()?),
            "topic" => Self::Topic(name(first)?),
            "sub" => Self::Subscription(name(first)?, name(parts.next()?)?),
            "cursor" => Self::Cursor(name(first)?, name(parts.next()?)?),
            "retry" => Self::Retry(name(first)?, name(parts.next()?)?, parts.next()?.parse().ok()?),
            "redrive" => {
                Self::Redrive(name(first)?, name(parts.next()?)?, u64::from_str_radix(parts.next()?, 16).ok()?)
            }
            "delay" => Self::Delay(name(first)?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?),
            "event" => Self::Event(first.parse().ok()?),
            "head" => Self::Head(name(first)?),
            "heads" => Self::Heads(first.parse().ok()?),
            _ => return None,
        };
        parts.next().is_none().then_some(parsed)
    }
}

/// What stands under a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateEntry {
    /// The coordinator in force.
    Open {
        /// Its nonce.
        nonce: u64,
        /// Where front ends reach it.
        url: String,
        /// The number of its newest command.
        number: u64,
    },
    /// A topic.
    Topic(TopicMeta),
    /// A subscription.
    Subscription(SubscriptionMeta),
    /// A subscription's cursor.
    Cursor(Cursor),
    /// A message in retry.
    Retry(Retry),
    /// The progress of a redrive.
    Redrive(Redrive),
    /// A delayed message that waits.
    Delay,
    /// An event that is not published yet.
    Event(SubscriptionEvent),
    /// A topic's newest message.
    Head(Head),
    /// The heads cover `messages` up to this offset: what an earlier version wrote.
    Heads(i64),
    /// The heads cover `messages` up to an offset.
    Covered(Coverage),
}

/// Up to where heads cover `messages`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// The offset; -1: nothing yet.
    pub offset: i64,
    /// The identity of the record there, if it is known: cursors mean nothing in a log with another one.
    pub last_record: Option<u64>,
}

impl Default for Coverage {
    fn default() -> Self {
        Self { offset: -1, last_record: None }
    }
}

/// A topic, without its subscriptions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicMeta {
    /// Offset of the command that created it: with the partition, its id.
    pub created: u64,
    /// When it was created, ms since the epoch.
    pub created_ms: i64,
    /// Offset of the command that last changed settings or grants.
    pub version: u64,
    /// The creating principal.
    pub owner: String,
    /// Its settings.
    pub settings: TopicSettings,
    /// Rights of others, by principal.
    pub grants: BTreeMap<String, Grant>,
    /// When it was deleted, ms since the epoch; its name rests for a while.
    pub deleted_ms: Option<i64>,
}

/// A topic's newest message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its offset; -1: none yet.
    pub offset: i64,
    /// Number of messages ever published to the topic.
    pub ordinal: u64,
    /// When it was published, ms since the epoch.
    pub newest_ms: i64,
}

impl Default for Head {
    fn default() -> Self {
        Self { offset: -1, ordinal: 0, newest_ms: 0 }
    }
}

/// A subscription, without its cursor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionMeta {
    /// Offset of the command that created it.
    pub created: u64,
    /// Offset of the command that last changed its settings.
    pub version: u64,
    /// The creating principal.
    pub owner: String,
    /// Its settings.
    pub settings: SubscriptionSettings,
    /// Why it is suspended; `None`: it is active.
    pub suspended: Option<String>,
    /// Whether its endpoint did not take a message in several attempts, and none since.
    #[serde(default)]
    pub failing: bool,
    /// Offset of the command that last created, altered or resumed it.
    #[serde(default)]
    pub active_since: u64,
    /// What requests to a push subscription's endpoint are signed with: the current key first.
    #[serde(default)]
    pub signing_keys: Vec<SigningKey>,
    /// Offsets in `dead-letters` of letters that were redriven: `(first, last)`, ascending.
    #[serde(default)]
    pub redriven: Vec<(u64, u64)>,
}

/// A message that is to be handed out again later. The cursor covers its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// The message's range; its offset is where the message stands.
    pub range: SettledRange,
    /// Failed attempts so far.
    pub attempts: u32,
    /// When it is handed out again, ms since the epoch.
    pub next_ms: i64,
    /// When it failed first, ms since the epoch.
    pub first_ms: i64,
    /// Hash of the message's key, if it has one.
    pub key_hash: Option<u64>,
    /// The last failed attempt, of a push subscription.
    #[serde(default)]
    pub last: Option<AttemptFailure>,
    /// The redrive that sends it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redrive: Option<u64>,
    /// The dead letter that the redrive took off the list: its offset in `dead-letters`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub letter: Option<u64>,
}

/// What identifies a retry among those of its message: a redrive begins another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryId {
    /// See [`Retry::first_ms`].
    pub first_ms: i64,
    /// Failed attempts at the least.
    pub attempts: u32,
    /// See [`Retry::redrive`].
    pub redrive: Option<u64>,
}

impl Retry {
    /// The identity of the retry as it is now.
    pub fn id(&self) -> RetryId {
        RetryId { first_ms: self.first_ms, attempts: self.attempts, redrive: self.redrive }
    }

    /// Whether this is the retry of an identity, perhaps after further attempts.
    pub fn is(&self, id: RetryId) -> bool {
        (self.first_ms, self.redrive) == (id.first_ms, id.redrive) && self.attempts >= id.attempts
    }
}

impl StateEntry {
    /// Appends the framed record value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        begin(out, schema::TOPIC_STATE);
        put_bytes(out, &serde_json::to_vec(self).unwrap_or_default());
    }

    /// Reads a framed record value.
    ///
    /// # Errors
    /// Bytes that are no state of a topic.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::open(value, schema::TOPIC_STATE)?;
        let state = serde_json::from_slice(fields.bytes("state")?).map_err(|_| DecodeError::Range("state"))?;
        fields.finish()?;
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_as_the_design_writes_them() {
        let name = |text: &str| Name::parse(text).unwrap();
        for (key, text) in [
            (TopicStateKey::Open(3), "open/3"),
            (TopicStateKey::Topic(name("orders")), "topic/orders"),
            (TopicStateKey::Subscription(name("orders"), name("w")), "sub/orders/w"),
            (TopicStateKey::Cursor(name("orders"), name("w")), "cursor/orders/w"),
            (TopicStateKey::Retry(name("orders"), name("w"), 12), "retry/orders/w/12"),
            (TopicStateKey::Redrive(name("orders"), name("w"), 255), "redrive/orders/w/00000000000000ff"),
            (TopicStateKey::Delay(name("orders"), 1_700, 12), "delay/orders/1700/12"),
            (TopicStateKey::Event(12), "event/12"),
            (TopicStateKey::Head(name("orders")), "head/orders"),
            (TopicStateKey::Heads(3), "heads/3"),
        ] {
            assert_eq!(key.to_string(), text);
            assert_eq!(TopicStateKey::parse(text.as_bytes()), Some(key));
        }
        for bad in ["", "open", "open/x", "topic/a/b", "sub/a", "pos/3", "retry/a/b", "retry/a/b/c", "redrive/a/b/x"] {
            assert_eq!(TopicStateKey::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
