//! Requests that wait for messages, by topic and subscription.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use millrace_contracts::topics::Name;
use tokio::sync::Notify;

use super::shard::Shard;

/// The long polls of a partition. What wakes them takes them out: those that wait on join again.
#[derive(Debug, Default)]
pub(crate) struct Polls(HashMap<Name, BTreeMap<Name, Arc<Notify>>>);

impl Polls {
    fn join(&mut self, topic: &Name, subscription: &Name) -> Arc<Notify> {
        self.0.entry(topic.clone()).or_default().entry(subscription.clone()).or_default().clone()
    }

    /// `own` is given back under the lock: of two that leave at the same time the second one finds itself the last.
    fn leave(&mut self, topic: &Name, subscription: &Name, own: Arc<Notify>) {
        let Some(polls) = self.0.get_mut(topic) else { return };
        let same = polls.get(subscription).is_some_and(|poll| Arc::ptr_eq(poll, &own));
        drop(own);
        // One is the entry's.
        if same && polls.get(subscription).is_some_and(|poll| Arc::strong_count(poll) == 1) {
            polls.remove(subscription);
        }
        if polls.is_empty() {
            self.0.remove(topic);
        }
    }

    /// Something of a topic moved.
    pub(super) fn wake(&mut self, topic: &Name) {
        self.0.remove(topic).iter().flat_map(BTreeMap::values).for_each(|poll| poll.notify_waiters());
    }

    /// Something of one subscription moved.
    pub(super) fn wake_one(&mut self, topic: &Name, subscription: &Name) {
        let Some(polls) = self.0.get_mut(topic) else { return };
        if let Some(poll) = polls.remove(subscription) {
            poll.notify_waiters();
        }
        if polls.is_empty() {
            self.0.remove(topic);
        }
    }

    /// The partition goes to another coordinator.
    pub(super) fn wake_all(&mut self) {
        for (_, polls) in self.0.drain() {
            for poll in polls.values() {
                poll.notify_waiters();
            }
        }
    }
}

/// One request that waits for messages of a subscription.
pub(super) struct Poll<'a> {
    shard: &'a Shard,
    topic: &'a Name,
    subscription: &'a Name,
    pub(super) moved: Arc<Notify>,
}

impl<'a> Poll<'a> {
    /// `polls`: those of the shard, which is locked.
    pub(super) fn join(polls: &mut Polls, shard: &'a Shard, topic: &'a Name, subscription: &'a Name) -> Self {
        Self { shard, topic, subscription, moved: polls.join(topic, subscription) }
    }
}

impl Drop for Poll<'_> {
    fn drop(&mut self) {
        let mut inner = self.shard.lock();
        let own = std::mem::take(&mut self.moved);
        inner.polls.leave(self.topic, self.subscription, own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_is_woken_by_its_topic_and_its_subscription_alone_and_leaves_nothing() {
        let name = |text: &str| Name::parse(text).unwrap();
        let (t, u, a, b) = (name("t"), name("u"), name("a"), name("b"));
        let shard = Shard::new(0, false);
        let join = |topic, subscription| Poll::join(&mut shard.lock().polls, &shard, topic, subscription);
        let waiting = || shard.lock().polls.0.values().map(BTreeMap::len).sum::<usize>();
        let (ta, tb, ua) = (join(&t, &a), join(&t, &b), join(&u, &a));
        let again = join(&t, &a);
        assert!(Arc::ptr_eq(&ta.moved, &again.moved));
        shard.lock().polls.wake_one(&t, &a);
        assert_eq!(waiting(), 2);
        // It waits on.
        drop(again);
        let again = join(&t, &a);
        drop(ta);
        assert_eq!(waiting(), 3, "one that was woken before takes none with it");
        drop(again);
        shard.lock().polls.wake(&t);
        assert_eq!(waiting(), 1);
        drop((tb, ua));
        assert_eq!(waiting(), 0);
        let _last = join(&t, &a);
        shard.lock().polls.wake_all();
        assert_eq!(waiting(), 0);
    }
}
