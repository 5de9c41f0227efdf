//! Handing out messages: plain, under leases, and with a wait for the next one.

use std::sync::Arc;
use std::time::Duration;

use millrace_contracts::topics::{
    AckToken, Delivery, Name, Principal, Pull, SettledRange, SubscriptionSettings, TopicId, TopicSettings,
};
use millrace_contracts::{Code, Refusal, Topic};
use tokio::time::{Instant, sleep_until, timeout};

use super::backlog::{ChunkFrom, read_chunk, read_one};
use super::polls::Poll;
use super::shard::{Chunk, InForce, Inner, Shard};
use super::takeover::not_in_force;
use super::{Shared, fold, rights};
use crate::lease::{Lease, Leases};
use crate::ring::Stored;
use crate::walk::{Candidate, Point, Rules, Walk};

/// How long an empty answer may take to make sure that it is one.
const END_WAIT: Duration = Duration::from_secs(5);

/// Messages of a subscription in retry; past it nothing further is handed out until some are settled.
const MAX_IN_RETRY: usize = 10_000;

/// What one look at a subscription comes to.
pub(super) enum Look {
    Found(Vec<Delivery>),
    /// Messages from behind the ring are needed first.
    NeedChunk(ChunkFrom),
    /// The message of a retry is not in memory.
    NeedRetry(i64),
    /// Nothing now; worth another look at this time, ms since the epoch.
    Nothing(Option<i64>),
}

/// Hands out messages.
pub(super) async fn pull(
    shared: &Arc<Shared>,
    shard: &Arc<Shard>,
    topic: &Name,
    principal: &Principal,
    pull: &Pull,
) -> Result<Vec<Delivery>, Refusal> {
    let found = find(shared, shard, topic, principal, pull).await;
    shard.lock().release(topic, &pull.subscription);
    found
}

async fn find(
    shared: &Arc<Shared>,
    shard: &Arc<Shard>,
    topic: &Name,
    principal: &Principal,
    pull: &Pull,
) -> Result<Vec<Delivery>, Refusal> {
    let deadline = Instant::now() + Duration::from_millis(pull.wait_ms);
    let mut permit = None;
    let mut at_end = false;
    let mut retried: Option<Arc<Stored>> = None;
    loop {
        let poll: Option<Poll<'_>>;
        let notified;
        let topic_id;
        let look = {
            let mut inner = shard.lock();
            if !inner.serves() {
                return Err(not_in_force());
            }
            let (found, subscription) = rights::subscription(&inner, topic, &pull.subscription, principal)?;
            topic_id = found.meta.created;
            if subscription.meta.settings.push.is_some() {
                return Err(Refusal::new(Code::WrongMode, "the subscription is pushed to its endpoint"));
            }
            if let Some(reason) = &subscription.meta.suspended {
                return Err(Refusal::new(Code::Suspended, format!("the subscription is suspended: {reason}")));
            }
            let now_ms = shared.clock.now_ms();
            let look = look(shared, &mut inner, shard.partition, topic, pull, now_ms, retried.take().as_ref())?;
            let waits = at_end && matches!(look, Look::Nothing(_)) && Instant::now() < deadline;
            poll = waits.then(|| Poll::join(&mut inner.polls, shard, topic, &pull.subscription));
            // Under the lock, so that nothing moves in between.
            notified = poll.as_ref().map(|poll| poll.moved.notified());
            look
        };
        match look {
            Look::Found(deliveries) => return Ok(deliveries),
            Look::NeedChunk(from) => {
                let chunk = read_chunk(shared, shard.partition, topic.clone(), topic_id, from).await?;
                shard.lock().keep_chunk(topic, &pull.subscription, chunk);
            }
            Look::NeedRetry(offset) => {
                retried = read_one(shared, shard.partition, topic, topic_id, offset).await?;
                if retried.is_none() {
                    // The log dropped it; housekeeping settles what is past the retention.
                    return Ok(Vec::new());
                }
            }
            Look::Nothing(_) if !at_end => {
                reach_end(shared, shard).await?;
                at_end = true;
            }
            Look::Nothing(again_ms) => {
                let Some(notified) = notified else { return Ok(Vec::new()) };
                if permit.is_none() {
                    permit = shared.polls.clone().try_acquire_owned().ok();
                    if permit.is_none() {
                        return Err(Refusal::new(Code::Overloaded, "too many requests wait for messages"));
                    }
                }
                let now_ms = shared.clock.now_ms();
                let pause =
                    again_ms.map(|at| Duration::from_millis(u64::try_from(at - now_ms).unwrap_or_default().max(1)));
                let until = pause.map_or(deadline, |pause| deadline.min(Instant::now() + pause));
                tokio::select! {
                    () = notified => {}
                    () = sleep_until(until) => {}
                }
            }
        }
    }
}

/// Waits until the ring has reached the log's end as it is now, so that a publish that was answered is seen.
pub(super) async fn reach_end(shared: &Arc<Shared>, shard: &Arc<Shard>) -> Result<u64, Refusal> {
    let end = shared.log.end(Topic::MESSAGES, shard.partition).await;
    let end = end.map_err(|error| Refusal::new(Code::Unavailable, error.to_string()))?;
    let reached = async {
        loop {
            let moved = shard.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            match shard.lock().ring.as_ref().map(|ring| ring.next().cast_unsigned() >= end) {
                None => return Err(not_in_force()),
                Some(true) => return Ok(end),
                Some(false) => {}
            }
            moved.await;
        }
    };
    let behind =
        |_| Refusal::new(Code::Unavailable, "the newest messages are not read yet").retry_after(Duration::from_secs(1));
    timeout(END_WAIT, reached).await.map_err(behind)?
}

/// The chunk from a point to the ring's begin; `last` is the chunk before, if there was one.
fn next_chunk(last: Option<&Chunk>, point: Point, until: i64) -> ChunkFrom {
    let offset = point.at + 1;
    let before = last.filter(|chunk| chunk.until == offset);
    ChunkFrom {
        offset,
        ordinal: point.ordinal,
        until,
        in_force: before.map_or(InForce::Unread, |chunk| chunk.in_force),
    }
}

/// One look, under the lock.
pub(super) fn look(
    shared: &Shared,
    inner: &mut Inner,
    partition: u32,
    topic: &Name,
    pull: &Pull,
    now_ms: i64,
    retried: Option<&Arc<Stored>>,
) -> Result<Look, Refusal> {
    let name = &pull.subscription;
    if let Some(reading) = inner.reading(topic, name) {
        reading.expire(now_ms);
    }
    let head = inner.head(topic);
    let Some(found) = inner.fold.topic(topic) else { return Err(not_in_force()) };
    let Some(subscription) = found.subscription(name) else { return Err(not_in_force()) };
    let of = (subscription.meta.created, subscription.cursor.epoch);
    let Some(reading) = inner.readings.get(&(topic.clone(), name.clone())) else { return Err(not_in_force()) };
    let Some(ring) = &inner.ring else { return Err(not_in_force()) };
    let settings = &subscription.meta.settings;
    let lease_ms = pull.lease_ms.or(settings.ack_deadline_ms);
    if lease_ms.is_some() && reading.leases.len() >= shared.config.max_leases {
        return Err(Refusal::new(Code::Overloaded, "too many messages of the subscription are under a lease"));
    }
    let rules = rules(found, settings, now_ms, lease_ms.is_some());
    let mut again_ms = reading.leases.next_end();
    let mut note = |at: i64| again_ms = Some(again_ms.map_or(at, |known: i64| known.min(at)));
    // Retries first: they are older.
    let at_hand = |offset: i64| {
        let retried = || retried.filter(|stored| stored.offset == offset).cloned();
        ring.get(topic, offset).cloned().or_else(retried)
    };
    let mut candidates = match due_retries(subscription, &reading.leases, pull.max, now_ms, at_hand) {
        Ok((candidates, next_ms)) => {
            if let Some(at) = next_ms {
                note(at);
            }
            candidates
        }
        Err(offset) => return Ok(Look::NeedRetry(offset)),
    };
    let mut frontier = reading.frontier;
    let full = subscription.cursor.is_full() || subscription.retries.len() >= MAX_IN_RETRY;
    if candidates.len() < pull.max && !full && subscription.cursor.floor < head.offset {
        let floor = Point::of(&subscription.cursor);
        let from = frontier.filter(|frontier| frontier.at > floor.at).unwrap_or(floor);
        let left = pull.max - candidates.len();
        let mut walk = Walk::new(subscription, &reading.leases, rules, from, left, shared.config.max_page_bytes);
        if let Some(chunk) = reading.chunk.as_ref().filter(|chunk| (chunk.from..chunk.until).contains(&walk.wants())) {
            let first = chunk.messages.partition_point(|stored| stored.offset < walk.wants());
            for stored in &chunk.messages[first..] {
                if walk.is_done() {
                    break;
                }
                walk.consider(stored);
            }
            walk.advance(chunk.until);
        }
        let behind = walk.wants() < ring.first();
        if behind && !walk.is_done() {
            let point = walk.point();
            let (fresh, next) = walk.finish();
            frontier = Some(next);
            candidates.extend(fresh);
            if candidates.is_empty() {
                let from = next_chunk(reading.chunk.as_ref(), point, ring.first());
                if let Some(reading) = inner.readings.get_mut(&(topic.clone(), name.clone())) {
                    reading.frontier = frontier;
                }
                return Ok(Look::NeedChunk(from));
            }
        } else {
            for stored in ring.after(topic, walk.wants() - 1) {
                if walk.is_done() {
                    break;
                }
                walk.consider(stored);
            }
            if let Some(visible) = walk.visible_ms {
                note(visible);
            }
            let (fresh, next) = walk.finish();
            frontier = Some(next);
            candidates.extend(fresh);
        }
    }
    let topic_id = TopicId { partition, offset: found.meta.created };
    let with_attempts = |candidate: Candidate| {
        let offset = candidate.stored.offset;
        let retries = subscription.retries.get(&offset).map_or(0, |retry| retry.attempts);
        (candidate, 1 + retries + reading.leases.failures(offset))
    };
    let candidates: Vec<(Candidate, u32)> = candidates.into_iter().map(with_attempts).collect();
    let mut number = inner.leases;
    let Some(reading) = inner.readings.get_mut(&(topic.clone(), name.clone())) else { return Err(not_in_force()) };
    reading.frontier = frontier;
    let mut deliveries = Vec::with_capacity(candidates.len());
    for (Candidate { stored, range }, attempt) in candidates {
        let lease = lease_ms.map_or(0, |lease_ms| {
            number += 1;
            let until_ms = now_ms.saturating_add(i64::try_from(lease_ms).unwrap_or(i64::MAX));
            reading.leases.insert(stored.offset, Lease { number, until_ms, key_hash: stored.key_hash });
            number
        });
        let token = AckToken { topic: topic_id, subscription: of.0, epoch: of.1, range, lease };
        let offset = stored.offset.cast_unsigned();
        deliveries.extend(stored.message().map(|message| Delivery::new(&message, offset, token.encode(), attempt)));
    }
    inner.leases = number;
    Ok(if deliveries.is_empty() { Look::Nothing(again_ms) } else { Look::Found(deliveries) })
}

fn rules<'a>(topic: &fold::Topic, settings: &'a SubscriptionSettings, now_ms: i64, leased: bool) -> Rules<'a> {
    let ms = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    let TopicSettings { delay_ms, retention_ms, .. } = topic.meta.settings;
    Rules { settings, delay_ms: ms(delay_ms), retention_ms: ms(retention_ms), now_ms, leased }
}

/// Messages in retry that are due, at most `max`, and when the next one is; else the offset of the first one, which is not at
/// hand. The earliest come first; with order by key the oldest messages.
fn due_retries(
    subscription: &fold::Subscription,
    leases: &Leases,
    max: usize,
    now_ms: i64,
    at_hand: impl Fn(i64) -> Option<Arc<Stored>>,
) -> Result<(Vec<Candidate>, Option<i64>), i64> {
    let retries = &subscription.retries;
    let free = retries.due(now_ms).filter(|offset| !leases.holds(*offset));
    let offsets: Vec<i64> = if subscription.meta.settings.by_key() {
        let mut all: Vec<i64> = free.collect();
        all.sort_unstable();
        all.truncate(max);
        all
    } else {
        free.take(max).collect()
    };
    let mut due = Vec::with_capacity(offsets.len());
    for offset in offsets {
        match at_hand(offset) {
            Some(stored) => due.push(Candidate { stored, range: retries[&offset].range }),
            None if due.is_empty() => return Err(offset),
            // One that was read is handed out before the next one is read: a look is given one only.
            None => break,
        }
    }
    Ok((due, retries.next_ms(now_ms)))
}

/// The range that everything passed over from the floor on makes, if there is such.
pub(super) fn passed_over(frontier: Point, floor: i64, floor_ordinal: u64) -> Option<SettledRange> {
    let passed = frontier.after.0 == floor && frontier.at > floor;
    passed.then_some(SettledRange {
        after: floor,
        ordinal_after: floor_ordinal,
        offset: frontier.at,
        ordinal: frontier.ordinal,
    })
}

#[cfg(test)]
mod tests {
    use millrace_contracts::topics::Retry;

    use super::*;

    /// Otherwise two of them would be read in turns forever.
    #[test]
    fn a_retry_that_was_read_is_handed_out_before_the_next_one_is_read() {
        let mut subscription = fold::Subscription::blank();
        for offset in [1, 2, 3] {
            let range = SettledRange { after: offset - 1, offset, ordinal_after: 0, ordinal: 1 };
            let (attempts, key_hash, last, redrive, letter) = (1, None, None, None, None);
            let retry = Retry { range, attempts, next_ms: offset, first_ms: 0, key_hash, last, redrive, letter };
            subscription.retries.insert(offset, retry);
        }
        let due = |at_hand: i64| {
            let stored = |offset| {
                Arc::new(Stored { offset, ordinal: 1, published_ms: 0, key_hash: None, value: Box::default() })
            };
            let at_hand = |offset| (offset <= at_hand).then(|| stored(offset));
            let due = due_retries(&subscription, &Leases::default(), 10, 10, at_hand);
            due.map(|(due, _)| due.iter().map(|candidate| candidate.range.offset).collect::<Vec<_>>())
        };
        assert_eq!((due(0), due(1), due(3)), (Err(1), Ok(vec![1]), Ok(vec![1, 2, 3])));
    }
}
