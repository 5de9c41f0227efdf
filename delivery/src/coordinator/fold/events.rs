//! When a subscription's state changes such that an event reports it. The event is state until it is published: it stands in
//! the step that has the change.

use std::collections::BTreeMap;

use millrace_contracts::topics::{
    EventKind, FailedMessage, Retry, StateEntry, SubscriptionEvent, SubscriptionMeta, TopicStateKey,
};

use super::Outcome;
use super::write::{Cause, Write};

/// Most events that wait to be published; further ones are dropped, and counted.
const MAX_EVENTS: usize = 10_000;

impl Write<'_> {
    /// Reports a change. One of a subscription of the events themselves is not reported: it would report itself for good.
    pub(super) fn report(&mut self, cause: Cause<'_>, kind: EventKind) {
        if cause.topic.is_events() {
            return;
        }
        if self.fold.events.len() >= MAX_EVENTS {
            self.fold.dropped_events += 1;
            return;
        }
        let (topic, subscription) = (cause.topic.clone(), cause.subscription.clone());
        let event = SubscriptionEvent { topic, subscription, at_ms: cause.at_ms, kind };
        self.put(TopicStateKey::Event(cause.offset), Some(StateEntry::Event(event)));
    }

    /// Events were published.
    pub(super) fn end_events(&mut self, offsets: &[u64]) -> Outcome {
        for offset in
            offsets.iter().filter(|offset| self.fold.events.contains_key(*offset)).copied().collect::<Vec<_>>()
        {
            self.put(TopicStateKey::Event(offset), None);
        }
        Outcome::Changed
    }

    /// Messages failed: one for the fourth time makes its subscription fail. `before`: their attempts until then.
    pub(super) fn failed(&mut self, cause: Cause<'_>, retries: &[Retry], before: &BTreeMap<i64, u32>) {
        let subscription = self.subscription(cause.topic, cause.subscription);
        let Some(push) = &subscription.meta.settings.push else { return };
        if subscription.meta.failing || subscription.meta.suspended.is_some() {
            return;
        }
        // One that was settled before does not come back.
        let in_retry = |retry: &&Retry| subscription.retries.contains_key(&retry.range.offset);
        let crosses = |retry: &&Retry| {
            let known = before.get(&retry.range.offset).copied().unwrap_or_default();
            let status = retry.last.and_then(|last| last.status);
            let permanent = status.is_some_and(|status| push.permanent_statuses.contains(&status));
            let threshold = known < EventKind::FAILING_ATTEMPTS && retry.attempts >= EventKind::FAILING_ATTEMPTS;
            retry.last.is_some() && !permanent && threshold
        };
        let Some(retry) = retries.iter().filter(in_retry).find(crosses) else { return };
        let meta = SubscriptionMeta { failing: true, ..subscription.meta.clone() };
        self.put_meta(cause, meta);
        self.report(cause, EventKind::Failing(failed(retry)));
    }

    /// The endpoint took messages.
    pub(super) fn delivered(&mut self, cause: Cause<'_>, outcome: &Outcome) {
        let meta = &self.subscription(cause.topic, cause.subscription).meta;
        let settled = matches!(outcome, Outcome::Settled { now: 1.., .. });
        if settled && meta.failing && meta.suspended.is_none() {
            let meta = SubscriptionMeta { failing: false, ..meta.clone() };
            self.put_meta(cause, meta);
            self.report(cause, EventKind::Recovered);
        }
    }

    /// A message became a dead letter.
    pub(super) fn buried(&mut self, cause: Cause<'_>, reason: &str, retry: &Retry) {
        self.report(cause, EventKind::DeadLettered { reason: reason.to_owned(), message: failed(retry) });
    }

    fn put_meta(&mut self, cause: Cause<'_>, meta: SubscriptionMeta) {
        let key = TopicStateKey::Subscription(cause.topic.clone(), cause.subscription.clone());
        self.put(key, Some(StateEntry::Subscription(meta)));
    }
}

fn failed(retry: &Retry) -> FailedMessage {
    FailedMessage { offset: retry.range.offset, attempts: retry.attempts, last: retry.last }
}

#[cfg(test)]
mod tests {
    use millrace_contracts::topics::{
        AttemptError, AttemptFailure, Change, Name, PushSettings, SettledRange, SubscriptionSettings, TopicCommand,
        TopicSettings,
    };
    use serde_json::json;

    use super::super::{Fold, Undo};
    use super::*;

    /// A fold with a push subscription.
    struct Pushed {
        fold: Fold,
        number: u64,
        topic: Name,
        epoch: u64,
    }

    fn range(offset: i64) -> SettledRange {
        SettledRange { after: offset - 1, offset, ordinal_after: 0, ordinal: 1 }
    }

    impl Pushed {
        fn of(topic: &str) -> Self {
            let topic = Name::of_system(topic).unwrap();
            let mut own = Self { fold: Fold::new(0).hosting_events(true), number: 0, topic, epoch: 0 };
            own.apply(false, Change::Open { previous: None, url: String::new() });
            let settings =
                TopicSettings { retention_ms: 1, delay_ms: 0, max_message_bytes: 1, description: String::new() };
            own.apply(false, Change::CreateTopic { owner: String::new(), settings, grants: BTreeMap::new() });
            let push = json!({"url": "http://a/", "permanent_statuses": [400]});
            let push = PushSettings::patched(None, push.as_object().unwrap()).unwrap();
            let settings = SubscriptionSettings { push: Some(push), ..SubscriptionSettings::default() };
            let (owner, floor, floor_ordinal, signing_key) = (String::new(), -1, 0, None);
            own.apply(true, Change::CreateSubscription { owner, settings, floor, floor_ordinal, signing_key });
            own.epoch = own.number;
            own
        }

        fn apply(&mut self, on_subscription: bool, change: Change) -> Outcome {
            self.number += 1;
            let topic = (!matches!(change, Change::Open { .. } | Change::EndEvents { .. })).then(|| self.topic.clone());
            let subscription = on_subscription.then(|| Name::parse("s").unwrap());
            let at_ms = self.number.cast_signed();
            let command = TopicCommand { nonce: 7, number: self.number, at_ms, topic, subscription, change };
            self.fold.apply(self.number, &command, &mut Undo::default(), &mut Vec::new())
        }

        fn fail(&mut self, offset: i64, attempts: u32, status: u16) {
            let last = AttemptFailure { at_ms: 1, error: AttemptError::HttpStatus, status: Some(status) };
            let retry = Retry {
                range: range(offset),
                attempts,
                next_ms: 0,
                first_ms: 0,
                key_hash: None,
                last: Some(last),
                redrive: None,
                letter: None,
            };
            let epoch = self.epoch;
            self.apply(true, Change::Retry { epoch, retries: vec![retry] });
        }

        fn deliver(&mut self, offset: i64, delivered: bool) {
            let epoch = self.epoch;
            self.apply(true, Change::Settle { epoch, ranges: vec![range(offset)], delivered });
        }

        fn suspend(&mut self) {
            self.apply(true, Change::Suspend { reason: "api".into(), active_since: None });
        }

        /// The types of the events that wait, which are published then.
        fn events(&mut self) -> Vec<&'static str> {
            let events: Vec<_> = self.fold.events().map(|(offset, event)| (offset, event.kind.as_str())).collect();
            self.apply(false, Change::EndEvents { offsets: events.iter().map(|(offset, _)| *offset).collect() });
            assert_eq!(self.fold.events().count(), 0);
            events.into_iter().map(|(_, kind)| kind).collect()
        }
    }

    #[test]
    fn a_subscription_fails_once_by_the_fourth_attempt_and_recovers_by_a_delivery() {
        let mut own = Pushed::of("t");
        (1..=3).for_each(|attempts| own.fail(1, attempts, 500));
        assert!(own.events().is_empty());
        own.fail(1, 4, 500);
        assert_eq!(own.events(), ["subscription.failing"]);
        own.fail(1, 5, 500);
        own.fail(2, 4, 500);
        own.deliver(3, false);
        assert!(own.events().is_empty(), "it fails already, and what a filter passes over is no delivery");
        own.deliver(4, true);
        assert_eq!(own.events(), ["subscription.recovered"]);
        own.deliver(5, true);
        own.fail(1, 6, 500);
        assert!(own.events().is_empty(), "one message that nobody takes is reported once");
        own.fail(6, 4, 400);
        assert!(own.events().is_empty(), "a permanent status is no failure of the endpoint");
        own.fail(7, 4, 500);
        own.apply(
            true,
            Change::AlterSubscription {
                settings: SubscriptionSettings::default(),
                signing_key: None,
                version: own.epoch,
            },
        );
        assert_eq!(own.events(), ["subscription.failing", "subscription.recovered"], "without an endpoint none fails");
    }

    #[test]
    fn a_message_that_was_settled_before_makes_no_subscription_fail() {
        let mut own = Pushed::of("t");
        own.deliver(1, true);
        own.fail(1, 4, 500);
        let found = &own.fold.topic(&own.topic).unwrap().subscriptions[&Name::parse("s").unwrap()];
        assert!(found.retries.is_empty() && !found.meta.failing);
        assert!(own.events().is_empty());
    }

    #[test]
    fn suspension_is_reported_when_it_takes_effect() {
        let mut own = Pushed::of("t");
        own.suspend();
        own.suspend();
        assert_eq!(own.events(), ["subscription.suspended"]);
        own.fail(1, 4, 500);
        own.deliver(2, true);
        assert!(own.events().is_empty());
        own.apply(true, Change::Resume);
        own.apply(true, Change::Resume);
        assert_eq!(own.events(), ["subscription.recovered"]);
        own.apply(true, Change::Suspend { reason: "x".into(), active_since: Some(1) });
        assert!(own.events().is_empty(), "it was resumed since");
    }

    #[test]
    fn a_dead_letter_is_reported_with_its_reason_once() {
        let mut own = Pushed::of("t");
        own.fail(1, 2, 500);
        let epoch = own.epoch;
        let bury = |reason: Option<&str>| Change::Bury {
            epoch,
            range: range(1),
            reason: reason.map(str::to_owned),
            retry: None,
        };
        own.apply(true, bury(Some("max-age")));
        let event = own.fold.events().next().unwrap().1.clone();
        let EventKind::DeadLettered { reason, message } = event.kind else { panic!("{event:?}") };
        assert_eq!((&*reason, message.offset, message.attempts), ("max-age", 1, 2));
        assert_eq!(own.events().len(), 1);
        own.apply(true, bury(Some("max-age")));
        own.fail(2, 1, 500);
        own.apply(true, Change::Bury { epoch, range: range(2), reason: None, retry: None });
        assert!(own.events().is_empty(), "without a letter there is no event");
    }

    #[test]
    fn events_do_not_report_themselves_and_are_bounded() {
        let mut own = Pushed::of("millrace-events");
        own.fail(1, 4, 500);
        own.suspend();
        assert!(own.events().is_empty());
        let mut own = Pushed::of("t");
        for _ in 0..MAX_EVENTS {
            own.suspend();
            own.apply(true, Change::Resume);
        }
        assert_eq!(own.fold.events().count(), MAX_EVENTS);
        assert_eq!(own.fold.take_dropped_events(), MAX_EVENTS as u64, "two changes each time");
        assert_eq!(own.fold.take_dropped_events(), 0);
    }

    #[test]
    fn what_is_taken_back_was_not_reported() {
        let mut own = Pushed::of("t");
        let (mut undo, mut changes) = (Undo::default(), Vec::new());
        let command = TopicCommand {
            nonce: 7,
            number: 100,
            at_ms: 1,
            topic: Some(own.topic.clone()),
            subscription: Some(Name::parse("s").unwrap()),
            change: Change::Suspend { reason: "api".into(), active_since: None },
        };
        own.fold.apply(100, &command, &mut undo, &mut changes);
        let reported = |key: &TopicStateKey| *key == TopicStateKey::Event(100);
        assert!(changes.iter().any(|(key, entry)| reported(key) && entry.is_some()), "in the step of the change");
        assert_eq!(own.fold.events().count(), 1);
        own.fold.undo(undo);
        assert_eq!(own.fold.events().count(), 0);
    }
}
