//! The entries of the state: put in place at a restore, a change or an undo, and read before a change.

use std::collections::{BTreeMap, BTreeSet};

use millrace_contracts::topics::{Coverage, Head, Name, StateEntry, TopicMeta, TopicSettings, TopicStateKey};

use super::{Fold, Subscription, Topic};

impl Fold {
    /// Puts an entry of the state in place, at a restore, a change or an undo.
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
                let own = self.topic_mut(name.clone());
                let same = own.meta.settings.retention_ms == meta.settings.retention_ms;
                own.meta = meta;
                if !same {
                    self.plan_all(&name);
                }
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
                self.set_pushed(&topic, &name, meta.settings.push.is_some());
                let found = self.subscription_mut(topic.clone(), name.clone());
                found.meta = meta;
                if !found.retries.is_empty() {
                    self.plan(topic, name);
                }
            }
            (TopicStateKey::Subscription(topic, name), _) => {
                self.set_pushed(&topic, &name, false);
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
                self.subscription_mut(topic.clone(), name.clone()).retries.insert(offset, retry);
                self.plan(topic, name);
            }
            (TopicStateKey::Retry(topic, name, offset), _) => {
                if let Some(subscription) =
                    self.topics.get_mut(&topic).and_then(|topic| topic.subscriptions.get_mut(&name))
                {
                    subscription.retries.remove(offset);
                    self.plan(topic, name);
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
                self.topic_mut(topic.clone()).delayed.insert((due, offset));
                self.plan_delays(&topic);
            }
            (TopicStateKey::Delay(topic, due, offset), None) => {
                if let Some(found) = self.topics.get_mut(&topic) {
                    found.delayed.remove(&(due, offset));
                    self.plan_delays(&topic);
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
        self.topic_mut(topic).subscriptions.entry(name).or_insert_with(|| Box::new(Subscription::blank()))
    }

    /// Notes when a subscription's next message is given up, after its retries or what decides about them changed.
    fn plan(&mut self, topic: Name, name: Name) {
        let own = self.topics.get(&topic);
        let held = own.and_then(|own| Some((own.meta.settings.retention_ms, own.subscription(&name)?)));
        let gives_up_ms = held.and_then(|(retention_ms, held)| held.gives_up_ms(retention_ms));
        let oldest = held.and_then(|(_, held)| held.retries.keys().next().copied());
        let key = (topic, name);
        self.give_up.set(&key, gives_up_ms);
        self.oldest.set(&key, oldest);
    }

    fn plan_all(&mut self, topic: &Name) {
        let Some(own) = self.topics.get(topic) else { return };
        let in_retry = own.subscriptions.iter().filter(|(_, held)| !held.retries.is_empty());
        for name in in_retry.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.plan(topic.clone(), name);
        }
    }

    fn plan_delays(&mut self, topic: &Name) {
        let first = self.topics.get(topic).and_then(|own| own.delayed.first()).map(|(due, _)| *due);
        self.delays.set(topic, first);
    }

    fn set_pushed(&mut self, topic: &Name, name: &Name, pushed: bool) {
        if pushed {
            self.pushed.entry(topic.clone()).or_default().insert(name.clone());
        } else if let Some(names) = self.pushed.get_mut(topic) {
            names.remove(name);
            if names.is_empty() {
                self.pushed.remove(topic);
            }
        }
    }

    /// The entry under a key as it stands.
    pub(super) fn entry(&self, key: &TopicStateKey) -> Option<StateEntry> {
        let subscription = |topic: &Name, name: &Name| self.topics.get(topic)?.subscription(name);
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
}

impl Subscription {
    /// When the first message in retry is given up, ms since the epoch; `i64::MIN`: now.
    fn gives_up_ms(&self, retention_ms: u64) -> Option<i64> {
        let (retries, settings) = (&self.retries, &self.meta.settings);
        let push = settings.push.as_ref();
        let mut permanent = push.into_iter().flat_map(|push| &push.permanent_statuses);
        let exhausted = settings.max_attempts.is_some_and(|max| retries.with_attempts(max).next().is_some());
        if exhausted || permanent.any(|&status| retries.with_status(status).next().is_some()) {
            return Some(i64::MIN);
        }
        let after = |begun_ms: i64, age_ms: u64| begun_ms.saturating_add(i64::try_from(age_ms).unwrap_or(i64::MAX));
        let aged = push.and_then(|push| Some(after(retries.first_begun(true)?, push.max_age_ms)));
        let expired = retries.oldest_ms().map(|begun_ms| after(begun_ms, retention_ms));
        aged.into_iter().chain(expired).min()
    }
}

#[cfg(test)]
impl Fold {
    /// Fails unless what is at hand in other orders equals a scan of all.
    pub(super) fn check_orders(&self) {
        fn own<'a>(found: impl Iterator<Item = &'a (Name, Name)>) -> BTreeSet<(Name, Name)> {
            found.cloned().collect()
        }
        let scan = |is: &dyn Fn(&Topic, &Subscription) -> bool| {
            let mut found = BTreeSet::new();
            for (topic, own) in &self.topics {
                let named = own.subscriptions.iter().filter(|(_, held)| is(own, held));
                found.extend(named.map(|(name, _)| (topic.clone(), name.clone())));
            }
            found
        };
        for offset in [0, 15, 35, i64::MAX] {
            let before = scan(&|_, held| held.retries.keys().any(|at| *at < offset));
            assert_eq!(own(self.in_retry_before(offset)), before);
        }
        for now_ms in [0, 3_600_000, 86_400_000, i64::MAX] {
            let lost = scan(&|topic, held| {
                held.retries.values().any(|retry| {
                    let retention_ms = topic.meta.settings.retention_ms.cast_signed();
                    let exhausted = held.meta.settings.max_attempts.is_some_and(|max| retry.attempts >= max);
                    exhausted || retry.first_ms.saturating_add(retention_ms) <= now_ms
                })
            });
            assert_eq!(own(self.to_give_up(now_ms)), lost);
        }
        let pushed = scan(&|_, held| held.meta.settings.push.is_some());
        let known = self.push_subscriptions(None).map(|(topic, name)| (topic.clone(), name.clone()));
        assert_eq!(known.collect::<BTreeSet<_>>(), pushed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_begins_at_its_prefix_and_ends_with_it() {
        let mut fold = Fold::new(0);
        let name = |text: &str| Name::parse(text).unwrap();
        for text in ["a", "b", "b1", "b2", "b3", "c"] {
            let meta = fold.topic_mut(name(text)).meta.clone();
            let meta = TopicMeta { deleted_ms: (text == "b2").then_some(1), ..meta };
            fold.put(TopicStateKey::Topic(name(text)), Some(StateEntry::Topic(meta)));
            fold.subscription_mut(name("a"), name(text));
        }
        for (after, prefix, topics, subscriptions) in [
            (None, "b", "b b1 b3", "b b1 b2 b3"),
            (Some("a"), "b", "b b1 b3", "b b1 b2 b3"),
            (Some("b1"), "b", "b3", "b2 b3"),
            (Some("b"), "", "b1 b3 c", "b1 b2 b3 c"),
            (Some("c"), "b", "", ""),
            (None, "d", "", ""),
        ] {
            let after = after.map(name);
            let found: Vec<&str> = fold.topics_after(after.as_ref(), prefix).map(|(name, _)| name.as_str()).collect();
            assert_eq!(found.join(" "), topics);
            let own = fold.topic(&name("a")).unwrap();
            let found: Vec<&str> =
                own.subscriptions_after(after.as_ref(), prefix).map(|(name, _)| name.as_str()).collect();
            assert_eq!(found.join(" "), subscriptions);
        }
    }
}
