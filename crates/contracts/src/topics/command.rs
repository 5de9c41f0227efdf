//! The commands of `topics.commands`: what a coordinator appends, and its fold reads back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::message::{optional_text, put_optional_text};
use super::{Grant, Head, Name, Retry, RetryId, Secret, SettledRange, SubscriptionSettings, TopicSettings};
use crate::codec::{DecodeError, Fields, begin, put_bytes, put_long};
use crate::schema;

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicCommand {
    /// The coordinator that appended it.
    pub nonce: u64,
    /// Rises within the nonce, from 1.
    pub number: u64,
    /// The coordinator's time, ms since the epoch. The fold has no clock.
    pub at_ms: i64,
    /// The topic; `None` for a command about the whole partition.
    pub topic: Option<Name>,
    /// The subscription.
    pub subscription: Option<Name>,
    /// What changes.
    pub change: Change,
}

/// What a command changes. `version` is the offset of the command that last changed settings or grants: the new settings
/// were computed from it, and count only if it is still the newest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A coordinator takes over: it counts only if `previous` is the nonce in force.
    Open {
        /// The nonce in force, as the new coordinator restored it.
        previous: Option<u64>,
        /// Where front ends reach it.
        url: String,
    },
    /// Creates the topic.
    CreateTopic {
        /// The creating principal.
        owner: String,
        /// Its settings.
        settings: TopicSettings,
        /// Rights of others.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        grants: BTreeMap<String, Grant>,
    },
    /// Replaces the topic's settings.
    AlterTopic {
        /// The new settings.
        settings: TopicSettings,
        /// See [`Change`].
        version: u64,
    },
    /// Grants rights to a principal, or takes them back.
    SetGrant {
        /// The principal.
        principal: String,
        /// The rights; `None` takes them back.
        grant: Option<Grant>,
        /// See [`Change`].
        version: u64,
    },
    /// Deletes the topic and its subscriptions.
    DeleteTopic {
        /// The version that the client requires.
        version: Option<u64>,
    },
    /// Creates the subscription.
    CreateSubscription {
        /// The creating principal.
        owner: String,
        /// Its settings.
        settings: SubscriptionSettings,
        /// Everything up to this offset counts as settled.
        floor: i64,
        /// Messages of the topic up to `floor`.
        floor_ordinal: u64,
        /// The signing key of a push subscription, sealed.
        #[serde(default)]
        signing_key: Option<Secret>,
    },
    /// Replaces the subscription's settings.
    AlterSubscription {
        /// The new settings.
        settings: SubscriptionSettings,
        /// The signing key, sealed; it counts if there is none yet.
        #[serde(default)]
        signing_key: Option<Secret>,
        /// See [`Change`].
        version: u64,
    },
    /// Deletes the subscription.
    DeleteSubscription {
        /// The version that the client requires.
        version: Option<u64>,
    },
    /// Replaces the signing key of a push subscription; those before sign too, for a while.
    RotateSigningKey {
        /// The new key, sealed.
        signing_key: Secret,
        /// Until when the current one signs too, ms since the epoch.
        until_ms: i64,
    },
    /// Puts dead letters into retry again, and takes them off the list.
    Redrive {
        /// The redrive: several commands may be parts of one.
        #[serde(default)]
        id: u64,
        /// The messages, each with the offset of its letter in `dead-letters`.
        letters: Vec<(u64, Retry)>,
        /// Ranges of offsets in `dead-letters`, (first, last), with these letters of the subscription and no other.
        ranges: Vec<(u64, u64)>,
    },
    /// Suspends the subscription.
    Suspend {
        /// Why.
        reason: String,
        /// It counts only if the subscription was not altered or resumed since; `None`: in any case.
        #[serde(default)]
        active_since: Option<u64>,
    },
    /// Resumes the subscription.
    Resume,
    /// Sets the cursor; a new epoch.
    Seek {
        /// Everything up to this offset counts as settled.
        floor: i64,
        /// Messages of the topic up to `floor`.
        floor_ordinal: u64,
    },
    /// Settles ranges, in the epoch given.
    Settle {
        /// The cursor's epoch.
        epoch: u64,
        /// The ranges.
        ranges: Vec<SettledRange>,
        /// Whether the endpoint of a push subscription took the messages.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        delivered: bool,
    },
    /// Settles a message that a call of the earlier system handed out, in the epoch given.
    SettleCurrent {
        /// The cursor's epoch.
        epoch: u64,
        /// Its range.
        range: SettledRange,
        /// The message's size, as the earlier system counted it.
        bytes: u64,
    },
    /// Settles a message that has become a dead letter, in the epoch given.
    Bury {
        /// The cursor's epoch.
        epoch: u64,
        /// Its range.
        range: SettledRange,
        /// Why it was given up; `None`: the log did not retain it, so there is no letter, and that of its redrive is on the list
        /// again.
        #[serde(default)]
        reason: Option<String>,
        /// The retry that ends. It has no effect on another one: a redrive of the letter came first. `None`: an earlier version
        /// wrote the command.
        #[serde(default)]
        retry: Option<RetryId>,
    },
    /// Settles everything up to an offset, retries included, in the epoch given.
    SettleUpTo {
        /// The cursor's epoch.
        epoch: u64,
        /// The offset.
        offset: i64,
        /// Messages of the topic up to it.
        ordinal: u64,
    },
    /// Puts messages into retry, in the epoch given.
    Retry {
        /// The cursor's epoch.
        epoch: u64,
        /// The messages.
        retries: Vec<Retry>,
    },
    /// A delayed message waits.
    Delay {
        /// When it is due, ms since the epoch.
        due_ms: i64,
        /// Offset of its record.
        offset: u64,
    },
    /// A delayed message was appended again, without the delay.
    EndDelay {
        /// See [`Change::Delay`].
        due_ms: i64,
        /// See [`Change::Delay`].
        offset: u64,
    },
    /// Events about subscriptions were published.
    EndEvents {
        /// Offsets of the commands that caused them.
        offsets: Vec<u64>,
    },
    /// The newest messages of topics that changed; together with those before they cover `messages` up to an offset.
    Heads {
        /// The topics that changed, with their newest message.
        heads: Vec<(Name, Head)>,
        /// Every message up to this offset is covered.
        covered: i64,
        /// The identity of the record there.
        #[serde(default)]
        last_record: Option<u64>,
    },
}

impl TopicCommand {
    /// Appends the framed record value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        begin(out, schema::TOPIC_COMMAND);
        put_long(out, self.nonce.cast_signed());
        put_long(out, self.number.cast_signed());
        put_long(out, self.at_ms);
        put_bytes(out, self.topic.as_ref().map_or("", Name::as_str).as_bytes());
        put_optional_text(out, self.subscription.as_ref().map(Name::as_str));
        put_bytes(out, &serde_json::to_vec(&self.change).unwrap_or_default());
    }

    /// Reads a framed record value.
    ///
    /// # Errors
    /// Bytes that are no command.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::open(value, schema::TOPIC_COMMAND)?;
        let nonce = fields.long("nonce")?.cast_unsigned();
        let number = fields.long("number")?.cast_unsigned();
        let at_ms = fields.long("at")?;
        let name = |text: &str, field| Name::of_system(text).map_err(|_| DecodeError::Range(field));
        let topic = Some(fields.string("topic")?).filter(|text| !text.is_empty());
        let topic = topic.map(|text| name(text, "topic")).transpose()?;
        let subscription =
            optional_text(&mut fields, "subscription")?.map(|text| name(text, "subscription")).transpose()?;
        let change = serde_json::from_slice(fields.bytes("change")?).map_err(|_| DecodeError::Range("change"))?;
        fields.finish()?;
        Ok(Self { nonce, number, at_ms, topic, subscription, change })
    }

    /// The coordinator that appended a record, also one whose change this version cannot read.
    pub fn nonce_of(value: &[u8]) -> Option<u64> {
        let mut fields = Fields::open(value, schema::TOPIC_COMMAND).ok()?;
        fields.long("nonce").ok().map(i64::cast_unsigned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_survives_its_record() {
        let command = |topic: Option<&str>, subscription: Option<&str>, change| TopicCommand {
            nonce: u64::MAX,
            number: 7,
            at_ms: 1_700_000_000_000,
            topic: topic.map(|text| Name::parse(text).unwrap()),
            subscription: subscription.map(|text| Name::parse(text).unwrap()),
            change,
        };
        let range = SettledRange { after: -1, offset: 3, ordinal_after: 0, ordinal: 1 };
        for command in [
            command(None, None, Change::Open { previous: None, url: "http://127.0.0.1:9091".into() }),
            command(Some("orders"), Some("worker"), Change::Settle { epoch: 4, ranges: vec![range], delivered: false }),
            command(Some("orders"), None, Change::DeleteTopic { version: None }),
        ] {
            let mut bytes = Vec::new();
            command.encode(&mut bytes);
            assert_eq!(TopicCommand::nonce_of(&bytes), Some(command.nonce));
            assert_eq!(TopicCommand::decode(&bytes), Ok(command));
        }
    }
}
