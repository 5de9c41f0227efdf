//! How messages enter retry and leave it, and what that comes to for the redrive that sends them again.

use std::collections::{BTreeMap, BTreeSet};

use millrace_contracts::topics::{
    Name, Redrive, Retry, RetryId, Settled, SettledRange, StateEntry, SubscriptionMeta, TopicStateKey,
};

use super::write::{RetryEnd, Write};
use super::{Outcome, Subscription};

/// Redrives that a subscription remembers.
const MAX_REDRIVES: usize = 20;

impl Write<'_> {
    pub(super) fn settle(&mut self, topic: &Name, name: &Name, ranges: &[SettledRange], how: RetryEnd) -> Outcome {
        let mut cursor = self.subscription(topic, name).cursor.clone();
        let (mut now, mut already) = (0, 0);
        let mut left = BTreeSet::new();
        for range in ranges {
            // A message in retry is covered, but not acknowledged.
            let in_retry = self.subscription(topic, name).retries.contains_key(&range.offset);
            if (in_retry && left.insert(range.offset)) || cursor.settle(*range) == Settled::Now {
                now += 1;
            } else {
                already += 1;
            }
        }
        self.leave_retry(topic, name, left, how);
        self.put(TopicStateKey::Cursor(topic.clone(), name.clone()), Some(StateEntry::Cursor(cursor)));
        Outcome::Settled { now, already }
    }

    /// Settles a message, and counts its bytes unless it was settled before.
    pub(super) fn settle_current(&mut self, topic: &Name, name: &Name, range: SettledRange, bytes: u64) -> Outcome {
        let outcome = self.settle(topic, name, &[range], RetryEnd::Settled);
        if let Outcome::Settled { now: 1.., .. } = outcome {
            let mut cursor = self.subscription(topic, name).cursor.clone();
            cursor.legacy_bytes += bytes;
            self.put(TopicStateKey::Cursor(topic.clone(), name.clone()), Some(StateEntry::Cursor(cursor)));
        }
        outcome
    }

    pub(super) fn settle_up_to(&mut self, topic: &Name, name: &Name, offset: i64, ordinal: u64) -> Outcome {
        let Subscription { cursor, retries, .. } = self.subscription(topic, name);
        let mut cursor = cursor.clone();
        let before = cursor.settled_ordinals().saturating_sub(retries.len() as u64);
        let settled = cursor.settle_up_to(offset, ordinal);
        let below: Vec<i64> = retries.range(..=offset).map(|(offset, _)| *offset).collect();
        let after = cursor.settled_ordinals().saturating_sub((retries.len() - below.len()) as u64);
        self.leave_retry(topic, name, below, RetryEnd::Settled);
        self.put(TopicStateKey::Cursor(topic.clone(), name.clone()), Some(StateEntry::Cursor(cursor)));
        let now = after.saturating_sub(before);
        Outcome::Settled { now, already: u64::from(now == 0 && settled == Settled::Already) }
    }

    pub(super) fn retry(&mut self, topic: &Name, name: &Name, retries: &[Retry]) -> Outcome {
        let mut cursor = self.subscription(topic, name).cursor.clone();
        let (mut now, mut already) = (0, 0);
        for retry in retries {
            let offset = retry.range.offset;
            // A message that is settled for good does not come back.
            let known = self.subscription(topic, name).retries.get(&offset);
            let (redrive, letter) = known.map_or((None, None), |known| (known.redrive, known.letter));
            if known.is_none() && cursor.settle(retry.range) == Settled::Already {
                already += 1;
                continue;
            }
            self.put(retry_key(topic, name, offset), Some(StateEntry::Retry(Retry { redrive, letter, ..*retry })));
            now += 1;
        }
        self.put(TopicStateKey::Cursor(topic.clone(), name.clone()), Some(StateEntry::Cursor(cursor)));
        Outcome::Settled { now, already }
    }

    /// Settles a message that has become a dead letter, unless its letter was redriven since. `dropped`: there is no letter but
    /// that of its redrive.
    pub(super) fn bury(
        &mut self,
        topic: &Name,
        name: &Name,
        range: SettledRange,
        of: Option<RetryId>,
        dropped: bool,
    ) -> Outcome {
        let found = self.subscription(topic, name).retries.get(&range.offset).copied();
        if let (Some(retry), Some(of)) = (found, of)
            && !retry.is(of)
        {
            return Outcome::Settled { now: 0, already: 1 };
        }
        if let Some(letter) = found.and_then(|retry| retry.letter).filter(|_| dropped && of.is_some()) {
            let mut meta = self.subscription(topic, name).meta.clone();
            crate::redriven::remove(&mut meta.redriven, letter);
            self.put(TopicStateKey::Subscription(topic.clone(), name.clone()), Some(StateEntry::Subscription(meta)));
        }
        self.settle(topic, name, &[range], RetryEnd::Buried)
    }

    /// Puts messages of dead letters into retry, each letter once. `redriven`: the redrive, its time, and the letters.
    pub(super) fn redrive(
        &mut self,
        topic: &Name,
        name: &Name,
        (id, at_ms, letters): (u64, i64, &[(u64, Retry)]),
        mut meta: SubscriptionMeta,
        ranges: &[(u64, u64)],
    ) -> Outcome {
        let known = self.subscription(topic, name).redrives.get(&id).copied();
        let mut redrive = known.unwrap_or(Redrive { begun_ms: at_ms, ..Redrive::default() });
        let mut now = 0;
        for (letter, retry) in letters {
            if crate::redriven::contains(&meta.redriven, *letter) {
                continue;
            }
            now += 1;
            let offset = retry.range.offset;
            if !self.subscription(topic, name).cursor.covers(offset) {
                // After a seek back it is handed out again anyway.
                redrive.done += 1;
                continue;
            }
            // A message has several letters if it was handed out again after a seek back: it is sent again once.
            match self.subscription(topic, name).retries.get(&offset).map(|known| known.redrive) {
                Some(Some(before)) if before == id => redrive.done += 1,
                Some(_) => self.leave_retry(topic, name, [offset], RetryEnd::Settled),
                None => {}
            }
            let retry = Retry { redrive: Some(id), letter: Some(*letter), ..*retry };
            self.put(retry_key(topic, name, offset), Some(StateEntry::Retry(retry)));
        }
        for range in ranges {
            crate::redriven::insert(&mut meta.redriven, *range);
        }
        redrive.selected += now;
        if known.is_none() {
            self.forget_redrives(topic, name, MAX_REDRIVES - 1);
        }
        self.put(redrive_key(topic, name, id), Some(StateEntry::Redrive(redrive)));
        self.put(TopicStateKey::Subscription(topic.clone(), name.clone()), Some(StateEntry::Subscription(meta)));
        Outcome::Settled { now, already: letters.len() as u64 - now }
    }

    /// Takes messages out of retry, and counts them for their redrives.
    pub(super) fn leave_retry(
        &mut self,
        topic: &Name,
        name: &Name,
        offsets: impl IntoIterator<Item = i64>,
        how: RetryEnd,
    ) {
        let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
        for offset in offsets {
            let known = self.subscription(topic, name).retries.get(&offset);
            if let Some(id) = known.and_then(|retry| retry.redrive) {
                *counts.entry(id).or_default() += 1;
            }
            self.put(retry_key(topic, name, offset), None);
        }
        for (id, count) in counts {
            // The oldest ones are forgotten.
            let Some(mut redrive) = self.subscription(topic, name).redrives.get(&id).copied() else { continue };
            match how {
                RetryEnd::Settled => redrive.done += count,
                RetryEnd::Buried => redrive.failed += count,
                RetryEnd::Dropped => redrive.canceled = true,
            }
            self.put(redrive_key(topic, name, id), Some(StateEntry::Redrive(redrive)));
        }
    }

    /// Forgets redrives until at most `max` are left: those that are over first, then the oldest.
    fn forget_redrives(&mut self, topic: &Name, name: &Name, max: usize) {
        let mut known: Vec<(bool, i64, u64)> = self
            .subscription(topic, name)
            .redrives
            .iter()
            .map(|(id, redrive)| (!redrive.is_over(), redrive.begun_ms, *id))
            .collect();
        known.sort_unstable();
        for (_, _, id) in known.iter().take(known.len().saturating_sub(max)) {
            self.put(redrive_key(topic, name, *id), None);
        }
    }

    /// Forgets everything that is in retry, with the subscription.
    pub(super) fn forget_retries(&mut self, topic: &Name, name: &Name) {
        let Subscription { retries, .. } = self.subscription(topic, name);
        for offset in retries.keys().copied().collect::<Vec<_>>() {
            self.put(retry_key(topic, name, offset), None);
        }
        self.forget_redrives(topic, name, 0);
    }
}

fn retry_key(topic: &Name, name: &Name, offset: i64) -> TopicStateKey {
    TopicStateKey::Retry(topic.clone(), name.clone(), offset)
}

fn redrive_key(topic: &Name, name: &Name, id: u64) -> TopicStateKey {
    TopicStateKey::Redrive(topic.clone(), name.clone(), id)
}

#[cfg(test)]
mod tests {
    use millrace_contracts::topics::{Change, SubscriptionSettings, TopicCommand, TopicSettings};

    use super::super::{Fold, Undo};
    use super::*;

    fn range(offset: i64) -> SettledRange {
        SettledRange { after: offset - 1, offset, ordinal_after: 0, ordinal: 1 }
    }

    fn retry(offset: i64) -> Retry {
        let range = range(offset);
        Retry { range, attempts: 0, next_ms: 0, first_ms: 0, key_hash: None, last: None, redrive: None, letter: None }
    }

    /// A fold with a subscription that has settled messages 1 to 9, and the number of its newest command.
    struct Subscribed(Fold, u64);

    impl Subscribed {
        fn new() -> Self {
            let mut own = Self(Fold::new(0), 0);
            own.apply(false, Change::Open { previous: None, url: String::new() });
            let settings =
                TopicSettings { retention_ms: 1, delay_ms: 0, max_message_bytes: 1, description: String::new() };
            own.apply(false, Change::CreateTopic { owner: String::new(), settings, grants: BTreeMap::new() });
            let (owner, settings) = (String::new(), SubscriptionSettings::default());
            let (floor, floor_ordinal, signing_key) = (9, 9, None);
            own.apply(true, Change::CreateSubscription { owner, settings, floor, floor_ordinal, signing_key });
            own
        }

        fn name(text: &str) -> Name {
            Name::parse(text).unwrap()
        }

        fn apply(&mut self, on_subscription: bool, change: Change) -> Outcome {
            self.1 += 1;
            let topic = (!matches!(change, Change::Open { .. })).then(|| Self::name("t"));
            let subscription = on_subscription.then(|| Self::name("s"));
            let command =
                TopicCommand { nonce: 7, number: self.1, at_ms: self.1.cast_signed(), topic, subscription, change };
            self.0.apply(self.1, &command, &mut Undo::default(), &mut Vec::new())
        }

        /// A redrive of letters, each with its message.
        fn redrive(&mut self, id: u64, letters: &[(u64, i64)]) {
            let letters: Vec<(u64, Retry)> = letters.iter().map(|(letter, offset)| (*letter, retry(*offset))).collect();
            let ranges = letters.iter().map(|(letter, _)| (*letter, *letter)).collect();
            self.apply(true, Change::Redrive { id, letters, ranges });
        }

        fn settle(&mut self, offset: i64) {
            let epoch = self.subscription().cursor.epoch;
            self.apply(true, Change::Settle { epoch, ranges: vec![range(offset)], delivered: false });
        }

        fn id(&self, offset: i64) -> Option<RetryId> {
            self.subscription().retries.get(&offset).map(Retry::id)
        }

        fn bury(&mut self, offset: i64, retry: Option<RetryId>, dropped: bool) {
            let epoch = self.subscription().cursor.epoch;
            let reason = (!dropped).then(|| "expired".to_owned());
            self.apply(true, Change::Bury { epoch, range: range(offset), reason, retry });
        }

        fn subscription(&self) -> &Subscription {
            &self.0.topic(&Self::name("t")).unwrap().subscriptions[&Self::name("s")]
        }

        fn progress(&self, id: u64) -> (u64, u64, u64, &'static str) {
            let redrive = self.subscription().redrives[&id];
            (redrive.selected, redrive.done, redrive.failed, redrive.state())
        }
    }

    #[test]
    fn a_redrive_counts_what_becomes_of_its_messages() {
        let mut own = Subscribed::new();
        own.redrive(1, &[(100, 1), (101, 2)]);
        // Another part of it; the second letter was redriven before.
        own.redrive(1, &[(102, 3), (101, 2)]);
        assert_eq!(own.progress(1), (3, 0, 0, "running"));
        own.settle(1);
        // A failed attempt is neither.
        let epoch = own.subscription().cursor.epoch;
        own.apply(true, Change::Retry { epoch, retries: vec![Retry { attempts: 1, ..retry(2) }] });
        assert_eq!(own.progress(1), (3, 1, 0, "running"));
        own.bury(2, own.id(2), false);
        own.apply(true, Change::SettleUpTo { epoch, offset: 5, ordinal: 5 });
        assert_eq!(own.progress(1), (3, 2, 1, "done"));
        own.settle(1);
        assert_eq!(own.progress(1), (3, 2, 1, "done"), "what is settled again does not count again");
        own.redrive(2, &[]);
        assert_eq!(own.progress(2), (0, 0, 0, "done"));
    }

    #[test]
    fn a_message_with_several_letters_is_sent_again_once() {
        let mut own = Subscribed::new();
        own.redrive(1, &[(100, 1), (101, 1)]);
        assert_eq!(own.progress(1), (2, 1, 0, "running"));
        own.redrive(2, &[(102, 1)]);
        assert_eq!((own.progress(1).3, own.progress(2)), ("done", (1, 0, 0, "running")));
        own.settle(1);
        assert_eq!(own.progress(2), (1, 1, 0, "done"));
        // One that is not settled is handed out anyway.
        own.redrive(3, &[(103, 20)]);
        assert_eq!(own.progress(3), (1, 1, 0, "done"));
    }

    /// The letter is on the list before its message is settled.
    #[test]
    fn a_redrive_before_the_burial_of_its_message_is_not_buried() {
        let mut own = Subscribed::new();
        own.redrive(1, &[(100, 1)]);
        let first = own.id(1);
        own.redrive(2, &[(101, 1)]);
        own.bury(1, first, false);
        assert_eq!((own.subscription().retries.len(), own.progress(2)), (1, (1, 0, 0, "running")));
        own.bury(1, own.id(1), false);
        assert_eq!((own.subscription().retries.len(), own.progress(2)), (0, (1, 0, 1, "done")));
        // An attempt that ended meanwhile is one of the same retry.
        own.redrive(3, &[(102, 2)]);
        let first = own.id(2);
        let epoch = own.subscription().cursor.epoch;
        let first_ms = first.unwrap().first_ms;
        own.apply(true, Change::Retry { epoch, retries: vec![Retry { attempts: 1, first_ms, ..retry(2) }] });
        own.bury(2, first, false);
        assert_eq!(own.progress(3), (1, 0, 1, "done"));
    }

    #[test]
    fn the_letter_of_a_message_that_the_log_dropped_is_on_the_list_again() {
        let mut own = Subscribed::new();
        own.redrive(1, &[(100, 1), (101, 2), (102, 3)]);
        let epoch = own.subscription().cursor.epoch;
        own.apply(true, Change::Retry { epoch, retries: vec![Retry { attempts: 1, ..retry(2) }] });
        own.bury(2, own.id(2), true);
        assert_eq!(own.subscription().meta.redriven, [(100, 100), (102, 102)]);
        own.bury(3, own.id(3), false);
        assert_eq!(own.subscription().meta.redriven, [(100, 100), (102, 102)], "a new letter has taken its place");
        assert_eq!(own.progress(1), (3, 0, 2, "running"));
    }

    #[test]
    fn a_seek_cancels_and_the_oldest_are_forgotten() {
        let mut own = Subscribed::new();
        own.redrive(1, &[(100, 1), (101, 2)]);
        own.settle(1);
        own.apply(true, Change::Seek { floor: 9, floor_ordinal: 9 });
        assert_eq!(own.progress(1), (2, 1, 0, "canceled"));
        // One that runs outlives those that are over.
        own.redrive(2, &[(102, 3)]);
        for id in 3..=2 + MAX_REDRIVES as u64 {
            own.redrive(id, &[]);
        }
        let known: Vec<u64> = own.subscription().redrives.keys().copied().collect();
        assert_eq!(known.len(), MAX_REDRIVES);
        assert_eq!(known[..2], [2, 4]);
        // It goes on counting.
        own.bury(3, own.id(3), false);
        assert_eq!(own.progress(2), (1, 0, 1, "done"));
    }
}
