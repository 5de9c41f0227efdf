//! Reads the window of idempotency keys again after a takeover. Beside the ring: only publishes with a key wait for it, and ten
//! minutes may have very many messages.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use millrace_base::Backoff;
use millrace_contracts::Topic;
use millrace_contracts::topics::{Message, Name};
use millrace_log::{Batch, Limits, LogError, PollOutcome, Record};

use super::Shared;
use super::backlog::LOOK_BACK;
use super::keyed::{Entry, MAX_KEYS};
use super::messages::opening;
use super::shard::Shard;

const LIMITS: Limits = Limits { records: 8_192, bytes: 8 << 20, wait: Duration::from_millis(50) };

/// Reads the messages at these offsets, and completes the keys of the partition with theirs. `start`: of the log. Blocking.
pub(super) fn read_again(shared: &Shared, shard: &Shard, start: i64, offsets: &Range<i64>) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    while !shard.is_closed() {
        match scan(shared, shard, start, offsets) {
            Ok(older) => {
                shard.lock().keyed.complete(older);
                shard.moved.notify_waiters();
                return;
            }
            Err(error) => {
                tracing::warn!(partition = shard.partition, %error, "cannot read idempotency keys, trying again");
                std::thread::sleep(backoff.next_pause());
            }
        }
    }
}

/// The messages with a key that count.
pub(super) fn scan(
    shared: &Shared,
    shard: &Shard,
    start: i64,
    offsets: &Range<i64>,
) -> Result<VecDeque<Entry>, LogError> {
    let mut found = VecDeque::new();
    if offsets.is_empty() {
        return Ok(found);
    }
    // From a little before, to meet the opening of whoever was in force there.
    let from = (offsets.start - LOOK_BACK).max(start).cast_unsigned();
    let mut reader = shared.log.reader(Topic::MESSAGES, &[(shard.partition, from)])?;
    let (mut batch, mut in_force) = (Batch::default(), None);
    while !shard.is_closed() {
        match reader.poll(&mut batch, LIMITS)? {
            PollOutcome::Records => {}
            PollOutcome::CaughtUp { .. } => break,
            PollOutcome::Nothing => continue,
        }
        for record in batch.iter() {
            if record.offset.cast_signed() >= offsets.end {
                return Ok(found);
            }
            in_force = opening(record.key, record.value).or(in_force);
            if record.offset.cast_signed() < offsets.start {
                continue;
            }
            found.extend(entry(shard, &record, in_force));
            if found.len() > MAX_KEYS {
                found.pop_front();
            }
        }
    }
    Ok(found)
}

/// The entry of a record that counts and has a key.
fn entry(shard: &Shard, record: &Record<'_>, in_force: Option<u64>) -> Option<Entry> {
    let message = Message::decode(record.value.filter(|_| !record.key.is_empty())?).ok()?;
    if message.idempotency_key.is_none() || message.is_late(in_force) {
        return None;
    }
    let name = Name::of_system(std::str::from_utf8(record.key).ok()?).ok()?;
    let created = shard.lock().fold.topic(&name)?.meta.created;
    if created == message.topic_id { Entry::of(&name, record.offset, record.timestamp_ms, &message) } else { None }
}
