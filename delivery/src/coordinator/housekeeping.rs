//! What a coordinator does by itself: heads and passed-over messages into the log, delays that are due, dead letters.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::sync::Arc;
use std::time::Duration;
use std::vec::IntoIter;

use futures::future::join_all;
use millrace_contracts::topics::{Change, DeadLetter, Head, Name, Retry, SettledRange};
use millrace_contracts::{Code, Refusal, Topic};
use tokio::time::MissedTickBehavior;

use super::fold::Subscription;
use super::shard::{Inner, Shard};
use super::{Shared, backlog, publish, pull};

const TICK: Duration = Duration::from_millis(200);
/// Ticks between two writes of heads: 10 s.
const HEADS_EVERY: u64 = 50;
/// Most heads of one command, and most bytes of their names; most delayed messages and dead letters of one tick.
const MAX_HEADS: usize = 5_000;
const MAX_NAMES: usize = 256 << 10;
const MAX_DUE: usize = 1_000;
const MAX_LETTERS: usize = 100;
/// Messages that are worked on at the same time, each up to a record's size.
const AT_ONCE: usize = 32;

/// Works for a partition until it is revoked. A task for each: one with much to do, or whose log has no leader, does not hold up
/// the others.
pub(super) async fn run(shared: Arc<Shared>, shard: Arc<Shard>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for tick in 1_u64.. {
        ticks.tick().await;
        if shard.is_closed() {
            return;
        }
        if !shard.lock().serves() {
            continue;
        }
        if let Err(refusal) = work(&shared, &shard, tick.is_multiple_of(HEADS_EVERY)).await {
            tracing::debug!(partition = shard.partition, %refusal, "housekeeping is tried again");
        }
    }
}

/// One round of a partition. `heads`: it is time for what is done every now and then.
pub(super) async fn work(shared: &Arc<Shared>, shard: &Arc<Shard>, heads: bool) -> Result<(), Refusal> {
    end_delays(shared, shard).await?;
    // Every now and then: on Kafka it is a request.
    let start = if heads && shard.lock().fold.has_retries() {
        let start = shared.log.start(Topic::MESSAGES, shard.partition).await;
        start.map_err(|error| Refusal::new(Code::Unavailable, error.to_string()))?.cast_signed()
    } else {
        0
    };
    bury(shared, shard, start).await?;
    if heads {
        pass_over(shard).await?;
        write_heads(shard).await?;
    }
    Ok(())
}

async fn end_delays(shared: &Arc<Shared>, shard: &Arc<Shard>) -> Result<(), Refusal> {
    let due = shard.lock().fold.due_delays(shared.clock.now_ms(), MAX_DUE);
    for portion in due.chunks(AT_ONCE) {
        let mut reads = Vec::with_capacity(portion.len());
        for (name, _, offset) in portion {
            reads.push(publish::read_due(shared, shard, name, *offset));
        }
        let values = join_all(reads).await.into_iter().collect::<Result<Vec<_>, Refusal>>()?;
        let mut ends = Vec::with_capacity(portion.len());
        for ((name, due_ms, offset), value) in portion.iter().zip(values) {
            ends.push(publish::end_delay(shared, shard, name, (*due_ms, *offset), value));
        }
        // Each appends when it is polled first, so they keep their order.
        join_all(ends).await.into_iter().collect::<Result<(), Refusal>>()?;
    }
    Ok(())
}

/// A message to give up.
struct Lost {
    topic: Name,
    subscription: Name,
    topic_id: u64,
    epoch: u64,
    reason: &'static str,
    retry: Retry,
}

/// Messages whose attempts are used up, or that are in retry past the retention, or that the log dropped: those before
/// `start`. Looks at no others: this is done several times a second.
fn lost(shared: &Shared, shard: &Shard, start: i64) -> Vec<Lost> {
    let now_ms = shared.clock.now_ms();
    let inner = shard.lock();
    let mut found = Vec::new();
    // Each of the first kind has a message at least.
    let given_up_ones = inner.fold.to_give_up(now_ms).take(MAX_LETTERS);
    let keys: BTreeSet<_> = given_up_ones.chain(inner.fold.in_retry_before(start).take(MAX_LETTERS)).collect();
    for (topic, subscription) in keys {
        let Some(own) = inner.fold.topic(topic) else { continue };
        let Some(held) = own.subscription(subscription) else { continue };
        let has_none = |offset: &i64| inner.ring.as_ref().is_none_or(|ring| ring.get(topic, *offset).is_none());
        let dropped = held.retries.range(..start).map(|(offset, _)| *offset).filter(has_none);
        let reasons = given_up(held, own.meta.settings.retention_ms, now_ms, dropped, MAX_LETTERS - found.len());
        found.extend(reasons.into_iter().map(|(offset, reason)| Lost {
            topic: topic.clone(),
            subscription: subscription.clone(),
            topic_id: own.meta.created,
            epoch: held.cursor.epoch,
            reason,
            retry: held.retries[&offset],
        }));
        if found.len() >= MAX_LETTERS {
            break;
        }
    }
    found
}

/// The offsets of at most `max` messages of a subscription to give up, and why; of several reasons the first.
fn given_up(
    held: &Subscription,
    retention_ms: u64,
    now_ms: i64,
    dropped: impl Iterator<Item = i64>,
    max: usize,
) -> BTreeMap<i64, &'static str> {
    let (retries, settings) = (&held.retries, &held.meta.settings);
    let before = |age_ms: u64| now_ms.saturating_sub(i64::try_from(age_ms).unwrap_or(i64::MAX));
    let push = settings.push.as_ref();
    let permanent = push.into_iter().flat_map(|push| &push.permanent_statuses);
    let permanent =
        permanent.flat_map(|&status| retries.with_status(status)).map(|offset| (offset, "permanent-status"));
    let exhausted = settings.max_attempts.into_iter().flat_map(|max| retries.with_attempts(max));
    let exhausted = exhausted.map(|offset| (offset, "max-attempts"));
    let aged = push.into_iter().flat_map(|push| retries.begun_by(true, before(push.max_age_ms)));
    let aged = aged.map(|offset| (offset, "max-age"));
    let expired = [false, true].into_iter().flat_map(|attempted| retries.begun_by(attempted, before(retention_ms)));
    let expired = expired.chain(dropped).map(|offset| (offset, "expired"));
    let mut reasons = BTreeMap::new();
    for (offset, reason) in permanent.chain(exhausted).chain(aged).chain(expired) {
        if reasons.len() >= max {
            break;
        }
        reasons.entry(offset).or_insert(reason);
    }
    reasons
}

/// Writes dead letters, and settles their messages once the letters are durable.
async fn bury(shared: &Arc<Shared>, shard: &Arc<Shard>, start: i64) -> Result<(), Refusal> {
    let mut lost = lost(shared, shard, start).into_iter();
    loop {
        let portion: Vec<_> = lost.by_ref().take(AT_ONCE).map(|one| bury_one(shared, shard, one)).collect();
        if portion.is_empty() {
            return Ok(());
        }
        // To its end: one that is dropped after its letter would write another.
        join_all(portion).await.into_iter().collect::<Result<(), Refusal>>()?;
    }
}

async fn bury_one(shared: &Arc<Shared>, shard: &Arc<Shard>, lost: Lost) -> Result<(), Refusal> {
    let Lost { topic, subscription, topic_id, epoch, reason, retry } = lost;
    let Retry { range, attempts, first_ms, last, .. } = retry;
    let id = Some(retry.id());
    let at_hand = shard.lock().ring.as_ref().and_then(|ring| ring.get(&topic, range.offset).cloned());
    let stored = match at_hand {
        Some(stored) => Some(stored),
        None => backlog::read_one(shared, shard.partition, &topic, topic_id, range.offset).await?,
    };
    let is_letter = stored.is_some();
    if let Some(stored) = stored {
        let now_ms = shared.clock.now_ms();
        let letter = DeadLetter {
            topic_id,
            offset: range.offset.cast_unsigned(),
            dead_lettered_ms: now_ms,
            reason,
            attempts,
            first_attempt_ms: Some(first_ms),
            last_attempt_ms: last.map(|last| last.at_ms),
            last_status: last.and_then(|last| last.status),
            last_error: last.map(|last| last.error.as_str()),
            message: &stored.value,
        };
        let mut value = Vec::with_capacity(stored.value.len() + 128);
        letter.encode(&mut value);
        let key = format!("{topic}/{subscription}");
        shared.append(Topic::DEAD_LETTERS, shard.partition, key.as_bytes(), &value).await?;
    } else {
        tracing::warn!(%topic, %subscription, offset = range.offset, "the log dropped a message before it was settled");
    }
    let change = Change::Bury { epoch, range, reason: is_letter.then(|| reason.to_owned()), retry: id };
    shard.submit(Some(&topic), Some(&subscription), change).await.map(drop)
}

/// Makes durable what filters passed over, so that it is not read again.
async fn pass_over(shard: &Arc<Shard>) -> Result<(), Refusal> {
    let passed: Vec<(Name, Name, u64, SettledRange)> = {
        let inner = shard.lock();
        let reading = |((topic, name), reading): (&(Name, Name), &super::shard::Reading)| {
            // Most have passed over nothing, which is cheap to see.
            let frontier = reading.frontier.filter(|frontier| frontier.at > frontier.after.0)?;
            let cursor = &inner.fold.topic(topic)?.subscription(name)?.cursor;
            if reading.of.1 != cursor.epoch {
                return None;
            }
            let range = pull::passed_over(frontier, cursor.floor, cursor.floor_ordinal)?;
            Some((topic.clone(), name.clone(), cursor.epoch, range))
        };
        inner.readings.iter().filter_map(reading).take(MAX_DUE).collect()
    };
    // At once: a round trip for each of many would hold up the delays that are due.
    let mut settlements = Vec::with_capacity(passed.len());
    for (topic, name, epoch, range) in &passed {
        let change = Change::Settle { epoch: *epoch, ranges: vec![*range], delivered: false };
        settlements.push(shard.submit(Some(topic), Some(name), change));
    }
    let settled = join_all(settlements).await;
    let mut inner = shard.lock();
    for (topic, name, ..) in &passed {
        inner.release(topic, name);
    }
    drop(inner);
    // One that was set to another position or deleted meanwhile has nothing to settle.
    let of_no_more = |refusal: &Refusal| matches!(refusal.code, Code::StaleToken | Code::NotFound);
    settled.into_iter().filter_map(Result::err).find(|refusal| !of_no_more(refusal)).map_or(Ok(()), Err)
}

/// Writes the heads of topics that changed, and up to where they cover `messages`. In portions: very many may have changed.
async fn write_heads(shard: &Arc<Shard>) -> Result<(), Refusal> {
    let (changed, covered, before) = {
        let inner = shard.lock();
        let Some(ring) = &inner.ring else { return Ok(()) };
        let changed: Vec<(Name, Head)> = inner.heads.iter().map(|(name, head)| (name.clone(), *head)).collect();
        (changed, ring.covered(), inner.fold.covered())
    };
    let mut changed = changed.into_iter().peekable();
    loop {
        let mut heads = next_portion(&mut changed);
        let is_last = changed.peek().is_none();
        {
            let mut inner = shard.lock();
            heads.retain(|(name, _)| !drop_if_written(&mut inner, name));
        }
        // Only the last portion covers everything read until the first one.
        let covered = if is_last { covered } else { before };
        if !heads.is_empty() || covered.offset > before.offset {
            let names: Vec<Name> = heads.iter().map(|(name, _)| name.clone()).collect();
            let change = Change::Heads { heads, covered: covered.offset, last_record: covered.last_record };
            shard.submit(None, None, change).await?;
            let mut inner = shard.lock();
            for name in names {
                drop_if_written(&mut inner, &name);
            }
        }
        if is_last {
            return Ok(());
        }
    }
}

/// As many heads as one command has.
fn next_portion(heads: &mut Peekable<IntoIter<(Name, Head)>>) -> Vec<(Name, Head)> {
    let (mut portion, mut bytes) = (Vec::new(), 0);
    while portion.len() < MAX_HEADS
        && let Some(head) = heads.next_if(|(name, _)| bytes + name.as_str().len() <= MAX_NAMES)
    {
        bytes += head.0.as_str().len();
        portion.push(head);
    }
    portion
}

/// Forgets a head that the fold has, or of a topic that is no more; whether it did.
fn drop_if_written(inner: &mut Inner, name: &Name) -> bool {
    let Some(head) = inner.heads.get(name) else { return true };
    let written = inner.fold.topic(name).is_none_or(|topic| topic.head.offset >= head.offset);
    if written {
        inner.heads.remove(name);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record takes them, however long the names are.
    #[test]
    fn heads_are_written_in_portions() {
        let sizes = |bytes: usize| {
            let name = |number: usize| Name::parse(&format!("{number:0bytes$}")).unwrap();
            let heads: Vec<_> = (0..12_000).map(|number| (name(number), Head::default())).collect();
            let mut heads = heads.into_iter().peekable();
            let mut sizes = Vec::new();
            while heads.peek().is_some() {
                sizes.push(next_portion(&mut heads).len());
            }
            sizes
        };
        assert_eq!(sizes(5), [5_000, 5_000, 2_000]);
        let long = sizes(127);
        assert_eq!((long[0], long.iter().sum::<usize>()), (MAX_NAMES / 127, 12_000));
    }

    #[test]
    fn the_head_of_a_topic_that_is_no_more_is_forgotten() {
        let shard = Shard::new(0, false);
        let mut inner = shard.lock();
        let name = Name::parse("t").unwrap();
        inner.heads.insert(name.clone(), Head { offset: 7, ordinal: 1, newest_ms: 0 });
        assert!(drop_if_written(&mut inner, &name) && inner.heads.is_empty());
    }
}
