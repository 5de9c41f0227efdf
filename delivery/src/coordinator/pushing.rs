//! What memory holds of push subscriptions: their endpoints, and which of them to look at when.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use millrace_contracts::topics::Name;
use tokio::sync::Notify;

use crate::push::Endpoint;

/// A topic and a subscription of it.
pub(crate) type SubscriptionKey = (Name, Name);

/// What memory holds of a partition's push subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Pushing {
    pub(super) endpoints: HashMap<SubscriptionKey, Endpoint>,
    /// Topics of which something moved.
    pub(super) touched: HashSet<Name>,
    /// Subscriptions of which something moved.
    pub(super) touched_ones: HashSet<SubscriptionKey>,
    /// One of each endpoint at most, by its time in ms since the epoch.
    timers: BTreeSet<(i64, SubscriptionKey)>,
    pub(super) ready: Arc<Notify>,
    /// The coordinator whose subscriptions were all looked at.
    pub(super) begun: Option<u64>,
}

impl Pushing {
    /// Something of a topic moved: its push subscriptions are looked at.
    pub(crate) fn touch(&mut self, topic: &Name) {
        if !self.touched.contains(topic) {
            self.touched.insert(topic.clone());
        }
        self.ready.notify_one();
    }

    /// Something of a subscription moved: it is looked at.
    pub(crate) fn touch_one(&mut self, key: SubscriptionKey) {
        self.touched_ones.insert(key);
        self.ready.notify_one();
    }

    /// Wakes the courier.
    pub(crate) fn wake(&self) {
        self.ready.notify_one();
    }

    pub(crate) fn endpoint(&self, topic: &Name, subscription: &Name) -> Option<&Endpoint> {
        self.endpoints.get(&(topic.clone(), subscription.clone()))
    }

    /// The subscription was resumed or altered.
    pub(crate) fn forget(&mut self, topic: &Name, subscription: &Name, now_ms: i64) {
        if let Some(endpoint) = self.endpoints.get_mut(&(topic.clone(), subscription.clone())) {
            endpoint.forget(now_ms);
        }
    }

    /// The subscription was deleted, or is pushed no more: another of its name begins anew.
    pub(crate) fn remove(&mut self, key: &SubscriptionKey) {
        if let Some(at_ms) = self.endpoints.remove(key).and_then(|endpoint| endpoint.timer_ms) {
            self.timers.remove(&(at_ms, key.clone()));
        }
    }

    /// The subscription is looked at again at this time, ms since the epoch.
    pub(super) fn rest(&mut self, key: &SubscriptionKey, at_ms: Option<i64>) {
        let Some(endpoint) = self.endpoints.get_mut(key) else { return };
        let Some(at_ms) = at_ms.filter(|at| endpoint.timer_ms.is_none_or(|known| *at < known)) else { return };
        if let Some(known) = endpoint.timer_ms.replace(at_ms) {
            self.timers.remove(&(known, key.clone()));
        }
        self.timers.insert((at_ms, key.clone()));
        self.ready.notify_one();
    }

    /// A subscription whose timer is due.
    pub(super) fn pop_due(&mut self, now_ms: i64) -> Option<SubscriptionKey> {
        if self.timers.first()?.0 > now_ms {
            return None;
        }
        let (_, key) = self.timers.pop_first()?;
        if let Some(endpoint) = self.endpoints.get_mut(&key) {
            endpoint.timer_ms = None;
        }
        Some(key)
    }

    /// When the first timer is due, ms since the epoch.
    pub(super) fn next_ms(&self) -> Option<i64> {
        self.timers.first().map(|(at_ms, _)| *at_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message that is sent again in days is no reason to remember a timer for each of those before.
    #[test]
    fn an_endpoint_has_one_timer_the_earliest() {
        let key = (Name::parse("t").unwrap(), Name::parse("s").unwrap());
        let mut pushing = Pushing::default();
        pushing.rest(&key, Some(1));
        assert_eq!(pushing.next_ms(), None, "it has no endpoint");
        pushing.endpoints.insert(key.clone(), Endpoint::new(None));
        for second in 1..=1_000 {
            pushing.rest(&key, Some(86_400_000));
            pushing.rest(&key, Some(second * 1_000));
            pushing.rest(&key, None);
            assert_eq!((pushing.timers.len(), pushing.next_ms()), (1, Some(second * 1_000)));
            assert_eq!(pushing.pop_due(second * 1_000 - 1), None);
            assert_eq!(pushing.pop_due(second * 1_000), Some(key.clone()));
        }
        pushing.rest(&key, Some(86_400_000));
        pushing.forget(&key.0, &key.1, 5);
        assert_eq!(pushing.next_ms(), Some(86_400_000), "its timer stays known");
        pushing.remove(&key);
        assert_eq!((pushing.timers.len(), pushing.endpoints.len()), (0, 0));
    }
}
