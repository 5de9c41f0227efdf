//! Handing out messages: plain, under leases, and with a wait for the next one.

use std::sync::Arc;
use std::time::Duration;

use millrace_contracts::topics::{AckToken, Delivery, Name, Principal, Pull, SettledRange, TopicId};
use millrace_contracts::{Code, Refusal, Topic};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use super::messages::{ChunkFrom, read_chunk, read_one};
use super::shard::{Inner, Shard};
use super::takeover::not_in_force;
use super::{Shared, rights};
use crate::lease::Lease;
use crate::ring::Stored;
use crate::walk::{Candidate, Point, Rules, Walk};

/// How long an empty answer may take to make sure that it is one.
const END_WAIT: Duration = Duration::from_secs(5);

/// What one look at a subscription comes to.
enum Look {
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
    let deadline = Instant::now() + Duration::from_millis(pull.wait_ms);
    let mut permit = None;
    let mut at_end = false;
    let mut retried: Option<Arc<Stored>> = None;
    loop {
        let poll: Arc<Notify>;
        let notified;
        let topic_id;
        let look = {
            let mut inner = shard.lock();
            if !inner.serves() {
                return Err(not_in_force());
            }
            let (found, subscription) = rights::subscription(&inner, topic, &pull.subscription, principal)?;
            topic_id = found.meta.created;
            if let Some(reason) = &subscription.meta.suspended {
                return Err(Refusal::new(Code::Suspended, format!("the subscription is suspended: {reason}")));
            }
            poll = inner.polls.entry(topic.clone()).or_default().clone();
            notified = poll.notified();
            let now_ms = shared.clock.now_ms();
            look(shared, &mut inner, shard.partition, topic, pull, now_ms, retried.take())?
        };
        tokio::pin!(notified);
        match look {
            Look::Found(deliveries) => return Ok(deliveries),
            Look::NeedChunk(from) => {
                let chunk = read_chunk(shared, shard.partition, topic.clone(), topic_id, from).await?;
                let mut inner = shard.lock();
                if let Some(reading) = inner.reading(topic, &pull.subscription) {
                    reading.chunk = Some(chunk);
                }
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
            Look::Nothing(_) if Instant::now() >= deadline => return Ok(Vec::new()),
            Look::Nothing(again_ms) => {
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
                    () = &mut notified => {}
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

/// One look, under the lock.
fn look(
    shared: &Shared,
    inner: &mut Inner,
    partition: u32,
    topic: &Name,
    pull: &Pull,
    now_ms: i64,
    retried: Option<Arc<Stored>>,
) -> Result<Look, Refusal> {
    let name = &pull.subscription;
    expire(inner, topic, name, now_ms);
    let head = inner.head(topic);
    let Some(found) = inner.fold.topic(topic) else { return Err(not_in_force()) };
    let Some(subscription) = found.subscriptions.get(name) else { return Err(not_in_force()) };
    let of = (subscription.meta.created, subscription.cursor.epoch);
    let Some(reading) = inner.readings.get(&(topic.clone(), name.clone())) else { return Err(not_in_force()) };
    let Some(ring) = &inner.ring else { return Err(not_in_force()) };
    let settings = &subscription.meta.settings;
    let lease_ms = pull.lease_ms.or(settings.ack_deadline_ms);
    if lease_ms.is_some() && reading.leases.len() >= shared.config.max_leases {
        return Err(Refusal::new(Code::Overloaded, "too many messages of the subscription are under a lease"));
    }
    let rules = Rules {
        settings,
        delay_ms: i64::try_from(found.meta.settings.delay_ms).unwrap_or(i64::MAX),
        retention_ms: i64::try_from(found.meta.settings.retention_ms).unwrap_or(i64::MAX),
        now_ms,
        leased: lease_ms.is_some(),
    };
    let mut candidates: Vec<Candidate> = Vec::new();
    let mut again_ms = reading.leases.next_end();
    let mut note = |at: i64| again_ms = Some(again_ms.map_or(at, |known: i64| known.min(at)));
    // Retries first: they are older.
    for (offset, retry) in &subscription.retries {
        if retry.next_ms > now_ms {
            note(retry.next_ms);
        } else if candidates.len() < pull.max && !reading.leases.holds(*offset) {
            let at_hand = ring.get(topic, *offset).cloned();
            let Some(stored) = at_hand.or_else(|| retried.clone().filter(|stored| stored.offset == *offset)) else {
                return Ok(Look::NeedRetry(*offset));
            };
            candidates.push(Candidate { stored, range: retry.range });
        }
    }
    let mut frontier = reading.frontier;
    if candidates.len() < pull.max && !subscription.cursor.is_full() && subscription.cursor.floor < head.offset {
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
                let from = ChunkFrom { offset: point.at + 1, ordinal: point.ordinal, until: ring.first() };
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
    let attempts: Vec<u32> = candidates
        .iter()
        .map(|candidate| {
            let offset = candidate.stored.offset;
            let retries = subscription.retries.get(&offset).map_or(0, |retry| retry.attempts);
            1 + retries + reading.leases.failures(offset)
        })
        .collect();
    let mut deliveries = Vec::with_capacity(candidates.len());
    let first_lease = inner.leases + 1;
    if lease_ms.is_some() {
        inner.leases += candidates.len() as u64;
    }
    let Some(reading) = inner.readings.get_mut(&(topic.clone(), name.clone())) else { return Err(not_in_force()) };
    reading.frontier = frontier;
    for ((candidate, attempt), number) in candidates.into_iter().zip(attempts).zip(first_lease..) {
        let Candidate { stored, range } = candidate;
        let lease = match lease_ms {
            None => 0,
            Some(lease_ms) => {
                let until_ms = now_ms.saturating_add(i64::try_from(lease_ms).unwrap_or(i64::MAX));
                reading.leases.insert(stored.offset, Lease { number, until_ms, key_hash: stored.key_hash });
                number
            }
        };
        let token = AckToken { topic: topic_id, subscription: of.0, epoch: of.1, range, lease };
        deliveries.extend(delivery(&stored, &token, attempt));
    }
    Ok(if deliveries.is_empty() { Look::Nothing(again_ms) } else { Look::Found(deliveries) })
}

/// Ends leases that are over: their messages can be handed out again.
fn expire(inner: &mut Inner, topic: &Name, subscription: &Name, now_ms: i64) {
    if let Some(reading) = inner.reading(topic, subscription)
        && !reading.leases.expire(now_ms).is_empty()
    {
        reading.frontier = None;
    }
}

fn delivery(stored: &Stored, token: &AckToken, attempt: u32) -> Option<Delivery> {
    let message = stored.message()?;
    Some(Delivery {
        id: message.id.to_owned(),
        offset: stored.offset.cast_unsigned(),
        published_ms: message.published_ms,
        token: token.encode(),
        attempt,
        key: message.key.map(str::to_owned),
        content_type: message.content_type.to_owned(),
        attributes: message.attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body: message.body.to_vec(),
    })
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
