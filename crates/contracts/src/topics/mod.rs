//! Topics and subscriptions: names, settings, filters, acknowledgement tokens, the records of `messages` and
//! `topics.commands`, the keys of `topics.state`, and the requests that front ends send to a topic's coordinator.
//!
//! Pure data and pure rules. What a command does to a topic is decided in `millrace-delivery`, how a request arrives in
//! `millrace-command`.

mod command;
mod cursor;
mod diagnosis;
mod event;
mod filter;
mod line;
mod message;
mod name;
mod owner;
mod push;
mod push_patch;
mod redrive;
mod request;
mod settings;
mod state;
mod token;
mod view;
mod wire;

pub use command::{Change, TopicCommand};
pub use cursor::{Cursor, Settled, SettledRange};
pub use diagnosis::{ExplanationView, SampleView, Verdict};
pub use event::{EventKind, FailedMessage, SubscriptionEvent};
pub use filter::{Filter, FilterError};
pub use line::{encode_ce, time_text};
pub use message::{Delay, Message, MessageError};
pub use name::{Name, NameError};
pub use owner::{DeadLetter, TopicOwner};
pub use push::{
    AttemptError, AttemptFailure, AttemptView, BodyMode, PushSettings, Schedule, Secret, SignatureKind, SigningKey,
};
pub use push_patch::PushError;
pub use redrive::{Redrive, RedriveFilter};
pub use request::{
    AckAnswer, AckSelection, Call, CallError, Coordinate, Delivery, Listing, Principal, PublishAnswer, Published, Pull,
    PushPatch, Reply, Request, Start,
};
pub use settings::{Grant, Order, SubscriptionSettings, TopicId, TopicSettings};
pub use state::{Coverage, Head, Retry, RetryId, StateEntry, SubscriptionMeta, TopicMeta, TopicStateKey};
pub use token::{AckToken, TokenError};
pub use view::{DeadLetterView, RecentAttempts, SubscriptionState, SubscriptionView, TopicView};
pub use wire::{CALLS_PATH, WireError, decode_call, decode_reply, encode_call, encode_reply};

/// Number of partitions of every topic of this family is the engine's; an API topic lives in this one of them.
pub fn partition_of_topic(name: &Name, partitions: u32) -> u32 {
    crate::shard::partition_of_bytes(name.as_str().as_bytes(), partitions)
}
