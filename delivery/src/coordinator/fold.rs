//! The fold: what the commands of one partition come to. Pure; it has no clock and does no I/O.
//!
//! Whether a command counts depends on the log's prefix only, so every coordinator that reads the same prefix decides the
//! same.

mod agenda;
mod difference;
mod entries;
mod events;
mod retries;
mod retry_queue;
#[cfg(test)]
mod tests;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use millrace_contracts::topics::{
    Change, Coverage, Cursor, Head, Name, Redrive, StateEntry, SubscriptionEvent, SubscriptionMeta,
    SubscriptionSettings, TopicCommand, TopicMeta, TopicStateKey,
};
use millrace_contracts::{Code, Refusal};

use agenda::Agenda;
pub(crate) use retry_queue::RetryQueue;
use write::Write;

/// The state of one partition.
#[derive(Debug, Default)]
pub(crate) struct Fold {
    partition: u32,
    /// The coordinator in force, and where it is reached.
    open: Option<(u64, String)>,
    /// The newest number of the nonce in force.
    number: u64,
    topics: BTreeMap<Name, Topic>,
    /// Names of deleted topics.
    resting: BTreeSet<Name>,
    /// Subscriptions with messages in retry, by when the first of these is given up, in ms since the epoch.
    give_up: Agenda<(Name, Name)>,
    /// The same subscriptions, by the offset of their oldest message in retry.
    oldest: Agenda<(Name, Name)>,
    /// Topics with delayed messages, by when the first one is due, in ms since the epoch.
    delays: Agenda<Name>,
    /// Push subscriptions, by topic.
    pushed: BTreeMap<Name, BTreeSet<Name>>,
    /// Up to where the heads cover `messages`.
    covered: Coverage,
    /// Events that wait to be published, by the offset of the command that caused them.
    events: BTreeMap<u64, SubscriptionEvent>,
    /// Events that were dropped since the last count, because too many wait.
    dropped_events: u64,
    /// The topic of events is in this partition.
    hosts_events: bool,
}

/// One topic with everything in it.
#[derive(Debug, Clone)]
pub(crate) struct Topic {
    pub(crate) meta: TopicMeta,
    pub(crate) head: Head,
    /// Boxed: a node of the map has capacity for eleven, and most topics have one or two.
    pub(crate) subscriptions: BTreeMap<Name, Box<Subscription>>,
    /// Delayed messages that wait, as (due in ms, offset).
    pub(crate) delayed: BTreeSet<(i64, u64)>,
}

impl Topic {
    pub(crate) fn subscription(&self, name: &Name) -> Option<&Subscription> {
        self.subscriptions.get(name).map(Box::as_ref)
    }

    /// Subscriptions with a prefix, after a name.
    pub(crate) fn subscriptions_after<'a>(
        &'a self,
        after: Option<&'a Name>,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a Name, &'a Subscription)> {
        let found = self.subscriptions.range::<str, _>(page(after, prefix));
        found.take_while(move |(name, _)| name.as_str().starts_with(prefix)).map(|(name, found)| (name, &**found))
    }
}

/// The range of names after a name that begins at a prefix.
fn page<'a>(after: Option<&'a Name>, prefix: &'a str) -> (Bound<&'a str>, Bound<&'a str>) {
    let after = after.map(Name::as_str).filter(|after| *after >= prefix);
    (after.map_or(Bound::Included(prefix), Bound::Excluded), Bound::Unbounded)
}

/// One subscription.
#[derive(Debug, Clone)]
pub(crate) struct Subscription {
    pub(crate) meta: SubscriptionMeta,
    pub(crate) cursor: Cursor,
    /// Messages in retry.
    pub(crate) retries: RetryQueue,
    /// The last redrives, by id.
    pub(crate) redrives: BTreeMap<u64, Redrive>,
}

impl Subscription {
    /// One that was not created: a restore may meet its cursor before its settings.
    pub(crate) fn blank() -> Self {
        Self {
            meta: SubscriptionMeta {
                created: 0,
                version: 0,
                owner: String::new(),
                settings: SubscriptionSettings::default(),
                suspended: None,
                failing: false,
                active_since: 0,
                signing_keys: Vec::new(),
                redriven: Vec::new(),
            },
            cursor: Cursor::new(0, -1, 0),
            retries: RetryQueue::default(),
            redrives: BTreeMap::new(),
        }
    }
}

/// What a command came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The coordinator of this nonce is in force from here on.
    Opened(u64),
    /// A topic or subscription was created.
    Created,
    /// It was there already, with the same settings and owner.
    Existed,
    /// Settings, grants, state or cursor changed; or a deletion took place.
    Changed,
    /// Ranges were settled: how many now, how many had been before.
    Settled {
        /// Settled now.
        now: u64,
        /// Settled before.
        already: u64,
    },
    /// It does not count, for this reason.
    Refused(Refusal),
}

/// One key's change: its new entry, `None` for a tombstone.
pub(crate) type KeyChange = (TopicStateKey, Option<StateEntry>);

/// Takes one application back: the entries that its keys had before, the newest change first.
#[derive(Debug, Default)]
pub(crate) struct Undo {
    before: Vec<KeyChange>,
    number: u64,
}

fn refused(code: Code, detail: impl Into<std::borrow::Cow<'static, str>>) -> Outcome {
    Outcome::Refused(Refusal::new(code, detail))
}

impl Fold {
    pub(crate) fn new(partition: u32) -> Self {
        Self { partition, ..Self::default() }
    }

    /// Whether the topic of events is in this partition.
    pub(crate) fn hosting_events(self, hosts_events: bool) -> Self {
        Self { hosts_events, ..self }
    }

    /// Events that wait to be published, in their order.
    pub(crate) fn events(&self) -> impl Iterator<Item = (u64, &SubscriptionEvent)> {
        self.events.iter().map(|(offset, event)| (*offset, event))
    }

    /// Counts the events that were dropped since the last count.
    pub(crate) fn take_dropped_events(&mut self) -> u64 {
        std::mem::take(&mut self.dropped_events)
    }

    pub(crate) fn nonce(&self) -> Option<u64> {
        self.open.as_ref().map(|(nonce, _)| *nonce)
    }

    pub(crate) fn url(&self) -> &str {
        self.open.as_ref().map_or("", |(_, url)| url)
    }

    pub(crate) fn covered(&self) -> Coverage {
        self.covered
    }

    /// The offset of the newest message that a head counts; -1: none. Looks at every topic.
    pub(crate) fn newest_head(&self) -> i64 {
        self.topics.values().map(|topic| topic.head.offset).max().unwrap_or(-1)
    }

    /// A topic that exists.
    pub(crate) fn topic(&self, name: &Name) -> Option<&Topic> {
        self.topics.get(name).filter(|topic| topic.meta.deleted_ms.is_none())
    }

    /// Topics that exist with a prefix, after a name.
    pub(crate) fn topics_after<'a>(
        &'a self,
        after: Option<&'a Name>,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a Name, &'a Topic)> {
        let found = self.topics.range::<str, _>(page(after, prefix));
        let named = found.take_while(move |(name, _)| name.as_str().starts_with(prefix));
        named.filter(|(_, topic)| topic.meta.deleted_ms.is_none())
    }

    /// Delayed messages that are due, at most `max`.
    pub(crate) fn due_delays(&self, now_ms: i64, max: usize) -> Vec<(Name, i64, u64)> {
        let topics = self.delays.up_to(now_ms).filter_map(|name| Some((name, self.topic(name)?)));
        let due = topics.flat_map(|(name, topic)| {
            topic.delayed.iter().take_while(|(due, _)| *due <= now_ms).map(|&(due, offset)| (name.clone(), due, offset))
        });
        due.take(max).collect()
    }

    /// Push subscriptions of a topic, or of all.
    pub(crate) fn push_subscriptions<'a>(
        &'a self,
        topic: Option<&'a Name>,
    ) -> impl Iterator<Item = (&'a Name, &'a Name)> {
        let bounds = (topic.map_or(Bound::Unbounded, Bound::Included), topic.map_or(Bound::Unbounded, Bound::Included));
        let topics = self.pushed.range::<Name, _>(bounds);
        topics.flat_map(|(topic, names)| names.iter().map(move |name| (topic, name)))
    }

    /// Whether a topic has push subscriptions.
    pub(crate) fn has_pushed(&self, topic: &Name) -> bool {
        self.pushed.contains_key(topic)
    }

    /// Whether a subscription is pushed.
    pub(crate) fn is_pushed(&self, topic: &Name, subscription: &Name) -> bool {
        self.pushed.get(topic).is_some_and(|names| names.contains(subscription))
    }

    /// Whether any message is in retry.
    pub(crate) fn has_retries(&self) -> bool {
        !self.oldest.is_empty()
    }

    /// Subscriptions with a message in retry to give up, those that have waited longest first.
    pub(crate) fn to_give_up(&self, now_ms: i64) -> impl Iterator<Item = &(Name, Name)> {
        self.give_up.up_to(now_ms)
    }

    /// Subscriptions with a message in retry before an offset.
    pub(crate) fn in_retry_before(&self, offset: i64) -> impl Iterator<Item = &(Name, Name)> {
        self.oldest.up_to(offset.saturating_sub(1))
    }

    /// Applies the command at `offset`. `undo` and `changes` collect what it wrote, across the commands of a step.
    pub(crate) fn apply(
        &mut self,
        offset: u64,
        command: &TopicCommand,
        undo: &mut Undo,
        changes: &mut Vec<KeyChange>,
    ) -> Outcome {
        if undo.before.is_empty() && undo.number == 0 {
            undo.number = self.number;
        }
        let mut write = Write { fold: self, undo, changes };
        if let Change::Open { previous, url } = &command.change {
            return write.open(command, *previous, url);
        }
        if write.fold.nonce() != Some(command.nonce) || command.number <= write.fold.number {
            return refused(Code::Unavailable, "another coordinator is in force");
        }
        write.fold.number = command.number;
        if let Change::Heads { heads, covered, last_record } = &command.change {
            let covered = Coverage { offset: *covered, last_record: *last_record };
            return write.heads(heads, covered, command.at_ms);
        }
        if let Change::EndEvents { offsets } = &command.change {
            return write.end_events(offsets);
        }
        let Some(topic) = &command.topic else { return refused(Code::Internal, "the command names no topic") };
        match &command.subscription {
            None => write.on_topic(offset, command, topic),
            Some(subscription) => write.on_subscription(offset, command, topic, subscription),
        }
    }

    /// The newest number, for the end of a step: a repeat of one of its commands does not count after a restore either.
    pub(crate) fn newest_number(&self) -> Option<KeyChange> {
        let key = TopicStateKey::Open(self.partition);
        let entry = self.entry(&key)?;
        Some((key, Some(entry)))
    }

    /// Takes the newest applications back, all that share `undo`.
    pub(crate) fn undo(&mut self, undo: Undo) {
        if !undo.before.is_empty() || undo.number > 0 {
            self.number = undo.number;
        }
        for (key, entry) in undo.before.into_iter().rev() {
            self.put(key, entry);
        }
    }
}
