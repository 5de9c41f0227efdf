//! The fold against a model: commands, repeats, coordinators that were replaced, late openings, steps that were taken back,
//! and a restore from the compacted changes.

use std::collections::{BTreeMap, BTreeSet};

use millrace_contracts::topics::{Change, Grant, Retry, RetryId, SettledRange, SubscriptionSettings, TopicSettings};
use proptest::prelude::*;

use super::*;

/// What the model knows: who is in force, and the settled and retried messages of each subscription.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    nonce: Option<u64>,
    number: u64,
    /// Topics with their deletion time.
    topics: BTreeMap<u8, Option<i64>>,
    subscriptions: BTreeMap<(u8, u8), Position>,
}

/// A subscription.
#[derive(Debug, Clone, Default, PartialEq)]
struct Position {
    epoch: u64,
    settled: BTreeSet<i64>,
    /// Messages in retry: the redrive of each, with its letter, and failed attempts.
    retried: BTreeMap<i64, (Option<u64>, u32)>,
    redriven: BTreeSet<u64>,
}

/// Messages of every topic: offsets 10, 20, … 200, ordinals 1 to 20.
const MESSAGES: i64 = 20;

#[derive(Debug, Clone)]
enum Act {
    Open {
        previous_is_right: bool,
    },
    Create(u8),
    Delete(u8),
    Subscribe(u8, u8),
    Unsubscribe(u8, u8),
    Seek(u8, u8, i64),
    Settle(u8, u8, Vec<i64>, bool),
    SettleUpTo(u8, u8, i64),
    Retry(u8, u8, i64),
    /// A letter of its own for each message: its number is the redrive's id too.
    Redrive(u8, u8, Vec<i64>),
    /// Of the retry as it is, or of one before; with a letter, or of a message that the log dropped.
    Bury(u8, u8, i64, bool, bool),
}

/// An act, whether an old coordinator does it, whether it is written twice, and what the engine does then.
type Step = (Act, bool, bool, u8);

fn act() -> impl Strategy<Value = Act> {
    // Mostly the same, and few of its messages: what happens to a message depends on what happened to it before.
    let topic = (0..4_u8).prop_map(|one| one / 3);
    let subscription = (0..4_u8).prop_map(|one| one / 3);
    let message = 1..=MESSAGES;
    let retried = 1..=4_i64;
    prop_oneof![
        1 => any::<bool>().prop_map(|previous_is_right| Act::Open { previous_is_right }),
        2 => topic.clone().prop_map(Act::Create),
        1 => topic.clone().prop_map(Act::Delete),
        3 => (topic.clone(), subscription.clone()).prop_map(|(t, s)| Act::Subscribe(t, s)),
        1 => (topic.clone(), subscription.clone()).prop_map(|(t, s)| Act::Unsubscribe(t, s)),
        1 => (topic.clone(), subscription.clone(), 0..=MESSAGES).prop_map(|(t, s, m)| Act::Seek(t, s, m)),
        8 => (topic.clone(), subscription.clone(), proptest::collection::vec(message.clone(), 1..4), any::<bool>())
            .prop_map(|(t, s, m, stale)| Act::Settle(t, s, m, stale)),
        2 => (topic.clone(), subscription.clone(), message.clone()).prop_map(|(t, s, m)| Act::SettleUpTo(t, s, m)),
        3 => (topic.clone(), subscription.clone(), retried.clone()).prop_map(|(t, s, m)| Act::Retry(t, s, m)),
        3 => (topic.clone(), subscription.clone(), proptest::collection::btree_set(retried.clone(), 1..4))
            .prop_map(|(t, s, m)| Act::Redrive(t, s, m.into_iter().collect())),
        4 => (topic, subscription, retried, any::<bool>(), any::<bool>())
            .prop_map(|(t, s, m, stale, dropped)| Act::Bury(t, s, m, stale, dropped)),
    ]
}

fn name(kind: char, number: u8) -> Name {
    Name::parse(&format!("{kind}{number}")).unwrap()
}

fn range(message: i64) -> SettledRange {
    let ordinal = u64::try_from(message).unwrap();
    let after = if message == 1 { -1 } else { (message - 1) * 10 };
    SettledRange { after, offset: message * 10, ordinal_after: ordinal - 1, ordinal }
}

fn retry(message: i64, attempts: u32) -> Retry {
    let range = range(message);
    Retry { range, attempts, next_ms: 0, first_ms: 0, key_hash: None, last: None, redrive: None, letter: None }
}

fn settings() -> TopicSettings {
    TopicSettings { retention_ms: 1, delay_ms: 0, max_message_bytes: 1, description: String::new() }
}

impl Position {
    fn apply(&mut self, offset: u64, command: &TopicCommand, act: &Act) {
        let Self { epoch, settled, retried, redriven } = self;
        match (act, &command.change) {
            (Act::Seek(_, _, message), _) => {
                (*epoch, *settled, *retried) = (offset, (1..=*message).collect(), BTreeMap::new());
            }
            (Act::Settle(_, _, messages, false), _) => {
                for message in messages {
                    settled.insert(*message);
                    retried.remove(message);
                }
            }
            (Act::SettleUpTo(_, _, message), _) => {
                settled.extend(1..=*message);
                retried.retain(|retried, _| retried > message);
            }
            (Act::Retry(_, _, message), _) => {
                let known = retried.get(message).copied();
                if settled.insert(*message) || known.is_some() {
                    retried.insert(*message, (known.and_then(|(redrive, _)| redrive), 1));
                }
            }
            (Act::Redrive(_, _, messages), Change::Redrive { id, .. }) => {
                for message in messages {
                    redriven.insert(letter(*id, *message));
                    if settled.contains(message) {
                        retried.insert(*message, (Some(*id), 0));
                    }
                }
            }
            (Act::Bury(_, _, message, stale, dropped), _) => match retried.get(message) {
                Some(_) if *stale => {}
                None => _ = settled.insert(*message),
                Some((redrive, _)) => {
                    if let (Some(id), true) = (redrive, dropped) {
                        redriven.remove(&letter(*id, *message));
                    }
                    retried.remove(message);
                }
            },
            _ => {}
        }
    }
}

/// The letter of a message in a redrive.
fn letter(id: u64, message: i64) -> u64 {
    id * 100 + message.cast_unsigned()
}

impl Model {
    /// The command's effect, if it counts.
    fn apply(&mut self, offset: u64, command: &TopicCommand, act: &Act) {
        if let Change::Open { previous, .. } = &command.change {
            if *previous == self.nonce {
                (self.nonce, self.number) = (Some(command.nonce), command.number);
            }
            return;
        }
        if self.nonce != Some(command.nonce) || command.number <= self.number {
            return;
        }
        self.number = command.number;
        let exists = |model: &Self, topic: u8| model.topics.get(&topic).is_some_and(Option::is_none);
        match act {
            Act::Open { .. } => {}
            Act::Create(topic) => {
                let rested =
                    self.topics.get(topic).is_none_or(|deleted| deleted.is_some_and(|at| at + 30_000 <= command.at_ms));
                if rested {
                    self.topics.insert(*topic, None);
                }
            }
            Act::Delete(topic) => {
                if exists(self, *topic) {
                    self.topics.insert(*topic, Some(command.at_ms));
                    self.subscriptions.retain(|(of, _), _| of != topic);
                }
            }
            Act::Subscribe(topic, subscription) => {
                if exists(self, *topic) {
                    let fresh = Position { epoch: offset, ..Position::default() };
                    self.subscriptions.entry((*topic, *subscription)).or_insert(fresh);
                }
            }
            Act::Unsubscribe(topic, subscription) => drop(self.subscriptions.remove(&(*topic, *subscription))),
            Act::Seek(topic, subscription, ..)
            | Act::Settle(topic, subscription, ..)
            | Act::SettleUpTo(topic, subscription, ..)
            | Act::Retry(topic, subscription, ..)
            | Act::Redrive(topic, subscription, ..)
            | Act::Bury(topic, subscription, ..) => {
                if let Some(found) = self.subscriptions.get_mut(&(*topic, *subscription)) {
                    found.apply(offset, command, act);
                }
            }
        }
    }

    fn equals(&self, fold: &Fold) -> Result<(), TestCaseError> {
        prop_assert_eq!(fold.nonce(), self.nonce);
        fold.check_orders();
        for topic in 0..2 {
            let found = fold.topic(&name('t', topic));
            prop_assert_eq!(found.is_some(), self.topics.get(&topic).is_some_and(Option::is_none), "topic {}", topic);
            for subscription in 0..2 {
                let found = found.and_then(|found| found.subscriptions.get(&name('s', subscription)));
                let expected = self.subscriptions.get(&(topic, subscription));
                prop_assert_eq!(found.is_some(), expected.is_some());
                let (Some(found), Some(expected)) = (found, expected) else { continue };
                prop_assert_eq!(found.cursor.epoch, expected.epoch);
                let covered: BTreeSet<i64> =
                    (1..=MESSAGES).filter(|message| found.cursor.covers(message * 10)).collect();
                prop_assert_eq!(&covered, &expected.settled);
                let in_retry = found.retries.iter().map(|(offset, one)| (offset / 10, (one.redrive, one.attempts)));
                prop_assert_eq!(&in_retry.collect::<BTreeMap<_, _>>(), &expected.retried);
                let redriven = found.meta.redriven.iter().flat_map(|(first, last)| *first..=*last);
                prop_assert_eq!(&redriven.collect::<BTreeSet<_>>(), &expected.redriven);
                prop_assert_eq!(found.cursor.settled_ordinals(), expected.settled.len() as u64);
            }
        }
        Ok(())
    }
}

fn change(model: &Model, act: &Act, previous: Option<u64>, id: u64) -> (Change, Option<u8>, Option<u8>) {
    let epoch = |topic: u8, subscription: u8, stale: bool| {
        let epoch = model.subscriptions.get(&(topic, subscription)).map_or(0, |found| found.epoch);
        if stale { epoch + 1_000_000 } else { epoch }
    };
    match act {
        Act::Open { .. } => (Change::Open { previous, url: String::new() }, None, None),
        Act::Create(topic) => (
            Change::CreateTopic { owner: "o".into(), settings: settings(), grants: BTreeMap::new() },
            Some(*topic),
            None,
        ),
        Act::Delete(topic) => (Change::DeleteTopic { version: None }, Some(*topic), None),
        Act::Subscribe(topic, subscription) => {
            let settings = SubscriptionSettings::default();
            let create = Change::CreateSubscription {
                owner: "o".into(),
                settings,
                floor: -1,
                floor_ordinal: 0,
                signing_key: None,
            };
            (create, Some(*topic), Some(*subscription))
        }
        Act::Unsubscribe(topic, subscription) => {
            (Change::DeleteSubscription { version: None }, Some(*topic), Some(*subscription))
        }
        Act::Seek(topic, subscription, message) => {
            let floor = if *message == 0 { -1 } else { message * 10 };
            let floor_ordinal = u64::try_from(*message).unwrap();
            (Change::Seek { floor, floor_ordinal }, Some(*topic), Some(*subscription))
        }
        Act::Settle(topic, subscription, messages, stale) => {
            let (epoch, ranges) = (epoch(*topic, *subscription, *stale), messages.iter().copied().map(range).collect());
            (Change::Settle { epoch, ranges, delivered: false }, Some(*topic), Some(*subscription))
        }
        Act::SettleUpTo(topic, subscription, message) => {
            let (epoch, range) = (epoch(*topic, *subscription, false), range(*message));
            let (offset, ordinal) = (range.offset, range.ordinal);
            (Change::SettleUpTo { epoch, offset, ordinal }, Some(*topic), Some(*subscription))
        }
        Act::Retry(topic, subscription, message) => {
            let epoch = epoch(*topic, *subscription, false);
            (Change::Retry { epoch, retries: vec![retry(*message, 1)] }, Some(*topic), Some(*subscription))
        }
        Act::Redrive(topic, subscription, messages) => {
            let letters = messages.iter().map(|message| (letter(id, *message), retry(*message, 0))).collect();
            let ranges = messages.iter().map(|message| (letter(id, *message), letter(id, *message))).collect();
            (Change::Redrive { id, letters, ranges }, Some(*topic), Some(*subscription))
        }
        Act::Bury(topic, subscription, message, stale, dropped) => {
            let (epoch, range) = (epoch(*topic, *subscription, false), range(*message));
            let found = model.subscriptions.get(&(*topic, *subscription)).and_then(|found| found.retried.get(message));
            let (redrive, attempts) = found.copied().unwrap_or_default();
            // A redrive that there never was.
            let redrive = if *stale { Some(0) } else { redrive };
            let retry = Some(RetryId { first_ms: 0, attempts, redrive });
            (
                Change::Bury { epoch, range, reason: (!dropped).then(|| "expired".to_owned()), retry },
                Some(*topic),
                Some(*subscription),
            )
        }
    }
}

/// Restores a fold from the newest change of each key, as a compacted topic has them.
fn restored(changelog: &BTreeMap<String, Option<Vec<u8>>>) -> Fold {
    let mut fold = Fold::new(0);
    for (key, value) in changelog {
        let key = TopicStateKey::parse(key.as_bytes()).unwrap();
        fold.put(key, value.as_ref().map(|value| StateEntry::decode(value).unwrap()));
    }
    fold
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn equals_the_model_after_every_command(steps in proptest::collection::vec((act(), any::<bool>(), any::<bool>(), 0..6_u8), 1..80)) {
        let (mut fold, mut model) = (Fold::new(0), Model::default());
        let mut changelog: BTreeMap<String, Option<Vec<u8>>> = BTreeMap::new();
        let (mut offset, mut nonces, mut number) = (1_u64, vec![0_u64], 0_u64);
        let begin = [Act::Open { previous_is_right: true }, Act::Create(0), Act::Subscribe(0, 0)];
        let steps: Vec<Step> = begin.map(|act| (act, false, false, 0)).into_iter().chain(steps).collect();
        for (act, zombie, twice, then) in steps {
            let previous = match act {
                Act::Open { previous_is_right: false } => nonces.first().copied(),
                _ => model.nonce,
            };
            let (change, topic, subscription) = change(&model, &act, previous, offset);
            let opens = matches!(change, Change::Open { .. });
            let nonce = if opens {
                nonces.push(nonces.len() as u64 + 100);
                number = 0;
                *nonces.last().unwrap()
            } else if zombie && nonces.len() > 2 {
                nonces[nonces.len() - 2]
            } else {
                model.nonce.unwrap_or_default()
            };
            number += 1;
            let command = TopicCommand {
                nonce,
                number: if zombie && !opens { number + 1_000 } else { number },
                // Time passes, so that deleted names come free again.
                at_ms: i64::try_from(offset).unwrap() * 5_000,
                topic: topic.map(|topic| name('t', topic)),
                subscription: subscription.map(|subscription| name('s', subscription)),
                change,
            };
            let (mut undo, mut changes) = (Undo::default(), Vec::new());
            for _ in 0..=u8::from(twice) {
                fold.apply(offset, &command, &mut undo, &mut changes);
                model.apply(offset, &command, &act);
                offset += 1;
            }
            if then == 0 {
                // The transaction is aborted: the step is taken back, and its records are applied again.
                fold.undo(undo);
                changes.clear();
                let mut undo = Undo::default();
                let again = offset - 1 - u64::from(twice);
                for at in again..offset {
                    fold.apply(at, &command, &mut undo, &mut changes);
                }
            }
            changes.extend(fold.newest_number());
            for (key, entry) in changes {
                let value = entry.map(|entry| {
                    let mut value = Vec::new();
                    entry.encode(&mut value);
                    value
                });
                changelog.insert(key.to_string(), value);
            }
            model.equals(&fold)?;
            if then == 1 {
                // Another owner restores it.
                fold = restored(&changelog);
                model.equals(&fold)?;
            }
        }
    }
}

#[test]
fn a_grant_and_settings_need_the_newest_version() {
    let mut fold = Fold::new(0);
    let mut apply = |offset, number, change| {
        let topic = (!matches!(change, Change::Open { .. })).then(|| name('t', 0));
        let command = TopicCommand { nonce: 7, number, at_ms: 0, topic, subscription: None, change };
        fold.apply(offset, &command, &mut Undo::default(), &mut Vec::new())
    };
    assert_eq!(apply(0, 1, Change::Open { previous: None, url: String::new() }), Outcome::Opened(7));
    assert_eq!(
        apply(1, 2, Change::CreateTopic { owner: "o".into(), settings: settings(), grants: BTreeMap::new() }),
        Outcome::Created
    );
    assert_eq!(
        apply(2, 3, Change::CreateTopic { owner: "o".into(), settings: settings(), grants: BTreeMap::new() }),
        Outcome::Existed
    );
    let other = TopicSettings { delay_ms: 5, ..settings() };
    let refused =
        apply(3, 4, Change::CreateTopic { owner: "o".into(), settings: other.clone(), grants: BTreeMap::new() });
    assert!(matches!(refused, Outcome::Refused(refusal) if refusal.field.as_deref() == Some("delay")));
    let grant = Some(Grant { publish: true, ..Grant::default() });
    let granted = Change::SetGrant { principal: "p".into(), grant, version: 1 };
    assert_eq!(apply(4, 5, granted), Outcome::Changed);
    let refused = apply(5, 6, Change::AlterTopic { settings: other.clone(), version: 1 });
    assert!(matches!(refused, Outcome::Refused(refusal) if refusal.code == Code::PreconditionFailed));
    assert_eq!(apply(6, 7, Change::AlterTopic { settings: other, version: 4 }), Outcome::Changed);
}
