//! Settings of topics and subscriptions, as they are stored.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Filter, PushSettings};

/// What identifies a topic for good: its partition and the offset of the command that created it. A topic that was deleted
/// and created again has another id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TopicId {
    /// The partition.
    pub partition: u32,
    /// Offset of the create command in `topics.commands`.
    pub offset: u64,
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.partition, self.offset)
    }
}

impl FromStr for TopicId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (partition, offset) = text.split_once('-').ok_or(())?;
        Ok(Self { partition: partition.parse().map_err(drop)?, offset: offset.parse().map_err(drop)? })
    }
}

/// A topic's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicSettings {
    /// Messages older than this many ms are handed out no more.
    pub retention_ms: u64,
    /// Messages are handed out this many ms after they were published.
    pub delay_ms: u64,
    /// Largest message in bytes.
    pub max_message_bytes: u64,
    /// For people.
    pub description: String,
}

/// What a principal other than the owner may do with a topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Publish to it.
    pub publish: bool,
    /// Create subscriptions of it.
    pub subscribe: bool,
    /// Everything the owner may do.
    pub manage: bool,
}

impl Grant {
    /// In the place of a principal: everybody. No principal has this name, as principals begin with their kind.
    pub const EVERYBODY: &str = "*";

    /// The rights of a principal: its own, and those of everybody.
    pub fn of(grants: &BTreeMap<String, Self>, principal: &str) -> Self {
        let granted = |name: &str| grants.get(name).copied().unwrap_or_default();
        let (own, all) = (granted(principal), granted(Self::EVERYBODY));
        Self {
            publish: own.publish || all.publish,
            subscribe: own.subscribe || all.subscribe,
            manage: own.manage || all.manage,
        }
    }
}

/// The order in which messages are handed out to several readers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Every message by itself.
    #[default]
    None,
    /// Messages of one key one after the other.
    Key,
}

/// A subscription's settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionSettings {
    /// Which messages it gets; `None`: all.
    pub filter: Option<Filter>,
    /// The lease of a pull that does not give one, in ms; `None`: no lease.
    pub ack_deadline_ms: Option<u64>,
    /// The order for several readers.
    pub order: Order,
    /// Attempts after which a message is dead-lettered; `None`: unlimited.
    pub max_attempts: Option<u32>,
    /// Where and how messages are pushed; `None`: a pull subscription.
    #[serde(default)]
    pub push: Option<PushSettings>,
}

impl SubscriptionSettings {
    /// Whether a pull without a lease of its own takes one.
    pub fn default_lease_ms(&self) -> Option<u64> {
        self.ack_deadline_ms
    }

    /// Whether messages of one key wait for each other.
    pub fn by_key(&self) -> bool {
        self.order == Order::Key
    }
}
