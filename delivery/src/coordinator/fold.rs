//! The fold: what the commands of one partition come to. Pure; it has no clock and does no I/O.
//!
//! Whether a command counts depends on the log's prefix only, so every coordinator that reads the same prefix decides the
//! same.

mod difference;
mod events;
mod retries;
mod retry_queue;
#[cfg(test)]
mod tests;
mod write;

use std::collections::{BTreeMap, BTreeSet};

use millrace_contracts::topics::{
    Change, Coverage, Cursor, Head, Name, Redrive, StateEntry, SubscriptionEvent, SubscriptionMeta,
    SubscriptionSettings, TopicCommand, TopicMeta, TopicSettings, TopicStateKey,
};
use millrace_contracts::{Code, Refusal};

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
    /// Subscriptions with messages in retry.
    in_retry: BTreeSet<(Name, Name)>,
    /// Topics with delayed messages.
    with_delays: BTreeSet<Name>,
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
    pub(crate) subscriptions: BTreeMap<Name, Subscription>,
    /// Delayed messages that wait, as (due in ms, offset).
    pub(crate) delayed: BTreeSet<(i64, u64)>,
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

    /// A topic that exists.
    pub(crate) fn topic(&self, name: &Name) -> Option<&Topic> {
        self.topics.get(name).filter(|topic| topic.meta.deleted_ms.is_none())
    }

    /// Topics that exist, after a name.
    pub(crate) fn topics_after(&self, after: Option<&Name>) -> impl Iterator<Item = (&Name, &Topic)> {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.topics
            .range::<Name, _>((from, std::ops::Bound::Unbounded))
            .filter(|(_, topic)| topic.meta.deleted_ms.is_none())
    }

    /// Topics of which a delayed message is due.
    pub(crate) fn due_delays(&self, now_ms: i64, max: usize) -> Vec<(Name, i64, u64)> {
        let topics = self.with_delays.iter().filter_map(|name| Some((name, self.topic(name)?)));
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
        let from = topic.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Included);
        let to = topic.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Included);
        let topics = self.topics.range::<Name, _>((from, to)).filter(|(_, topic)| topic.meta.deleted_ms.is_none());
        topics.flat_map(|(name, topic)| {
            let pushed = topic.subscriptions.iter().filter(|(_, one)| one.meta.settings.push.is_some());
            pushed.map(move |(subscription, _)| (name, subscription))
        })
    }

    /// Subscriptions with messages in retry.
    pub(crate) fn in_retry(&self) -> impl Iterator<Item = &(Name, Name)> {
        self.in_retry.iter()
    }

    /// Puts an entry of the state in place, at a restore or an undo.
    pub(crate) fn put(&mut self, key: TopicStateKey, entry: Option<StateEntry>) {
        match (key, entry) {
            (TopicStateKey::Open(_), Some(StateEntry::Open { nonce, url, number })) => {
                (self.open, self.number) = (Some((nonce, url)), number);
            }
            (TopicStateKey::Open(_), _) => self.open = None,
            (TopicStateKey::Topic(name), Some(StateEntry::Topic(meta))) => {
                if meta.deleted_ms.is_some() {
                    self.resting.insert(name.clone());
                } else {
                    self.resting.remove(&name);
                }
                self.topic_mut(name).meta = meta;
            }
            (TopicStateKey::Topic(name), _) => {
                self.resting.remove(&name);
                self.topics.remove(&name);
            }
            (TopicStateKey::Head(name), Some(StateEntry::Head(head))) => self.topic_mut(name).head = head,
            (TopicStateKey::Head(name), _) => {
                if let Some(topic) = self.topics.get_mut(&name) {
                    topic.head = Head::default();
                }
            }
            (TopicStateKey::Subscription(topic, name), Some(StateEntry::Subscription(meta))) => {
                self.subscription_mut(topic, name).meta = meta;
            }
            (TopicStateKey::Subscription(topic, name), _) => {
                if let Some(topic) = self.topics.get_mut(&topic) {
                    topic.subscriptions.remove(&name);
                }
            }
            (TopicStateKey::Cursor(topic, name), Some(StateEntry::Cursor(cursor))) => {
                self.subscription_mut(topic, name).cursor = cursor;
            }
            // A subscription goes with its own key.
            (TopicStateKey::Cursor(..), _) => {}
            (TopicStateKey::Retry(topic, name, offset), Some(StateEntry::Retry(retry))) => {
                self.in_retry.insert((topic.clone(), name.clone()));
                self.subscription_mut(topic, name).retries.insert(offset, retry);
            }
            (TopicStateKey::Retry(topic, name, offset), _) => {
                if let Some(subscription) =
                    self.topics.get_mut(&topic).and_then(|topic| topic.subscriptions.get_mut(&name))
                {
                    subscription.retries.remove(offset);
                    if subscription.retries.is_empty() {
                        self.in_retry.remove(&(topic, name));
                    }
                }
            }
            (TopicStateKey::Redrive(topic, name, id), Some(StateEntry::Redrive(redrive))) => {
                self.subscription_mut(topic, name).redrives.insert(id, redrive);
            }
            (TopicStateKey::Redrive(topic, name, id), _) => {
                if let Some(subscription) =
                    self.topics.get_mut(&topic).and_then(|topic| topic.subscriptions.get_mut(&name))
                {
                    subscription.redrives.remove(&id);
                }
            }
            (TopicStateKey::Delay(topic, due, offset), Some(_)) => {
                self.with_delays.insert(topic.clone());
                self.topic_mut(topic).delayed.insert((due, offset));
            }
            (TopicStateKey::Delay(topic, due, offset), None) => {
                if let Some(found) = self.topics.get_mut(&topic) {
                    found.delayed.remove(&(due, offset));
                    if found.delayed.is_empty() {
                        self.with_delays.remove(&topic);
                    }
                }
            }
            (TopicStateKey::Event(offset), Some(StateEntry::Event(event))) => drop(self.events.insert(offset, event)),
            (TopicStateKey::Event(offset), _) => drop(self.events.remove(&offset)),
            (TopicStateKey::Heads(_), Some(StateEntry::Covered(covered))) => self.covered = covered,
            (TopicStateKey::Heads(_), Some(StateEntry::Heads(offset))) => {
                self.covered = Coverage { offset, last_record: None };
            }
            (TopicStateKey::Heads(_), _) => self.covered = Coverage::default(),
        }
    }

    /// Entries come in any order, so a topic may be met by its subscription first.
    fn topic_mut(&mut self, name: Name) -> &mut Topic {
        self.topics.entry(name).or_insert_with(|| Topic {
            meta: TopicMeta {
                created: 0,
                created_ms: 0,
                version: 0,
                owner: String::new(),
                settings: TopicSettings {
                    retention_ms: 0,
                    delay_ms: 0,
                    max_message_bytes: 0,
                    description: String::new(),
                },
                grants: BTreeMap::new(),
                deleted_ms: Some(0),
            },
            head: Head::default(),
            subscriptions: BTreeMap::new(),
            delayed: BTreeSet::new(),
        })
    }

    fn subscription_mut(&mut self, topic: Name, name: Name) -> &mut Subscription {
        self.topic_mut(topic).subscriptions.entry(name).or_insert_with(|| Subscription {
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
        })
    }

    /// The entry under a key as it stands.
    fn entry(&self, key: &TopicStateKey) -> Option<StateEntry> {
        let subscription = |topic: &Name, name: &Name| self.topics.get(topic)?.subscriptions.get(name);
        match key {
            TopicStateKey::Open(_) => self.open.as_ref().map(|(nonce, url)| StateEntry::Open {
                nonce: *nonce,
                url: url.clone(),
                number: self.number,
            }),
            TopicStateKey::Topic(name) => self.topics.get(name).map(|topic| StateEntry::Topic(topic.meta.clone())),
            TopicStateKey::Head(name) => self.topics.get(name).map(|topic| StateEntry::Head(topic.head)),
            TopicStateKey::Subscription(topic, name) => {
                subscription(topic, name).map(|found| StateEntry::Subscription(found.meta.clone()))
            }
            TopicStateKey::Cursor(topic, name) => {
                subscription(topic, name).map(|found| StateEntry::Cursor(found.cursor.clone()))
            }
            TopicStateKey::Retry(topic, name, offset) => {
                subscription(topic, name)?.retries.get(offset).map(|retry| StateEntry::Retry(*retry))
            }
            TopicStateKey::Redrive(topic, name, id) => {
                subscription(topic, name)?.redrives.get(id).map(|redrive| StateEntry::Redrive(*redrive))
            }
            TopicStateKey::Delay(topic, due, offset) => {
                self.topics.get(topic)?.delayed.contains(&(*due, *offset)).then_some(StateEntry::Delay)
            }
            TopicStateKey::Event(offset) => self.events.get(offset).cloned().map(StateEntry::Event),
            TopicStateKey::Heads(_) => (self.covered.offset >= 0).then_some(StateEntry::Covered(self.covered)),
        }
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
