//! Reads `messages` for the rings of all partitions that this process coordinates, and older ones for laggards.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_base::Backoff;
use millrace_contracts::topics::{Head, Message, Name, TopicOwner};
use millrace_contracts::{Code, Refusal, Topic};
use millrace_log::{Batch, Limits, LogError, PollOutcome, Reader};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::shard::{Chunk, Inner, Shard};
use crate::ring::{Stored, waits};

/// One poll; also how soon a partition that was taken over is read.
const WAIT: Duration = Duration::from_millis(50);
const LIMITS: Limits = Limits { records: 8_192, bytes: 8 << 20, wait: WAIT };
/// Messages and bytes of a chunk, and how long it may take to read one.
const CHUNK_MESSAGES: usize = 512;
const CHUNK_BYTES: usize = 4 << 20;
const CHUNK_TIME: Duration = Duration::from_secs(2);
/// Records before a chunk that are read for the opening of the coordinator in force. A late message of an older one follows
/// the opening closely: its append was under way.
const LOOK_BACK: i64 = 4_096;

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
                    if let Some(ring) = &mut shard.lock().ring {
                        ring.advance(position.cast_signed());
                    }
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
    if inner.fold.topic(&name)?.meta.created != message.topic_id {
        return None;
    }
    if is_late(&message, inner.ring_nonce) {
        return None;
    }
    inner.keyed.read(&name, offset, log_ms, &message);
    // What the heads cover is read for its keys only.
    if waits(&message) || offset.cast_signed() <= inner.fold.covered().offset {
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
fn opening(key: &[u8], value: Option<&[u8]>) -> Option<u64> {
    TopicOwner::decode(value.filter(|_| key.is_empty())?).ok().map(|owner| owner.nonce)
}

/// Whether a coordinator that was replaced appended the message behind the opening of the one in force, if that is known. It
/// never confirmed it, so the publisher may have sent it again.
fn is_late(message: &Message<'_>, in_force: Option<u64>) -> bool {
    message.nonce.zip(in_force).is_some_and(|(nonce, in_force)| nonce != in_force)
}

/// What is known of the coordinator in force at an offset of `messages`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InForce {
    /// Nothing: reading begins earlier, to meet its opening.
    Unread,
    /// Its nonce, if an opening was met.
    Read(Option<u64>),
}

/// Where a chunk begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChunkFrom {
    /// The first offset.
    pub(crate) offset: i64,
    /// Messages of the topic before it.
    pub(crate) ordinal: u64,
    /// Where the ring begins; reading stops there.
    pub(crate) until: i64,
    /// The coordinator in force there.
    pub(crate) in_force: InForce,
}

/// Reads a topic's messages from behind the ring: a scan of the partition, bounded by messages, bytes and time.
pub(super) async fn read_chunk(
    shared: &Arc<Shared>,
    partition: u32,
    topic: Name,
    topic_id: u64,
    from: ChunkFrom,
) -> Result<Chunk, Refusal> {
    let permit = shared.scans.clone().acquire_owned().await.map_err(|_| unreadable(&"shutting down"))?;
    let start = shared.log.start(Topic::MESSAGES, partition).await.map_err(|error| unreadable(&error))?;
    let shared = shared.clone();
    let scan = move || {
        let _permit = permit;
        scan(&shared, partition, &topic, topic_id, from, start.cast_signed())
    };
    let scanned = tokio::task::spawn_blocking(scan).await.map_err(|error| unreadable(&error))?;
    scanned.map_err(|error| unreadable(&error))
}

fn unreadable(error: &dyn std::fmt::Display) -> Refusal {
    tracing::warn!(%error, "cannot read older messages");
    Refusal::new(Code::Unavailable, "older messages cannot be read at the moment")
}

fn scan(
    shared: &Shared,
    partition: u32,
    topic: &Name,
    topic_id: u64,
    from: ChunkFrom,
    start: i64,
) -> Result<Chunk, LogError> {
    let first = from.offset.max(start);
    let (read_from, in_force) = match from.in_force {
        InForce::Unread => ((first - LOOK_BACK).max(start), None),
        InForce::Read(nonce) => (first, nonce),
    };
    let mut chunk = Chunk { from: from.offset, until: first, messages: Vec::new(), in_force };
    let mut ordinal = from.ordinal;
    let mut bytes = 0;
    let (mut reader, mut batch, began) = (shared.reader(partition, read_from)?, Batch::default(), Instant::now());
    'scan: while chunk.until < from.until && began.elapsed() < CHUNK_TIME {
        match reader.poll(&mut batch, LIMITS)? {
            PollOutcome::Nothing => continue,
            PollOutcome::CaughtUp { position, .. } => {
                chunk.until = position.cast_signed().clamp(chunk.until, from.until);
                break;
            }
            PollOutcome::Records => {}
        }
        for record in batch.iter() {
            let offset = record.offset.cast_signed();
            if offset >= from.until {
                chunk.until = from.until;
                break 'scan;
            }
            chunk.in_force = opening(record.key, record.value).or(chunk.in_force);
            if offset < first {
                continue;
            }
            chunk.until = offset + 1;
            let Some(value) = record.value.filter(|_| record.key == topic.as_str().as_bytes()) else { continue };
            let Ok(message) = Message::decode(value) else { continue };
            if message.topic_id != topic_id || waits(&message) || is_late(&message, chunk.in_force) {
                continue;
            }
            ordinal += 1;
            bytes += value.len();
            chunk.messages.push(Arc::new(Stored::new(record.offset, ordinal, value, &message)));
            if chunk.messages.len() >= CHUNK_MESSAGES || bytes >= CHUNK_BYTES {
                break 'scan;
            }
        }
    }
    shared.give_back(reader);
    Ok(chunk)
}

/// Number of a topic's messages in a range of offsets.
pub(super) async fn count(
    shared: &Arc<Shared>,
    partition: u32,
    topic: &Name,
    topic_id: u64,
    (mut from, until): (i64, i64),
) -> Result<u64, Refusal> {
    let (mut counted, mut in_force) = (0, InForce::Unread);
    while from < until {
        let begin = ChunkFrom { offset: from, ordinal: 0, until, in_force };
        let chunk = read_chunk(shared, partition, topic.clone(), topic_id, begin).await?;
        counted += chunk.messages.len() as u64;
        if chunk.until <= from {
            break;
        }
        (from, in_force) = (chunk.until, InForce::Read(chunk.in_force));
    }
    Ok(counted)
}

/// The value of the record of a message that was handed out before, if the log still has it.
pub(super) async fn read_one(
    shared: &Arc<Shared>,
    partition: u32,
    topic: &Name,
    topic_id: u64,
    offset: i64,
) -> Result<Option<Arc<Stored>>, Refusal> {
    let from = ChunkFrom { offset, ordinal: 0, until: offset + 1, in_force: InForce::Read(None) };
    let chunk = read_chunk(shared, partition, topic.clone(), topic_id, from).await?;
    Ok(chunk.messages.into_iter().find(|stored| stored.offset == offset))
}

/// A reader of older messages; readers are used again, since opening one takes longer than a seek.
pub(super) type IdleReaders = std::sync::Mutex<Vec<Reader>>;

/// The value of a delayed message's record, if the log still has it.
pub(super) async fn read_delayed(
    shared: &Arc<Shared>,
    partition: u32,
    topic: &Name,
    topic_id: u64,
    offset: u64,
) -> Result<Option<Vec<u8>>, Refusal> {
    let (shared, topic) = (shared.clone(), topic.clone());
    let start = shared.log.start(Topic::MESSAGES, partition).await.map_err(|error| unreadable(&error))?;
    if offset < start {
        return Ok(None);
    }
    let read = move || -> Result<Option<Vec<u8>>, LogError> {
        let (mut reader, mut batch) = (shared.reader(partition, offset.cast_signed())?, Batch::default());
        let limits = Limits { records: 1, ..LIMITS };
        let deadline = Instant::now() + CHUNK_TIME;
        let mut found = None;
        while Instant::now() < deadline {
            match reader.poll(&mut batch, limits)? {
                PollOutcome::Nothing => continue,
                PollOutcome::CaughtUp { .. } => break,
                PollOutcome::Records => {}
            }
            let record = batch.iter().next().filter(|record| record.offset == offset);
            let value = record.filter(|record| record.key == topic.as_str().as_bytes()).and_then(|record| record.value);
            found = value
                .filter(|value| Message::decode(value).is_ok_and(|message| message.topic_id == topic_id))
                .map(<[u8]>::to_vec);
            break;
        }
        shared.give_back(reader);
        Ok(found)
    };
    let read = tokio::task::spawn_blocking(read).await.map_err(|error| unreadable(&error))?;
    read.map_err(|error| unreadable(&error))
}
