//! The stage of `topics.commands`: folds every command, persists what changed, and completes the requests that wait.

use std::sync::Arc;

use millrace_contracts::Topic;
use millrace_contracts::topics::{Change, Name, StateEntry, TopicCommand, TopicOwner, TopicStateKey};
use millrace_log::{Batch, Failure, Stage, StageError, Step, sabotaged};

use super::fold::{KeyChange, Outcome, Undo};
use super::pushing::SubscriptionKey;
use super::shard::{Inner, Shard};
use super::{Shared, events};

/// The stage.
pub(crate) struct Coordination {
    pub(crate) shared: Arc<Shared>,
}

/// A partition for as long as this process is its owner.
pub(crate) struct Ownership {
    shared: Arc<Shared>,
    shard: Arc<Shard>,
}

impl Drop for Ownership {
    fn drop(&mut self) {
        self.shared.revoked(&self.shard);
    }
}

impl Stage for Coordination {
    type State = Ownership;
    type Undo = Undo;

    fn input(&self) -> Topic {
        Topic::TOPIC_COMMANDS
    }

    fn changes(&self) -> Topic {
        Topic::TOPIC_STATE
    }

    fn outputs(&self) -> &'static [Topic] {
        &[Topic::TOPIC_OWNERS]
    }

    fn new_state(&self, partition: u32) -> Ownership {
        let partitions = self.shared.log.partitions(Topic::MESSAGES);
        Ownership { shared: self.shared.clone(), shard: Shard::new(partition, events::is_here(partition, partitions)) }
    }

    fn load(&self, state: &mut Ownership, key: &[u8], value: &[u8]) -> Result<(), StageError> {
        let foreign = |why: String| StageError::ForeignChange {
            key: String::from_utf8_lossy(&key[..key.len().min(64)]).into_owned(),
            why,
        };
        let parsed = TopicStateKey::parse(key).ok_or_else(|| foreign("no key of topics.state".into()))?;
        let entry = StateEntry::decode(value).map_err(|error| foreign(error.to_string()))?;
        // Guard: a restart restores what is in retry. Disabled, it forgets that.
        if matches!(parsed, TopicStateKey::Retry(..)) && sabotaged("sabotage::forget-retries") {
            return Ok(());
        }
        state.shard.lock().fold.put(parsed, Some(entry));
        Ok(())
    }

    fn restored(&self, state: &mut Ownership) {
        self.shared.assigned(&state.shard);
    }

    fn apply(&self, state: &mut Ownership, batch: &Batch, step: &mut Step) -> Result<Undo, StageError> {
        let shard = &state.shard;
        let mut undo = Undo::default();
        let mut changes: Vec<KeyChange> = Vec::new();
        let mut replies = Vec::new();
        let mut touched: Vec<(Name, Option<Name>)> = Vec::new();
        {
            let mut inner = shard.lock();
            for record in batch.iter() {
                let value = record.value.unwrap_or_default();
                let command = match TopicCommand::decode(value) {
                    Ok(command) => command,
                    // The coordinator in force may have answered it: to skip it would take the answer back.
                    Err(error)
                        if inner.fold.nonce().is_some() && TopicCommand::nonce_of(value) == inner.fold.nonce() =>
                    {
                        return Err(StageError::ForeignRecord {
                            record: format!("{}/{}@{}", Topic::TOPIC_COMMANDS.name, shard.partition, record.offset),
                            why: format!("a command that only a newer version of Millrace can apply: {error}"),
                        });
                    }
                    Err(_) => {
                        tracing::warn!(partition = shard.partition, offset = record.offset, "not a command: skipped");
                        continue;
                    }
                };
                let deleted = deleted(&inner, &command);
                let outcome = inner.fold.apply(record.offset, &command, &mut undo, &mut changes);
                if outcome == Outcome::Changed {
                    // Here: whoever sent the command may not wait for its outcome.
                    for key in &deleted {
                        inner.forget(key);
                    }
                    if let (Change::DeleteTopic { .. }, Some(topic)) = (&command.change, &command.topic) {
                        inner.forget_topic(topic);
                    }
                }
                if let Outcome::Opened(nonce) = outcome {
                    // Whoever opened behind us has the partition: this worker gives it up and joins the group anew.
                    if inner.nonce.is_some() && inner.opening != Some(nonce) {
                        let detail = "another coordinator took the partition over";
                        return Err(StageError::Unavailable(Failure::new(detail)));
                    }
                    let owner = TopicOwner { nonce, url: inner.fold.url().to_owned(), at_ms: command.at_ms };
                    let topic = Topic::TOPIC_OWNERS;
                    step.put(topic, shard.partition, shard.partition, |out| owner.encode(out));
                }
                if let Some(reply) = inner.waiting.remove(&(command.nonce, command.number)) {
                    replies.push((reply, outcome));
                }
                touched.extend(command.topic.map(|topic| (topic, command.subscription)));
            }
            changes.extend(inner.fold.newest_number());
            let dropped = inner.fold.take_dropped_events();
            if dropped > 0 {
                let partition = shard.partition;
                tracing::warn!(
                    partition,
                    dropped,
                    "events about subscriptions are dropped: too many wait to be published"
                );
                self.shared.push_metrics.dropped_events.increment(dropped);
            }
            let next = batch.next_offset().unwrap_or_default();
            let was_whole = inner.is_whole();
            inner.folded = (next, inner.folded.1.max(next));
            if !was_whole {
                self.shared.rings_changed();
            }
            touched.sort_unstable();
            touched.dedup();
            for (topic, subscription) in &touched {
                match subscription {
                    Some(subscription) => inner.wake_one(topic, subscription),
                    None => inner.wake(topic),
                }
            }
        }
        for (key, entry) in changes {
            match entry {
                Some(entry) => step.put(Topic::TOPIC_STATE, shard.partition, key, |out| entry.encode(out)),
                None => step.delete(Topic::TOPIC_STATE, shard.partition, key),
            }
        }
        // Whether a command counts depends on the log before it only, so it is certain before the step is durable.
        for (reply, outcome) in replies {
            let _ = reply.send(Ok(outcome));
        }
        shard.moved.notify_waiters();
        Ok(undo)
    }

    fn undo(&self, state: &mut Ownership, undo: Undo) {
        let mut inner = state.shard.lock();
        inner.fold.undo(undo);
        // The same records are applied again; until then nothing is answered.
        inner.folded.0 = 0;
        // Under the lock: the ring reads nothing until the fold has its topics and heads again.
        self.shared.rings_changed();
    }
}

/// The subscriptions that a command deletes, if it counts.
fn deleted(inner: &Inner, command: &TopicCommand) -> Vec<SubscriptionKey> {
    let Some(topic) = &command.topic else { return Vec::new() };
    match (&command.change, &command.subscription) {
        (Change::DeleteTopic { .. }, None) => {
            let names = inner.fold.topic(topic).into_iter().flat_map(|found| found.subscriptions.keys());
            names.map(|name| (topic.clone(), name.clone())).collect()
        }
        (Change::DeleteSubscription { .. }, Some(name)) => vec![(topic.clone(), name.clone())],
        _ => Vec::new(),
    }
}
