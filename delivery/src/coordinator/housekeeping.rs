//! What a coordinator does by itself: heads and passed-over messages into the log, delays that are due, dead letters.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millrace_contracts::topics::{Change, DeadLetter, Head, Name, Retry, SettledRange};
use millrace_contracts::{Code, Refusal, Topic};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::fold::Subscription;
use super::shard::Shard;
use super::{Shared, backlog, publish, pull};

const TICK: Duration = Duration::from_millis(200);
/// Ticks between two writes of heads: 10 s.
const HEADS_EVERY: u64 = 50;
/// Most heads of one command, most delayed messages and dead letters of one tick.
const MAX_HEADS: usize = 5_000;
const MAX_DUE: usize = 1_000;
const MAX_LETTERS: usize = 100;

/// Runs until `stop`.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for tick in 1_u64.. {
        if stop.run_until_cancelled(ticks.tick()).await.is_none() {
            return;
        }
        for shard in shared.all() {
            if !shard.lock().serves() {
                continue;
            }
            let worked = work(&shared, &shard, tick.is_multiple_of(HEADS_EVERY)).await;
            if let Err(refusal) = worked {
                tracing::debug!(partition = shard.partition, %refusal, "housekeeping is tried again");
            }
        }
    }
}

/// One round of a partition. `heads`: it is time for what is done every now and then.
pub(super) async fn work(shared: &Arc<Shared>, shard: &Arc<Shard>, heads: bool) -> Result<(), Refusal> {
    end_delays(shared, shard).await?;
    // Every now and then: on Kafka it is a request.
    let start = if heads && shard.lock().fold.in_retry().next().is_some() {
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
    for (name, due_ms, offset) in due {
        publish::end_delay(shared, shard, &name, (due_ms, offset)).await?;
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
    for (topic, subscription) in inner.fold.in_retry() {
        let Some(own) = inner.fold.topic(topic) else { continue };
        let Some(held) = own.subscriptions.get(subscription) else { continue };
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
    for lost in lost(shared, shard, start) {
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
        shard.submit(Some(&topic), Some(&subscription), change).await?;
    }
    Ok(())
}

/// Makes durable what filters passed over, so that it is not read again.
async fn pass_over(shard: &Arc<Shard>) -> Result<(), Refusal> {
    let passed: Vec<(Name, Name, u64, SettledRange)> = {
        let inner = shard.lock();
        let reading = |((topic, name), reading): (&(Name, Name), &super::shard::Reading)| {
            let cursor = &inner.fold.topic(topic)?.subscriptions.get(name)?.cursor;
            let frontier = reading.frontier.filter(|_| reading.of.1 == cursor.epoch)?;
            let range = pull::passed_over(frontier, cursor.floor, cursor.floor_ordinal)?;
            Some((topic.clone(), name.clone(), cursor.epoch, range))
        };
        inner.readings.iter().filter_map(reading).take(MAX_DUE).collect()
    };
    for (topic, name, epoch, range) in passed {
        shard
            .submit(Some(&topic), Some(&name), Change::Settle { epoch, ranges: vec![range], delivered: false })
            .await?;
    }
    Ok(())
}

/// Writes the heads of topics that changed, and up to where they cover `messages`.
async fn write_heads(shard: &Arc<Shard>) -> Result<(), Refusal> {
    loop {
        let (heads, covered) = {
            let inner = shard.lock();
            let Some(ring) = &inner.ring else { return Ok(()) };
            let newer = |(name, head): (&Name, &Head)| {
                inner
                    .fold
                    .topic(name)
                    .is_some_and(|topic| topic.head.offset < head.offset)
                    .then(|| (name.clone(), *head))
            };
            let heads: Vec<(Name, Head)> = inner.heads.iter().filter_map(newer).take(MAX_HEADS).collect();
            // Only the last portion covers everything read so far.
            let covered = if heads.len() < MAX_HEADS { ring.covered() } else { inner.fold.covered() };
            (heads, covered)
        };
        let last = heads.len() < MAX_HEADS;
        if heads.is_empty() && covered.offset <= shard.lock().fold.covered().offset {
            return Ok(());
        }
        let change = Change::Heads { heads, covered: covered.offset, last_record: covered.last_record };
        shard.submit(None, None, change).await?;
        let mut inner = shard.lock();
        let settled: Vec<Name> = inner
            .heads
            .iter()
            .filter(|(name, head)| inner.fold.topic(name).is_none_or(|topic| topic.head.offset >= head.offset))
            .map(|(name, _)| name.clone())
            .collect();
        for name in settled {
            inner.heads.remove(&name);
        }
        if last {
            return Ok(());
        }
    }
}
