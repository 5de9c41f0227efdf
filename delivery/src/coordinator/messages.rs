//! Reads `messages` for the rings of all partitions that this process coordinates.

use std::sync::Arc;
use std::time::Duration;

use millrace_base::Backoff;
use millrace_contracts::Topic;
use millrace_contracts::topics::{Head, Message, Name, TopicOwner};
use millrace_log::{Batch, Limits, LogError, PollOutcome};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::shard::{Inner, Shard};
use crate::ring::Stored;

/// One poll; also how soon a partition that was taken over is read.
const WAIT: Duration = Duration::from_millis(50);
const LIMITS: Limits = Limits { records: 8_192, bytes: 8 << 20, wait: WAIT };

/// Reads on a thread of its own until `stop`.
pub(super) fn read_rings(shared: &Arc<Shared>, stop: &CancellationToken) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    while !stop.is_cancelled() {
        match read_until_changed(shared, stop) {
            Ok(()) => backoff.reset(),
            Err(error) => {
                tracing::warn!(%error, "cannot read messages, trying again");
                std::thread::sleep(backoff.next_pause());
            }
        }
    }
}

fn read_until_changed(shared: &Arc<Shared>, stop: &CancellationToken) -> Result<(), LogError> {
    let version = shared.rings_version();
    let shards = shared.with_rings();
    if shards.is_empty() {
        std::thread::sleep(WAIT);
        return Ok(());
    }
    let next = |shard: &Shard| shard.lock().ring.as_ref().map_or(0, |ring| ring.next().cast_unsigned());
    let from: Vec<(u32, u64)> = shards.iter().map(|shard| (shard.partition, next(shard))).collect();
    let mut reader = shared.log.reader(Topic::MESSAGES, &from)?;
    let mut batch = Batch::default();
    while !stop.is_cancelled() && shared.rings_version() == version {
        let shard = |partition: u32| shards.iter().find(|shard| shard.partition == partition);
        match reader.poll(&mut batch, LIMITS)? {
            PollOutcome::Records => {
                if let Some(shard) = shard(batch.partition()) {
                    take(shard, &batch);
                }
            }
            PollOutcome::CaughtUp { partition, position } => {
                if let Some(shard) = shard(partition) {
                    let mut inner = shard.lock();
                    if inner.is_whole()
                        && let Some(ring) = &mut inner.ring
                    {
                        ring.advance(position.cast_signed());
                    }
                    drop(inner);
                    shard.moved.notify_waiters();
                }
            }
            PollOutcome::Nothing => {}
        }
    }
    Ok(())
}

/// Puts a batch into the ring and wakes whoever waits for its topics.
fn take(shard: &Shard, batch: &Batch) {
    let mut inner = shard.lock();
    // A topic that a step created which was taken back is not known, nor what a head counts. It is read again from here on.
    if !inner.is_whole() {
        return;
    }
    let mut touched: Vec<Name> = Vec::new();
    for record in batch.iter() {
        if let Some(name) = take_one(&mut inner, record.offset, record.timestamp_ms, record.key, record.value) {
            touched.push(name);
        }
    }
    if let (Some(ring), Some(last)) = (&mut inner.ring, batch.iter().last()) {
        ring.read(last.offset.cast_signed(), last.identity());
    }
    touched.sort_unstable();
    touched.dedup();
    for name in &touched {
        inner.wake(name);
    }
    drop(inner);
    shard.moved.notify_waiters();
}

fn take_one(inner: &mut Inner, offset: u64, log_ms: i64, key: &[u8], value: Option<&[u8]>) -> Option<Name> {
    if key.is_empty() {
        inner.ring_nonce = opening(key, value).or(inner.ring_nonce);
        return None;
    }
    let value = value?;
    let name = Name::of_system(std::str::from_utf8(key).ok()?).ok()?;
    let message = Message::decode(value).ok()?;
    let topic = inner.fold.topic(&name)?;
    let counted = topic.head.offset.max(inner.fold.covered().offset);
    if topic.meta.created != message.topic_id {
        return None;
    }
    if message.is_late(inner.ring_nonce) {
        return None;
    }
    inner.keyed.read(&name, offset, log_ms, &message);
    // What the topic's head counts already is read for its keys only.
    if message.waits() || offset.cast_signed() <= counted {
        return None;
    }
    let head = inner.head(&name);
    let head = Head { offset: offset.cast_signed(), ordinal: head.ordinal + 1, newest_ms: message.published_ms };
    inner.heads.insert(name.clone(), head);
    let stored = Arc::new(Stored::new(offset, head.ordinal, value, &message));
    inner.ring.as_mut()?.push(&name, stored);
    Some(name)
}

/// The nonce of the coordinator that opens with this record, if it is an opening.
pub(super) fn opening(key: &[u8], value: Option<&[u8]>) -> Option<u64> {
    TopicOwner::decode(value.filter(|_| key.is_empty())?).ok().map(|owner| owner.nonce)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use millrace_contracts::topics::{Coverage, Delay, StateEntry, TopicMeta, TopicSettings, TopicStateKey};

    use super::*;
    use crate::ring::Ring;

    /// Its coordinator ended between two portions of heads.
    #[test]
    fn what_a_head_counts_already_is_not_counted_again() {
        let shard = Shard::new(0, false);
        let mut inner = shard.lock();
        let (ahead, behind) = (Name::parse("ahead").unwrap(), Name::parse("behind").unwrap());
        for name in [&ahead, &behind] {
            let settings =
                TopicSettings { retention_ms: 1, delay_ms: 0, max_message_bytes: 1, description: String::new() };
            let meta = TopicMeta {
                created: 1,
                created_ms: 0,
                version: 1,
                owner: String::new(),
                settings,
                grants: BTreeMap::new(),
                deleted_ms: None,
            };
            inner.fold.put(TopicStateKey::Topic(name.clone()), Some(StateEntry::Topic(meta)));
        }
        let head = Head { offset: 13, ordinal: 2, newest_ms: 0 };
        inner.fold.put(TopicStateKey::Head(ahead.clone()), Some(StateEntry::Head(head)));
        let covered = Coverage { offset: 9, last_record: None };
        inner.fold.put(TopicStateKey::Heads(0), Some(StateEntry::Covered(covered)));
        let first = inner.fold.newest_head() + 1;
        inner.ring = Some(Ring::new(first, 10, 1 << 20));
        let mut value = Vec::new();
        let message = Message {
            topic_id: 1,
            published_ms: 0,
            id: "m",
            delay: Delay::None,
            key: None,
            idempotency_key: None,
            nonce: None,
            content_type: "text/plain",
            attributes: Vec::new(),
            body: b"",
        };
        message.encode(&mut value);
        for (offset, name) in [(10, &ahead), (11, &behind), (13, &ahead), (14, &behind), (15, &ahead)] {
            take_one(&mut inner, offset, 0, name.as_str().as_bytes(), Some(&value));
        }
        let in_ring = |name: &Name| {
            let ring = inner.ring.iter().flat_map(|ring| ring.after(name, -1));
            ring.map(|stored| (stored.offset, stored.ordinal)).collect::<Vec<_>>()
        };
        assert_eq!((first, in_ring(&ahead), in_ring(&behind)), (14, vec![(15, 3)], vec![(14, 2)]));
        assert_eq!((inner.head(&ahead).ordinal, inner.head(&behind).ordinal), (3, 2));
    }
}
