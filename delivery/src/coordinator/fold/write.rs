//! What one command changes, and whether it counts.

use std::collections::BTreeMap;
use std::time::Duration;

use millrace_contracts::topics::{
    Change, Coverage, Cursor, EventKind, Head, Name, Retry, Secret, SigningKey, StateEntry, SubscriptionEvent,
    SubscriptionMeta, SubscriptionSettings, TopicCommand, TopicMeta, TopicSettings, TopicStateKey,
};
use millrace_contracts::{Code, Refusal};

use super::difference::{first_difference, subscription_difference};
use super::{Fold, KeyChange, Outcome, Subscription, Topic, Undo, refused};

/// For how long the name of a deleted topic cannot be used again, in ms.
const NAME_REST_MS: i64 = 30_000;
/// The retention of events, in ms: three days.
const EVENTS_RETENTION_MS: u64 = 72 * 3_600_000;
/// Most keys of a push subscription that sign at the same time.
const MAX_SIGNING_KEYS: usize = 10;

/// How messages leave retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RetryEnd {
    /// They are settled.
    Settled,
    /// They are dead letters.
    Buried,
    /// A seek dropped them.
    Dropped,
}

/// A command that may change a subscription's state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cause<'a> {
    /// The command's offset: the event's key.
    pub(super) offset: u64,
    pub(super) at_ms: i64,
    pub(super) topic: &'a Name,
    pub(super) subscription: &'a Name,
}

/// One command's writes.
pub(super) struct Write<'a> {
    pub(super) fold: &'a mut Fold,
    pub(super) undo: &'a mut Undo,
    pub(super) changes: &'a mut Vec<KeyChange>,
}

impl Write<'_> {
    pub(super) fn put(&mut self, key: TopicStateKey, entry: Option<StateEntry>) {
        self.undo.before.push((key.clone(), self.fold.entry(&key)));
        self.changes.push((key.clone(), entry.clone()));
        self.fold.put(key, entry);
    }

    /// A compare-and-set: a coordinator that restored an older state than its predecessor left is never in force.
    pub(super) fn open(&mut self, command: &TopicCommand, previous: Option<u64>, url: &str) -> Outcome {
        if self.fold.nonce() != previous {
            return refused(Code::Unavailable, "another coordinator took over in between");
        }
        let key = TopicStateKey::Open(self.fold.partition);
        let (nonce, number) = (command.nonce, command.number);
        self.put(key, Some(StateEntry::Open { nonce, url: url.to_owned(), number }));
        let events = Name::events();
        if self.fold.hosts_events && self.fold.topic(&events).is_none() {
            self.put(TopicStateKey::Topic(events), Some(StateEntry::Topic(topic_of_events(command.at_ms))));
        }
        Outcome::Opened(command.nonce)
    }

    pub(super) fn heads(&mut self, heads: &[(Name, Head)], covered: Coverage, at_ms: i64) -> Outcome {
        let rested = |topic: &Topic| topic.meta.deleted_ms.is_some_and(|deleted| deleted + NAME_REST_MS <= at_ms);
        let topics = &self.fold.topics;
        let free: Vec<Name> =
            self.fold.resting.iter().filter(|name| topics.get(*name).is_none_or(rested)).cloned().collect();
        for name in free {
            self.put(TopicStateKey::Topic(name), None);
        }
        for (name, head) in heads {
            // A topic that was deleted meanwhile has no head, and one that was created again counts anew.
            if self.fold.topic(name).is_some_and(|topic| topic.head.offset < head.offset) {
                self.put(TopicStateKey::Head(name.clone()), Some(StateEntry::Head(*head)));
            }
        }
        if covered.offset > self.fold.covered.offset {
            self.put(TopicStateKey::Heads(self.fold.partition), Some(StateEntry::Covered(covered)));
        }
        Outcome::Changed
    }

    pub(super) fn on_topic(&mut self, offset: u64, command: &TopicCommand, name: &Name) -> Outcome {
        let key = TopicStateKey::Topic(name.clone());
        if let Change::CreateTopic { owner, settings, grants } = &command.change {
            let (owner, settings) = (owner.clone(), settings.clone());
            let meta = TopicMeta {
                created: offset,
                created_ms: command.at_ms,
                version: offset,
                owner,
                settings,
                grants: grants.clone(),
                deleted_ms: None,
            };
            return self.create_topic(name, meta);
        }
        let Some(topic) = self.fold.topic(name) else { return no_topic() };
        let mut meta = topic.meta.clone();
        match &command.change {
            Change::AlterTopic { version, .. } | Change::SetGrant { version, .. } if *version != meta.version => {
                changed_meanwhile()
            }
            Change::DeleteTopic { version: Some(version) } if *version != meta.version => changed_meanwhile(),
            Change::AlterTopic { settings, .. } => {
                if meta.settings != *settings {
                    meta.settings = settings.clone();
                    meta.version = offset;
                    self.put(key, Some(StateEntry::Topic(meta)));
                }
                Outcome::Changed
            }
            Change::SetGrant { principal, grant, .. } => {
                match grant {
                    Some(grant) => drop(meta.grants.insert(principal.clone(), *grant)),
                    None => drop(meta.grants.remove(principal)),
                }
                meta.version = offset;
                self.put(key, Some(StateEntry::Topic(meta)));
                Outcome::Changed
            }
            Change::DeleteTopic { .. } => {
                let subscriptions: Vec<Name> = topic.subscriptions.keys().cloned().collect();
                let delayed: Vec<(i64, u64)> = topic.delayed.iter().copied().collect();
                for subscription in subscriptions {
                    self.remove_subscription(name, &subscription);
                }
                for (due, offset) in delayed {
                    self.put(TopicStateKey::Delay(name.clone(), due, offset), None);
                }
                self.put(TopicStateKey::Head(name.clone()), None);
                meta.deleted_ms = Some(command.at_ms);
                meta.grants.clear();
                self.put(key, Some(StateEntry::Topic(meta)));
                Outcome::Changed
            }
            Change::Delay { due_ms, offset } => {
                self.put(TopicStateKey::Delay(name.clone(), *due_ms, *offset), Some(StateEntry::Delay));
                Outcome::Changed
            }
            Change::EndDelay { due_ms, offset } => {
                self.put(TopicStateKey::Delay(name.clone(), *due_ms, *offset), None);
                Outcome::Changed
            }
            _ => refused(Code::Internal, "the command does not concern a topic"),
        }
    }

    fn create_topic(&mut self, name: &Name, created: TopicMeta) -> Outcome {
        match self.fold.topics.get(name).map(|topic| &topic.meta) {
            Some(meta) if meta.deleted_ms.is_none() => {
                let field = (meta.owner != created.owner)
                    .then_some("owner")
                    .or_else(|| first_difference(&meta.settings, &created.settings));
                return match field {
                    None => Outcome::Existed,
                    Some("owner") => refused(Code::Exists, "the topic exists and belongs to another principal"),
                    Some(field) => Outcome::Refused(
                        Refusal::new(Code::Exists, "the topic exists with other settings").field(field),
                    ),
                };
            }
            Some(meta) => {
                let rest = meta.deleted_ms.unwrap_or_default() + NAME_REST_MS - created.created_ms;
                if rest > 0 {
                    let after = Duration::from_millis(rest.cast_unsigned());
                    let refusal = Refusal::new(Code::NameResting, "a topic of this name was deleted a moment ago");
                    return Outcome::Refused(refusal.field("topic").retry_after(after));
                }
            }
            None => {}
        }
        self.put(TopicStateKey::Topic(name.clone()), Some(StateEntry::Topic(created)));
        Outcome::Created
    }

    fn remove_subscription(&mut self, topic: &Name, name: &Name) {
        self.forget_retries(topic, name);
        self.put(TopicStateKey::Cursor(topic.clone(), name.clone()), None);
        self.put(TopicStateKey::Subscription(topic.clone(), name.clone()), None);
    }

    pub(super) fn on_subscription(
        &mut self,
        offset: u64,
        command: &TopicCommand,
        topic: &Name,
        name: &Name,
    ) -> Outcome {
        let Some(found) = self.fold.topic(topic) else { return no_topic() };
        let existing = found.subscription(name);
        let key = TopicStateKey::Subscription(topic.clone(), name.clone());
        let cursor_key = TopicStateKey::Cursor(topic.clone(), name.clone());
        if let Change::CreateSubscription { owner, settings, floor, floor_ordinal, signing_key } = &command.change {
            if let Some(subscription) = existing {
                return existed(&subscription.meta, owner, settings);
            }
            let current = |secret: &_| SigningKey { secret: Clone::clone(secret), until_ms: None };
            let meta = SubscriptionMeta {
                created: offset,
                version: offset,
                owner: owner.clone(),
                settings: settings.clone(),
                suspended: None,
                failing: false,
                active_since: offset,
                signing_keys: signing_key.iter().map(current).collect(),
                redriven: Vec::new(),
            };
            self.put(key, Some(StateEntry::Subscription(meta)));
            self.put(cursor_key, Some(StateEntry::Cursor(Cursor::new(offset, *floor, *floor_ordinal))));
            return Outcome::Created;
        }
        let Some(subscription) = existing else { return no_subscription() };
        let cause = Cause { offset, at_ms: command.at_ms, topic, subscription: name };
        let mut meta = subscription.meta.clone();
        let suspended = meta.suspended.is_some();
        match &command.change {
            Change::AlterSubscription { version, .. } | Change::DeleteSubscription { version: Some(version) }
                if *version != meta.version =>
            {
                changed_meanwhile()
            }
            Change::AlterSubscription { settings, signing_key, .. } => {
                if meta.settings != *settings {
                    // Without an endpoint none fails.
                    let recovered = meta.failing && settings.push.is_none();
                    meta.failing &= !recovered;
                    meta.settings = settings.clone();
                    meta.active_since = offset;
                    if let (true, Some(secret)) = (meta.signing_keys.is_empty(), signing_key) {
                        meta.signing_keys.push(SigningKey { secret: secret.clone(), until_ms: None });
                    }
                    meta.version = offset;
                    self.put(key, Some(StateEntry::Subscription(meta)));
                    if recovered && !suspended {
                        self.report(cause, EventKind::Recovered);
                    }
                }
                Outcome::Changed
            }
            Change::DeleteSubscription { .. } => {
                self.remove_subscription(topic, name);
                Outcome::Changed
            }
            Change::RotateSigningKey { signing_key, until_ms } => {
                if !rotate(&mut meta.signing_keys, signing_key, *until_ms, command.at_ms) {
                    let detail = "too many keys that were replaced still sign; give a shorter overlap";
                    return refused(Code::InvalidField, detail);
                }
                self.put(key, Some(StateEntry::Subscription(meta)));
                Outcome::Changed
            }
            Change::Redrive { id, letters, ranges } => {
                let redriven = (*id, command.at_ms, &**letters);
                self.redrive(topic, name, redriven, meta, ranges)
            }
            Change::Suspend { active_since: Some(since), .. } if *since != meta.active_since => changed_meanwhile(),
            Change::Suspend { reason, .. } => {
                if meta.suspended.is_none() {
                    meta.suspended = Some(reason.clone());
                    self.put(key, Some(StateEntry::Subscription(meta)));
                    self.report(cause, EventKind::Suspended { reason: reason.clone() });
                }
                Outcome::Changed
            }
            Change::Resume if meta.suspended.is_none() => Outcome::Changed,
            Change::Resume => {
                (meta.suspended, meta.failing, meta.active_since) = (None, false, offset);
                self.put(key, Some(StateEntry::Subscription(meta)));
                self.report(cause, EventKind::Recovered);
                Outcome::Changed
            }
            Change::Seek { floor, floor_ordinal } => {
                let retries: Vec<i64> = subscription.retries.keys().copied().collect();
                self.leave_retry(topic, name, retries, RetryEnd::Dropped);
                self.put(cursor_key, Some(StateEntry::Cursor(Cursor::new(offset, *floor, *floor_ordinal))));
                Outcome::Changed
            }
            change => self.settlement(cause, change),
        }
    }

    /// What becomes of messages that were handed out.
    fn settlement(&mut self, cause: Cause<'_>, change: &Change) -> Outcome {
        let Cause { topic, subscription: name, .. } = cause;
        let subscription = self.subscription(topic, name);
        match change {
            Change::Settle { epoch, .. }
            | Change::SettleCurrent { epoch, .. }
            | Change::Bury { epoch, .. }
            | Change::SettleUpTo { epoch, .. }
            | Change::Retry { epoch, .. }
                if *epoch != subscription.cursor.epoch =>
            {
                refused(
                    Code::StaleToken,
                    "the subscription was set to another position since the message was handed out",
                )
            }
            Change::Settle { ranges, delivered, .. } => {
                let outcome = self.settle(topic, name, ranges, RetryEnd::Settled);
                if *delivered {
                    self.delivered(cause, &outcome);
                }
                outcome
            }
            Change::SettleCurrent { range, bytes, .. } => self.settle_current(topic, name, *range, *bytes),
            Change::Bury { range, reason, retry, .. } => {
                let known = subscription.retries.get(&range.offset).copied();
                let outcome = self.bury(topic, name, *range, *retry, reason.is_none());
                if let (Outcome::Settled { now: 1.., .. }, Some(reason), Some(known)) = (&outcome, reason, known) {
                    self.buried(cause, reason, &known);
                }
                outcome
            }
            Change::SettleUpTo { offset, ordinal, .. } => self.settle_up_to(topic, name, *offset, *ordinal),
            Change::Retry { retries, .. } => {
                let attempts = |retry: &Retry| {
                    let known = subscription.retries.get(&retry.range.offset);
                    (retry.range.offset, known.map_or(0, |known| known.attempts))
                };
                let before: BTreeMap<i64, u32> = retries.iter().map(attempts).collect();
                let outcome = self.retry(topic, name, retries);
                self.failed(cause, retries, &before);
                outcome
            }
            _ => refused(Code::Internal, "the command does not concern a subscription"),
        }
    }

    pub(super) fn subscription(&self, topic: &Name, name: &Name) -> &Subscription {
        &self.fold.topics[topic].subscriptions[name]
    }
}

/// What creating a subscription again comes to.
fn existed(meta: &SubscriptionMeta, owner: &str, settings: &SubscriptionSettings) -> Outcome {
    if meta.owner != owner {
        return refused(Code::Exists, "the subscription exists and belongs to another principal");
    }
    if meta.settings == *settings {
        return Outcome::Existed;
    }
    let field = subscription_difference(&meta.settings, settings);
    Outcome::Refused(Refusal::new(Code::Exists, "the subscription exists with other settings").field(field))
}

/// Puts a key in front of those that sign until then; false if they are too many.
fn rotate(keys: &mut Vec<SigningKey>, secret: &Secret, until_ms: i64, now_ms: i64) -> bool {
    let ends = |key: SigningKey| {
        let until = key.until_ms.map_or(until_ms, |known| known.min(until_ms));
        (until > now_ms).then_some(SigningKey { until_ms: Some(until), ..key })
    };
    let old: Vec<SigningKey> = keys.drain(..).filter_map(ends).collect();
    keys.push(SigningKey { secret: secret.clone(), until_ms: None });
    keys.extend(old);
    keys.len() <= MAX_SIGNING_KEYS
}

/// The topic of events, as a partition has it from its first coordinator on.
fn topic_of_events(created_ms: i64) -> TopicMeta {
    TopicMeta {
        created: SubscriptionEvent::TOPIC_ID,
        created_ms,
        version: SubscriptionEvent::TOPIC_ID,
        owner: "millrace".into(),
        settings: TopicSettings {
            retention_ms: EVENTS_RETENTION_MS,
            delay_ms: 0,
            max_message_bytes: 1 << 20,
            description: "events about subscriptions".into(),
        },
        grants: BTreeMap::new(),
        deleted_ms: None,
    }
}

fn no_topic() -> Outcome {
    Outcome::Refused(Refusal::new(Code::NotFound, "no such topic").field("topic"))
}

fn no_subscription() -> Outcome {
    Outcome::Refused(Refusal::new(Code::NotFound, "no such subscription").field("subscription"))
}

fn changed_meanwhile() -> Outcome {
    refused(Code::PreconditionFailed, "it has changed since; read it again")
}
