//! What memory holds of push subscriptions: their endpoints, and which of them to look at when.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

use millrace_contracts::topics::Name;
use tokio::sync::Notify;

use crate::push::Endpoint;

/// A topic and a subscription of it.
pub(super) type SubscriptionKey = (Name, Name);

/// What memory holds of a partition's push subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Pushing {
    pub(super) endpoints: HashMap<SubscriptionKey, Endpoint>,
    /// Topics of which something moved.
    pub(super) touched: HashSet<Name>,
    pub(super) timers: BinaryHeap<Reverse<(i64, SubscriptionKey)>>,
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

    /// The subscription was deleted, or, without one, the topic: another of its name begins anew.
    pub(crate) fn remove(&mut self, topic: &Name, subscription: Option<&Name>) {
        self.endpoints.retain(|(of, name), _| of != topic || subscription.is_some_and(|removed| name != removed));
    }

    /// The subscription is looked at again at this time, ms since the epoch.
    pub(super) fn rest(&mut self, key: &SubscriptionKey, at_ms: Option<i64>) {
        let Some(endpoint) = self.endpoints.get_mut(key) else { return };
        let Some(at_ms) = at_ms.filter(|at| endpoint.timer_ms.is_none_or(|known| *at < known)) else { return };
        endpoint.timer_ms = Some(at_ms);
        self.timers.push(Reverse((at_ms, key.clone())));
        self.ready.notify_one();
    }
}
