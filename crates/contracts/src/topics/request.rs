//! What front ends request of a topic's coordinator, and its replies: a call, or between processes a forward over HTTP/2.

use std::collections::BTreeMap;
use std::pin::Pin;

use serde::{Deserialize, Serialize};

use crate::Refusal;

use super::{
    AttemptView, DeadLetterView, ExplanationView, Filter, Grant, Name, Redrive, RedriveFilter, SampleView,
    SubscriptionSettings, SubscriptionView, TopicSettings, TopicView,
};

/// Who makes a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// The identity, never the address.
    pub name: String,
    /// Whether it passes ownership.
    pub admin: bool,
}

/// Where a subscription begins, or a seek goes; inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// Behind the newest message.
    Latest,
    /// At the newest message: it is the first one to be handed out.
    Newest,
    /// The oldest retained message.
    Earliest,
    /// The first message at or after this time, ms since the epoch.
    At(i64),
    /// The first message at or after this offset.
    Offset(u64),
}

/// A request about one topic, or, for lists, about one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Creates the topic.
    CreateTopic {
        /// Its settings.
        settings: TopicSettings,
        /// Rights of others, if this request creates it.
        grants: BTreeMap<String, Grant>,
    },
    /// Describes the topic to whoever may see it.
    DescribeTopic,
    /// The topic as a publisher's front end caches it.
    LookUpTopic,
    /// Lists topics of the partition.
    ListTopics(Listing),
    /// Changes settings of the topic.
    AlterTopic {
        /// The new settings, of those that change.
        retention_ms: Option<u64>,
        /// See [`TopicSettings`].
        delay_ms: Option<u64>,
        /// See [`TopicSettings`].
        max_message_bytes: Option<u64>,
        /// See [`TopicSettings`].
        description: Option<String>,
        /// The ETag that the client requires.
        if_match: Option<String>,
    },
    /// Grants rights, or takes them back.
    SetGrant {
        /// The principal.
        principal: String,
        /// The rights; `None` takes them back.
        grant: Option<Grant>,
        /// The ETag that the client requires.
        if_match: Option<String>,
    },
    /// Deletes the topic.
    DeleteTopic {
        /// The ETag that the client requires.
        if_match: Option<String>,
    },
    /// Publishes a message with an idempotency key or a delay.
    Publish(Published),
    /// Creates a subscription.
    CreateSubscription {
        /// Its name.
        subscription: Name,
        /// Its settings, but for those of push.
        settings: SubscriptionSettings,
        /// Its mode, and the settings of push.
        push: PushPatch,
        /// Where it begins.
        start: Start,
    },
    /// Describes a subscription.
    DescribeSubscription(Name),
    /// Lists subscriptions of the topic.
    ListSubscriptions(Listing),
    /// Changes settings of a subscription.
    AlterSubscription {
        /// Its name.
        subscription: Name,
        /// The new filter.
        filter: Option<Option<Filter>>,
        /// The new default lease in ms.
        ack_deadline_ms: Option<Option<u64>>,
        /// The new bound of attempts.
        max_attempts: Option<Option<u32>>,
        /// The new mode, and settings of push.
        push: PushPatch,
        /// The ETag that the client requires.
        if_match: Option<String>,
    },
    /// Deletes a subscription.
    DeleteSubscription {
        /// Its name.
        subscription: Name,
        /// The ETag that the client requires.
        if_match: Option<String>,
    },
    /// Replaces the signing key of a push subscription.
    RotateSecret {
        /// The subscription.
        subscription: Name,
        /// For how long the current key signs too, in ms.
        overlap_ms: u64,
    },
    /// The last attempts of a push subscription, the newest first.
    Attempts {
        /// The subscription.
        subscription: Name,
        /// At most so many.
        limit: usize,
    },
    /// Dead letters of a subscription, by offset.
    DeadLetters {
        /// The subscription.
        subscription: Name,
        /// Only letters after this offset.
        after: Option<u64>,
        /// At most so many.
        limit: usize,
    },
    /// Puts dead letters into retry again.
    Redrive {
        /// The subscription.
        subscription: Name,
        /// Which letters.
        filter: RedriveFilter,
    },
    /// Describes a redrive.
    DescribeRedrive {
        /// The subscription.
        subscription: Name,
        /// The redrive.
        id: u64,
    },
    /// Sends a signed sample to the endpoint.
    Sample(Name),
    /// Explains what became of a message.
    Explain {
        /// The subscription.
        subscription: Name,
        /// The message's offset.
        offset: u64,
    },
    /// Suspends a subscription.
    Suspend(Name),
    /// Resumes a subscription.
    Resume(Name),
    /// Sets a subscription's cursor.
    Seek {
        /// Its name.
        subscription: Name,
        /// Where to.
        to: Start,
    },
    /// Hands out messages.
    Pull(Pull),
    /// Hands out the current message, and remembers it for [`Request::AckCurrent`].
    Current(Name),
    /// Acknowledges what [`Request::Current`] handed out last, once.
    AckCurrent(Name),
    /// Acknowledges messages.
    Ack {
        /// The subscription.
        subscription: Name,
        /// Which messages.
        selection: AckSelection,
    },
    /// Returns messages for a later try.
    Nack {
        /// The subscription.
        subscription: Name,
        /// Tokens of the messages.
        tokens: Vec<String>,
        /// How long they wait, in ms; `None`: by the number of attempts.
        delay_ms: Option<u64>,
    },
    /// Extends leases.
    Extend {
        /// The subscription.
        subscription: Name,
        /// Tokens of the messages.
        tokens: Vec<String>,
        /// How long from now on, in ms.
        lease_ms: u64,
    },
}

/// A change of a subscription's mode and its settings of push.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushPatch {
    /// The new mode: whether it is push; `None`: as it is.
    pub push: Option<bool>,
    /// A merge patch of [`super::PushSettings`], as JSON.
    pub settings: Option<String>,
}

/// A request with whom and what it concerns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The partition of `topics.commands`.
    pub partition: u32,
    /// The topic; `None` for lists of topics.
    pub topic: Option<Name>,
    /// Who makes the request.
    pub principal: Principal,
    /// The request.
    pub request: Request,
}

/// A call without a reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The partition has its coordinator elsewhere, or nowhere at the moment.
    #[error("another process coordinates the partition")]
    Elsewhere,
    /// The request was refused.
    #[error(transparent)]
    Refused(Refusal),
}

/// Whoever brings calls to the coordinators: in one process by calling them, between processes by forwarding.
pub trait Coordinate: Send + Sync + 'static {
    /// Brings a call to the coordinator of its partition.
    fn call(&self, call: Call) -> Pin<Box<dyn Future<Output = Result<Reply, CallError>> + Send + '_>>;
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Only names that begin with this.
    pub prefix: String,
    /// Only names after this one.
    pub after: Option<Name>,
    /// At most so many.
    pub limit: usize,
}

/// A pull.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// The subscription.
    pub subscription: Name,
    /// At most so many messages.
    pub max: usize,
    /// How long to wait for the first one, in ms.
    pub wait_ms: u64,
    /// For how long they are hidden from others, in ms; `None`: the subscription's default.
    pub lease_ms: Option<u64>,
}

/// Which messages to acknowledge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AckSelection {
    /// Those of these tokens.
    Tokens(Vec<String>),
    /// Everything up to and including the message of this token.
    UpTo(String),
}

/// A message on its way to the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The message's id.
    pub id: String,
    /// The ordering key.
    pub key: Option<String>,
    /// The publisher's idempotency key.
    pub idempotency_key: Option<String>,
    /// When it is to be handed out, ms since the epoch; `None`: now.
    pub deliver_at_ms: Option<i64>,
    /// The media type of the body.
    pub content_type: String,
    /// Names and values.
    pub attributes: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// A reply to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// A topic; `created`: by this request.
    Topic {
        /// The topic.
        topic: Box<TopicView>,
        /// Whether this request created it.
        created: bool,
    },
    /// Topics, by name; whether there are more.
    Topics(Vec<TopicView>, bool),
    /// A subscription; `created`: by this request.
    Subscription {
        /// The subscription.
        subscription: Box<SubscriptionView>,
        /// Whether this request created it.
        created: bool,
        /// The signing key that this request made, as its owner keeps it: shown once.
        secret: Option<String>,
    },
    /// Attempts, the newest first.
    Attempts(Vec<AttemptView>),
    /// Dead letters, by offset; after which offset there may be more.
    DeadLetters(Vec<DeadLetterView>, Option<u64>),
    /// Dead letters are in retry again.
    Redriven {
        /// The redrive.
        id: u64,
        /// How many.
        selected: u64,
    },
    /// The progress of a redrive.
    Redrive(Redrive),
    /// A sample was sent.
    Sample(Box<SampleView>),
    /// What became of a message.
    Explanation(ExplanationView),
    /// Subscriptions, by name; whether there are more.
    Subscriptions(Vec<SubscriptionView>, bool),
    /// A message was published.
    Published(PublishAnswer),
    /// Messages, possibly none.
    Messages(Vec<Delivery>),
    /// Tokens took effect.
    Acknowledged(AckAnswer),
    /// The position in bytes, as the earlier system counted it; `None`: nothing was there to acknowledge.
    Position(Option<u64>),
    /// Done; nothing more to report.
    Done,
}

/// The result of publishing through the coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishAnswer {
    /// The message's offset in `messages`.
    pub offset: u64,
    /// The message's id: of a duplicate, that of the first.
    pub id: String,
    /// When it was published, ms since the epoch.
    pub published_ms: i64,
    /// Whether it had been published before, under the same idempotency key.
    pub duplicate: bool,
}

/// A message as it is handed out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The message's id.
    pub id: String,
    /// Its offset in `messages`.
    pub offset: u64,
    /// When it was published, ms since the epoch.
    pub published_ms: i64,
    /// What acknowledges it.
    pub token: String,
    /// 1, and one more for each negative acknowledgement and ended lease.
    pub attempt: u32,
    /// The ordering key.
    pub key: Option<String>,
    /// The media type of the body.
    pub content_type: String,
    /// Names and values.
    pub attributes: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// For how many tokens an acknowledgement, negative acknowledgement or extension took effect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckAnswer {
    /// It took effect.
    pub acknowledged: u64,
    /// The message was acknowledged already.
    pub already: u64,
    /// The token is of another epoch, subscription, topic, or its lease has ended.
    pub stale: u64,
}
