//! The reader of push subscriptions: leases their messages, sends each to the endpoint, and settles it or puts it into retry.
//!
//! A subscription is looked at when something of its topic moves or its timer is due; that look is a turn, one at a time
//! for each subscription. An idle subscription costs nothing.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use millrace_contracts::topics::{
    AckSelection, AttemptFailure, AttemptView, Change, Delivery, Name, Principal, Pull, PushSettings, SubscriptionMeta,
};
use millrace_contracts::{Code, Refusal};
use millrace_log::{point, sabotaged};
use tokio::sync::OwnedSemaphorePermit;

use super::Shared;
use super::backlog::{read_chunk, read_one};
use super::fold::{Subscription, Topic};
use super::pull::{Look, look};
use super::push::Opened;
use super::pushing::SubscriptionKey;
use super::serve::On;
use super::shard::{Inner, Shard};
use super::takeover::not_in_force;
use crate::push::{Attempted, Ended, Endpoint, Envelope, SLOW_MS, build};
use crate::ring::Stored;

/// How soon a subscription is looked at again after something failed here, not at the endpoint.
const AGAIN_MS: i64 = 1_000;
/// The longest sleep; also how soon a coordinator that came into force begins.
const MAX_SLEEP: Duration = Duration::from_secs(1);
/// A lease lasts longer than an attempt and its settlement, or the message would be sent twice at a time.
const LEASE_MARGIN_MS: u64 = 30_000;
/// The pause of a message that is about to be dead-lettered.
const BURIAL_MS: u64 = 600_000;
/// How soon a subscription is looked at again whose secrets cannot be opened.
const SEALED_MS: i64 = 60_000;
/// The reasons of suspensions.
const GONE: &str = "endpoint-gone";
const FAILING: &str = "endpoint-failing";

/// Pushes the messages of a partition until it is revoked.
pub(super) async fn run(shared: Arc<Shared>, shard: Arc<Shard>) {
    let ready = shard.lock().push.ready.clone();
    while !shard.is_closed() {
        let now_ms = shared.clock.now_ms();
        let (turns, next_ms) = due(&mut shard.lock(), now_ms);
        for key in turns {
            tokio::spawn(turn(shared.clone(), shard.clone(), key));
        }
        let sleep =
            next_ms.map_or(MAX_SLEEP, |at| Duration::from_millis(u64::try_from(at - now_ms).unwrap_or_default()));
        let _ = tokio::time::timeout(sleep.min(MAX_SLEEP), ready.notified()).await;
    }
}

/// The subscriptions whose turn begins now, and when the next timer is due.
fn due(inner: &mut Inner, now_ms: i64) -> (Vec<SubscriptionKey>, Option<i64>) {
    if !inner.serves() {
        return (Vec::new(), None);
    }
    let mut keys: HashSet<SubscriptionKey> = HashSet::new();
    let own = |(topic, subscription): (&Name, &Name)| (topic.clone(), subscription.clone());
    if inner.push.begun != inner.nonce {
        inner.push.begun = inner.nonce;
        keys.extend(inner.fold.push_subscriptions(None).map(own));
    }
    for topic in std::mem::take(&mut inner.push.touched) {
        keys.extend(inner.fold.push_subscriptions(Some(&topic)).map(own));
    }
    keys.extend(std::mem::take(&mut inner.push.touched_ones));
    while let Some(key) = inner.push.pop_due(now_ms) {
        keys.insert(key);
    }
    keys.retain(|key| begins(inner, key, now_ms));
    (keys.into_iter().collect(), inner.push.next_ms())
}

/// Whether a subscription's turn begins: it has something to send, and no turn is at work. One whose endpoint is held back gets a
/// timer: a message of a topic with many dead endpoints begins no turn of theirs.
fn begins(inner: &mut Inner, key: &SubscriptionKey, now_ms: i64) -> bool {
    let (topic, name) = key;
    let head = inner.head(topic);
    let found = inner.fold.topic(topic).and_then(|topic| topic.subscription(name));
    let Some(found) = found.filter(|found| found.meta.settings.push.is_some()) else {
        inner.push.remove(key);
        return false;
    };
    if found.meta.suspended.is_some() || (found.cursor.floor >= head.offset && found.retries.is_empty()) {
        return false;
    }
    let fresh = || Endpoint::new(found.retries.oldest_ms());
    let endpoint = inner.push.endpoints.entry(key.clone()).or_insert_with(fresh);
    if endpoint.busy {
        endpoint.again = true;
        return false;
    }
    if let Some(held_ms) = endpoint.held_until(now_ms) {
        inner.push.rest(key, Some(held_ms));
        return false;
    }
    endpoint.busy = true;
    true
}

/// What a step of a turn comes to.
enum Next {
    Again,
    /// Nothing more now; worth another turn at this time, ms since the epoch.
    Rest(Option<i64>),
}

async fn turn(shared: Arc<Shared>, shard: Arc<Shard>, key: SubscriptionKey) {
    let mut retried = None;
    loop {
        let next = match step(&shared, &shard, &key, &mut retried).await {
            Ok(next) => next,
            Err(refusal) => {
                tracing::debug!(topic = %key.0, subscription = %key.1, %refusal, "pushing is tried again");
                Next::Rest(Some(shared.clock.now_ms() + AGAIN_MS))
            }
        };
        let Next::Rest(at_ms) = next else { continue };
        let mut inner = shard.lock();
        let Some(endpoint) = inner.push.endpoints.get_mut(&key) else { return };
        if std::mem::take(&mut endpoint.again) && !matches!(at_ms, Some(at) if at <= shared.clock.now_ms() + AGAIN_MS) {
            continue;
        }
        endpoint.busy = false;
        inner.push.rest(&key, at_ms);
        inner.release(&key.0, &key.1);
        return;
    }
}

/// Leases what the endpoint can take, and begins to send it.
async fn step(
    shared: &Arc<Shared>,
    shard: &Arc<Shard>,
    key: &SubscriptionKey,
    retried: &mut Option<Arc<Stored>>,
) -> Result<Next, Refusal> {
    let (topic, name) = key;
    let now_ms = shared.clock.now_ms();
    let Some(room) = room(&shard.lock(), key, now_ms)? else { return Ok(Next::Rest(None)) };
    if room.given_up {
        let change = Change::Suspend { reason: FAILING.to_owned(), active_since: Some(room.active_since) };
        shard.submit(Some(topic), Some(name), change).await?;
        return Ok(Next::Rest(None));
    }
    let capacity = match room.capacity {
        Ok(capacity) => capacity,
        Err(at_ms) => return Ok(Next::Rest(at_ms)),
    };
    let slots = slots(shared, room.troubled, capacity).await?;
    let (looked, topic_id, push) = {
        let mut inner = shard.lock();
        let Some((topic_meta, subscription, settings)) = pushed(&inner, key)? else { return Ok(Next::Rest(None)) };
        let now_ms = shared.clock.now_ms();
        let Some(push) = Push::new(shared, shard, key, &subscription.meta, settings, now_ms) else {
            tracing::error!(%topic, subscription = %name, "a secret cannot be opened: its key is not in delivery.secrets_file");
            return Ok(Next::Rest(Some(now_ms + SEALED_MS)));
        };
        let (topic_id, per_minute) = (topic_meta.meta.created, settings.per_minute());
        let lease_ms = Some(settings.timeout_ms + LEASE_MARGIN_MS);
        let pull = Pull { subscription: name.clone(), max: slots.len(), wait_ms: 0, lease_ms };
        let looked = look(shared, &mut inner, shard.partition, topic, &pull, now_ms, retried.take().as_ref())?;
        if let (Look::Found(deliveries), Some(endpoint)) = (&looked, inner.push.endpoints.get_mut(key)) {
            for _ in deliveries {
                endpoint.begin(now_ms, per_minute);
            }
        }
        (looked, topic_id, push)
    };
    match looked {
        Look::Found(deliveries) => {
            let push = Arc::new(push);
            for (delivery, slot) in deliveries.into_iter().zip(slots) {
                tokio::spawn(push.clone().send(delivery, slot));
            }
            Ok(Next::Again)
        }
        Look::NeedChunk(from) => {
            drop(slots);
            let chunk = read_chunk(shared, shard.partition, topic.clone(), topic_id, from).await?;
            shard.lock().keep_chunk(topic, name, chunk);
            Ok(Next::Again)
        }
        Look::NeedRetry(offset) => {
            drop(slots);
            *retried = read_one(shared, shard.partition, topic, topic_id, offset).await?;
            // The log dropped it: housekeeping settles what is past the retention.
            Ok(if retried.is_some() { Next::Again } else { Next::Rest(Some(now_ms + 60 * AGAIN_MS)) })
        }
        Look::Nothing(at_ms) => Ok(Next::Rest(at_ms)),
    }
}

/// A subscription that is pushed now, with its topic and its settings of push; `None` if nothing is pushed to it.
fn pushed<'a>(
    inner: &'a Inner,
    (topic, name): &SubscriptionKey,
) -> Result<Option<(&'a Topic, &'a Subscription, &'a PushSettings)>, Refusal> {
    if !inner.serves() {
        return Err(not_in_force());
    }
    let Some(topic) = inner.fold.topic(topic) else { return Ok(None) };
    let active = topic.subscription(name).filter(|found| found.meta.suspended.is_none());
    Ok(active.and_then(|found| Some((topic, found, found.meta.settings.push.as_ref()?))))
}

/// How many requests an endpoint can take.
struct Room {
    capacity: Result<u32, Option<i64>>,
    troubled: bool,
    given_up: bool,
    active_since: u64,
}

fn room(inner: &Inner, key: &SubscriptionKey, now_ms: i64) -> Result<Option<Room>, Refusal> {
    let pushed = pushed(inner, key)?;
    let Some(((_, subscription, settings), endpoint)) = pushed.zip(inner.push.endpoints.get(key)) else {
        return Ok(None);
    };
    // Of one key one message at a time: the next look sees the lease of the one before.
    let most = if subscription.meta.settings.by_key() { 1 } else { u32::MAX };
    Ok(Some(Room {
        capacity: endpoint.capacity(now_ms, settings.per_minute()).map(|capacity| capacity.min(most)),
        troubled: endpoint.is_troubled(),
        given_up: endpoint.is_given_up(now_ms),
        active_since: subscription.meta.active_since,
    }))
}

/// A place among the requests in flight of this process, and one of the bulkhead.
struct Slot {
    _place: OwnedSemaphorePermit,
    _troubled: Option<OwnedSemaphorePermit>,
}

/// Waits for a place, and takes up to `most` if there are. Guard: endpoints in trouble share the bulkhead. Disabled, they do not.
async fn slots(shared: &Shared, troubled: bool, most: u32) -> Result<Vec<Slot>, Refusal> {
    let troubled = troubled && !sabotaged("sabotage::ignore-bulkhead");
    let closed = |_| Refusal::new(Code::ShuttingDown, "the process is ending");
    let bulkhead = || shared.troubled.clone();
    let mut slots = Vec::new();
    let first = if troubled { Some(bulkhead().acquire_owned().await.map_err(closed)?) } else { None };
    slots.push(Slot { _place: shared.in_flight.clone().acquire_owned().await.map_err(closed)?, _troubled: first });
    while slots.len() < most as usize {
        let more = if troubled { bulkhead().try_acquire_owned().map(Some) } else { Ok(None) };
        let (Ok(more), Ok(place)) = (more, shared.in_flight.clone().try_acquire_owned()) else { break };
        slots.push(Slot { _place: place, _troubled: more });
    }
    Ok(slots)
}

/// The messages of one turn on their way.
struct Push {
    shared: Arc<Shared>,
    shard: Arc<Shard>,
    key: SubscriptionKey,
    settings: PushSettings,
    opened: Opened,
    /// After so many attempts a message is dead-lettered.
    max_attempts: u32,
    /// What was resumed meanwhile is not suspended by an answer from before.
    active_since: u64,
}

impl Push {
    /// `None` if a secret cannot be opened.
    fn new(
        shared: &Arc<Shared>,
        shard: &Arc<Shard>,
        key: &SubscriptionKey,
        meta: &SubscriptionMeta,
        settings: &PushSettings,
        now_ms: i64,
    ) -> Option<Self> {
        let opened = Opened::new(shared, (&key.0, &key.1), meta, settings, now_ms)?;
        Some(Self {
            shared: shared.clone(),
            shard: shard.clone(),
            key: key.clone(),
            settings: settings.clone(),
            opened,
            max_attempts: meta.settings.max_attempts.unwrap_or(u32::MAX),
            active_since: meta.active_since,
        })
    }

    async fn send(self: Arc<Self>, delivery: Delivery, slot: Slot) {
        let Self { shared, settings, .. } = &*self;
        let (topic, subscription) = &self.key;
        let at_ms = shared.clock.now_ms();
        let envelope = Envelope { topic, subscription, mode: settings.body, kind: settings.signature, now_ms: at_ms };
        let (headers, body) = build(envelope, &delivery, &self.opened.headers, &self.opened.keys);
        self.settle_early(&delivery).await;
        shared.push_metrics.in_flight.increment(1);
        let attempted =
            shared.sender.send(&settings.url, Duration::from_millis(settings.timeout_ms), headers, body).await;
        shared.push_metrics.in_flight.decrement(1);
        drop(slot);
        self.finish(&delivery, at_ms, attempted).await;
    }

    /// Guard: a message is settled once its endpoint has taken it. Disabled, it is settled before it is sent.
    async fn settle_early(&self, delivery: &Delivery) {
        if sabotaged("sabotage::settle-before-answer") {
            let (topic, name) = &self.key;
            let principal = Principal { name: String::new(), admin: true };
            let on = On { shared: &self.shared, shard: &self.shard, topic, principal: &principal };
            let _ = on.settle(name, AckSelection::Tokens(vec![delivery.token.clone()]), true).await;
        }
    }

    /// Settles the message, or puts it into retry. What fails here ends with the lease: the message is sent again.
    async fn finish(&self, delivery: &Delivery, at_ms: i64, attempted: Attempted) {
        let (topic, name) = &self.key;
        let now_ms = self.shared.clock.now_ms();
        let failure = attempted.error.map(|error| AttemptFailure { at_ms, error, status: attempted.status });
        if failure.is_none() {
            point("delivery::push::answered");
        }
        let permanent = attempted.status.is_some_and(|status| self.settings.permanent_statuses.contains(&status));
        let latency_ms = u64::try_from(attempted.latency.as_millis()).unwrap_or(u64::MAX);
        self.shared.push_metrics.attempted(attempted.error);
        self.shared.push_metrics.seconds.record(attempted.latency);
        let pause_ms = jittered(self.settings.schedule.pause_ms(delivery.attempt));
        let rest_ms = attempted.rest.map(|rest| u64::try_from(rest.as_millis()).unwrap_or(u64::MAX));
        let pause_ms = pause_ms.max(rest_ms.unwrap_or(0));
        {
            let mut inner = self.shard.lock();
            if let Some(endpoint) = inner.push.endpoints.get_mut(&self.key) {
                let view = AttemptView {
                    offset: delivery.offset,
                    at_ms,
                    attempt: delivery.attempt,
                    status: attempted.status,
                    latency_ms,
                    error: attempted.error,
                    answer: attempted.answer.filter(|_| failure.is_some()),
                };
                endpoint.end(Ended { now_ms, slow: latency_ms > SLOW_MS, failure, permanent }, view);
                if let Some(rest_ms) = rest_ms {
                    endpoint.pause(now_ms.saturating_add(rest_ms.cast_signed()));
                }
            }
        }
        let principal = Principal { name: String::new(), admin: true };
        let on = On { shared: &self.shared, shard: &self.shard, topic, principal: &principal };
        let tokens = vec![delivery.token.clone()];
        let settled = match failure {
            None => on.settle(name, AckSelection::Tokens(tokens), true).await,
            Some(failure) => {
                let is_last = permanent || delivery.attempt >= self.max_attempts;
                let pause_ms = if is_last { BURIAL_MS } else { pause_ms };
                on.retry(name, &tokens, Some(pause_ms), Some(failure)).await
            }
        };
        if let Err(refusal) = settled {
            tracing::debug!(%topic, subscription = %name, offset = delivery.offset, %refusal, "an attempt is not recorded");
        }
        // Gone (RFC 9110): the endpoint wants no more of this.
        if attempted.status == Some(410) && !permanent {
            let change = Change::Suspend { reason: GONE.to_owned(), active_since: Some(self.active_since) };
            let _ = self.shard.submit(Some(topic), Some(name), change).await;
        }
        self.shard.lock().push.touch_one(self.key.clone());
    }
}

/// A pause with 20 % of jitter either way, so that what failed together does not come back together.
fn jittered(pause_ms: u64) -> u64 {
    let fifth = pause_ms / 5;
    pause_ms - fifth + fastrand::u64(..=2 * fifth)
}
