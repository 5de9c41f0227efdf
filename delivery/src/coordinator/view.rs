//! Topics and subscriptions as the API shows them.

use millrace_contracts::topics::{Name, SubscriptionState, SubscriptionView, TopicId, TopicView};
use millrace_contracts::{Code, Refusal};

use super::fold::{Subscription, Topic};
use super::shard::Inner;
use crate::push::Endpoint;

pub(super) fn etag(created: u64, version: u64) -> String {
    format!("\"{created}-{version}\"")
}

/// The version that an `If-Match` requires; `None` if it requires none.
pub(super) fn required(if_match: Option<&str>, created: u64, version: u64) -> Result<Option<u64>, Refusal> {
    let Some(if_match) = if_match else { return Ok(None) };
    let current = etag(created, version);
    let matches = |tag: &str| tag == "*" || tag == current;
    if if_match.split(',').map(str::trim).any(matches) {
        return Ok((if_match.trim() != "*").then_some(version));
    }
    Err(Refusal::new(Code::PreconditionFailed, format!("the ETag is {current} now")).field("If-Match"))
}

pub(super) fn topic(inner: &Inner, partition: u32, name: &Name, topic: &Topic) -> TopicView {
    let head = inner.head(name);
    TopicView {
        name: name.clone(),
        id: TopicId { partition, offset: topic.meta.created },
        owner: topic.meta.owner.clone(),
        created_ms: topic.meta.created_ms,
        settings: topic.meta.settings.clone(),
        grants: topic.meta.grants.clone(),
        messages: head.ordinal,
        newest_ms: (head.ordinal > 0).then_some(head.newest_ms),
        subscriptions: topic.subscriptions.len() as u64,
        etag: etag(topic.meta.created, topic.meta.version),
    }
}

pub(super) fn subscription(
    inner: &Inner,
    topic_name: &Name,
    topic: &Topic,
    name: &Name,
    found: &Subscription,
    now_ms: i64,
) -> SubscriptionView {
    let head = inner.head(topic_name);
    let cursor = &found.cursor;
    let in_retry = found.retries.len() as u64;
    let reading = inner.readings.get(&(topic_name.clone(), name.clone()));
    let reading = reading.filter(|reading| reading.of == (found.meta.created, cursor.epoch));
    let settled = cursor.settled_ordinals();
    let backlog = head.ordinal.saturating_sub(settled) + in_retry;
    // The oldest message that is not settled, if it is at hand.
    let chunk = reading.and_then(|reading| reading.chunk.as_ref());
    let behind = chunk.into_iter().flat_map(|chunk| chunk.messages.iter());
    let ring = inner.ring.iter().flat_map(|ring| ring.after(topic_name, cursor.floor));
    let fresh = behind.chain(ring).find(|stored| stored.offset > cursor.floor && !cursor.covers(stored.offset));
    let oldest = fresh.map(|stored| stored.published_ms).into_iter().chain(found.retries.oldest_ms()).min();
    let oldest_unacked_ms = oldest.filter(|_| backlog > 0);
    let retention_ms = i64::try_from(topic.meta.settings.retention_ms).unwrap_or(i64::MAX);
    let left = |oldest: i64| u64::try_from(oldest.saturating_add(retention_ms) - now_ms).unwrap_or_default();
    let endpoint = inner.push.endpoint(topic_name, name);
    let due = found.retries.first_ms();
    // While the endpoint is held back, nothing is sent to it.
    let next_attempt_ms = match endpoint.and_then(|endpoint| endpoint.held_until(now_ms)) {
        Some(held) if backlog > 0 => Some(due.unwrap_or(held).max(held)),
        _ => due,
    };
    SubscriptionView {
        name: name.clone(),
        topic: topic_name.clone(),
        owner: found.meta.owner.clone(),
        settings: found.meta.settings.clone(),
        state: found.meta.suspended.clone().map_or(SubscriptionState::Active, SubscriptionState::Suspended),
        epoch: cursor.epoch,
        floor: cursor.floor,
        floor_ordinal: cursor.floor_ordinal,
        settled,
        backlog,
        oldest_unacked_ms,
        in_retry,
        leased: reading.map_or(0, |reading| reading.leases.len() as u64),
        last_error: endpoint
            .and_then(Endpoint::last_error)
            .or_else(|| found.retries.values().filter_map(|retry| retry.last).map(|last| last.error).next()),
        next_attempt_ms,
        retention_left_ms: oldest_unacked_ms.map(left),
        recent_attempts: endpoint.and_then(Endpoint::recent),
        etag: etag(found.meta.created, found.meta.version),
    }
}
