//! Publishing through the coordinator: with an idempotency key, with a delay, and again when a delay is over.

use std::sync::Arc;
use std::time::Duration;

use millrace_contracts::topics::{Change, Delay, Message, Name, Principal, PublishAnswer, Published};
use millrace_contracts::{Code, Refusal, Topic};
use tokio::time::timeout;

use super::keyed::{Claim, content_hash};
use super::rights::{self, Right};
use super::shard::{Shard, unknown};
use super::takeover::not_in_force;
use super::{Shared, backlog};

/// Most delayed messages of a topic.
const MAX_DELAYED: usize = 1_000_000;
/// How long a publish waits for one under the same key, or until the ring has read its message.
const WAIT: Duration = Duration::from_secs(15);

/// Publishes a message.
pub(super) async fn publish(
    shared: &Arc<Shared>,
    shard: &Arc<Shard>,
    name: &Name,
    principal: &Principal,
    published: Published,
) -> Result<PublishAnswer, Refusal> {
    let Some(key) = published.idempotency_key.clone() else {
        return publish_once(shared, shard, name, principal, &published).await;
    };
    let hash = content_hash(&message(&published, 0, 0, Delay::None, None));
    let claimed = async {
        loop {
            let moved = shard.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            {
                let mut inner = shard.lock();
                rights::topic(&inner, name, principal, Right::Publish)?;
                // Until the ring has read this coordinator's opening, a key may be known that it has not met yet; and until the
                // window before it was read again.
                if inner.serves() && inner.ring_nonce == inner.nonce && inner.keyed.is_complete() {
                    match inner.keyed.claim(name, &key, hash) {
                        Claim::UnderWay => {}
                        other => return Ok(other),
                    }
                }
            }
            moved.await;
        }
    };
    match timeout(WAIT, claimed).await.map_err(|_| not_in_force())?? {
        Claim::Duplicate(first) => {
            let (offset, id, published_ms) = (first.offset, first.id, first.published_ms);
            Ok(PublishAnswer { offset, id, published_ms, duplicate: true })
        }
        Claim::Reused => {
            Err(Refusal::new(Code::KeyReused, "another message was published under this key").field("Idempotency-Key"))
        }
        Claim::Free | Claim::UnderWay => {
            let _release = Release { shard, name, key: &key };
            publish_once(shared, shard, name, principal, &published).await
        }
    }
}

/// Ends a claim whatever happens.
struct Release<'a> {
    shard: &'a Shard,
    name: &'a Name,
    key: &'a str,
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.shard.lock().keyed.release(self.name, self.key);
        self.shard.moved.notify_waiters();
    }
}

fn message(published: &Published, topic_id: u64, published_ms: i64, delay: Delay, nonce: Option<u64>) -> Message<'_> {
    Message {
        topic_id,
        published_ms,
        id: &published.id,
        delay,
        key: published.key.as_deref(),
        idempotency_key: published.idempotency_key.as_deref(),
        nonce,
        content_type: &published.content_type,
        attributes: published.attributes.iter().map(|(name, value)| (&**name, &**value)).collect(),
        body: &published.body,
    }
}

async fn publish_once(
    shared: &Arc<Shared>,
    shard: &Arc<Shard>,
    name: &Name,
    principal: &Principal,
    published: &Published,
) -> Result<PublishAnswer, Refusal> {
    let now_ms = shared.clock.now_ms();
    let due = published.deliver_at_ms.filter(|due| *due > now_ms);
    let (value, read) = {
        let mut inner = shard.lock();
        if !inner.serves() {
            return Err(not_in_force());
        }
        let topic = rights::topic(&inner, name, principal, Right::Publish)?;
        if due.is_some() && topic.delayed.len() >= MAX_DELAYED {
            let refusal = Refusal::new(Code::TooManyDelayed, "too many delayed messages of the topic wait");
            return Err(refusal.retry_after(Duration::from_mins(1)));
        }
        let delay = due.map_or(Delay::None, Delay::Until);
        let nonce = inner.nonce.filter(|_| published.idempotency_key.is_some());
        let message = message(published, topic.meta.created, now_ms, delay, nonce);
        let mut value = Vec::with_capacity(published.body.len() + 512);
        message.encode(&mut value);
        (value, inner.keyed.await_message(&published.id))
    };
    if let Err(refusal) = shared.append(Topic::MESSAGES, shard.partition, name.as_str().as_bytes(), &value).await {
        if refusal.code == Code::OutcomeUnknown && published.idempotency_key.is_some() {
            // It may still arrive; behind a new opening it does not count.
            shard.lost();
        }
        return Err(refusal);
    }
    let offset = timeout(WAIT, read).await.map_err(|_| unknown())?.map_err(|_| unknown())?;
    if let Some(due_ms) = due {
        shard.submit(Some(name), None, Change::Delay { due_ms, offset }).await?;
    }
    Ok(PublishAnswer { offset, id: published.id.clone(), published_ms: now_ms, duplicate: false })
}

/// The value of a delayed message's record; `None` if the topic or the record is no more.
pub(super) async fn read_due(
    shared: &Arc<Shared>,
    shard: &Arc<Shard>,
    name: &Name,
    offset: u64,
) -> Result<Option<Vec<u8>>, Refusal> {
    let topic_id = shard.lock().fold.topic(name).map(|topic| topic.meta.created);
    match topic_id {
        Some(topic_id) => backlog::read_delayed(shared, shard.partition, name, topic_id, offset).await,
        None => Ok(None),
    }
}

/// Appends a delayed message again, without the delay, under the same id. `value`: of its record.
pub(super) async fn end_delay(
    shared: &Arc<Shared>,
    shard: &Arc<Shard>,
    name: &Name,
    (due_ms, offset): (i64, u64),
    value: Option<Vec<u8>>,
) -> Result<(), Refusal> {
    if let Some(value) = value
        && let Ok(mut message) = Message::decode(&value)
    {
        message.delay = Delay::From(offset);
        message.published_ms = shared.clock.now_ms();
        (message.idempotency_key, message.nonce) = (None, None);
        let mut again = Vec::with_capacity(value.len());
        message.encode(&mut again);
        shared.append(Topic::MESSAGES, shard.partition, name.as_str().as_bytes(), &again).await?;
    }
    shard.submit(Some(name), None, Change::EndDelay { due_ms, offset }).await.map(drop)
}
