//! Messages from behind the ring, for subscriptions that lag: a topic's offsets come from the index of messages, and only the
//! records at these are fetched. What the index does not reach, or cannot answer, is scanned.
//!
//! Each read is bounded by messages, bytes and time, and there are few at a time in a process, first come, first served: so a far
//! laggard does not hold up a near one.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use metrics::Counter;
use millrace_contracts::topics::{Message, Name};
use millrace_contracts::{Code, Refusal, Topic, metric};
use millrace_log::{Batch, Fetched, Limits, Log, LogError, PollOutcome, Reader, Record};
use millrace_store::{IndexPage, MessageIndex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Shared;
use super::index::CheckedIndex;
use super::messages::opening;
use super::shard::{Chunk, InForce};
use crate::ring::Stored;

/// Messages and bytes of a chunk, and how long it may take to read one.
const CHUNK_MESSAGES: usize = 512;
const CHUNK_BYTES: usize = 4 << 20;
const CHUNK_TIME: Duration = Duration::from_secs(2);
const FETCH: Limits = Limits { records: CHUNK_MESSAGES, bytes: CHUNK_BYTES, wait: CHUNK_TIME };
/// Records before a scan that are read for the opening of the coordinator in force. A late message of an older one follows
/// the opening closely: its append was under way.
pub(super) const LOOK_BACK: i64 = 4_096;
/// One poll of a scan.
const POLL: Limits = Limits { records: 8_192, bytes: 8 << 20, wait: Duration::from_millis(50) };
/// Offsets of one page that is only counted.
const COUNTED: usize = 16_384;

/// What the reads of a process share.
pub(super) struct Backlog {
    log: Log,
    index: Option<CheckedIndex>,
    reads: Arc<Semaphore>,
    max_reads: usize,
    /// Readers are used again, since opening one takes longer than a seek.
    idle: Mutex<Vec<Reader>>,
    by_index: Counter,
    by_scan: Counter,
    expired: Counter,
}

impl Backlog {
    pub(super) fn new(log: Log, index: Option<MessageIndex>, max_reads: usize) -> Self {
        let by = |source: &'static str| metrics::counter!(metric::BACKLOG_READS.name, "source" => source);
        Self {
            index: index.map(|index| CheckedIndex::new(index, log.clone())),
            log,
            reads: Arc::new(Semaphore::new(max_reads)),
            max_reads,
            idle: Mutex::default(),
            by_index: by("index"),
            by_scan: by("scan"),
            expired: metrics::counter!(metric::EXPIRED_MESSAGES.name),
        }
    }

    /// Waits for its turn to read.
    pub(super) async fn permit(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        self.reads.clone().acquire_owned().await.map_err(|_| unreadable(&"shutting down"))
    }

    /// A topic's offsets from a position on, if the index reaches it.
    async fn page(&self, partition: u32, topic_id: u64, from: ChunkFrom, max: usize) -> Option<IndexPage> {
        let range = from.offset.max(0).cast_unsigned()..from.until.max(0).cast_unsigned();
        self.index.as_ref()?.page(partition, topic_id, range, max).await
    }

    /// A reader of `messages` from an offset on.
    fn reader(&self, partition: u32, offset: i64) -> Result<Reader, LogError> {
        let from = [(partition, offset.max(0).cast_unsigned())];
        let idle = self.idle.lock().expect("nothing panics while it is held").pop();
        match idle {
            Some(mut reader) => {
                self.log.reassign(&mut reader, Topic::MESSAGES, &from)?;
                Ok(reader)
            }
            None => self.log.reader(Topic::MESSAGES, &from),
        }
    }

    fn give_back(&self, mut reader: Reader) {
        // An assigned reader would go on to fetch, and hold what it fetched.
        if self.log.reassign(&mut reader, Topic::MESSAGES, &[]).is_err() {
            return;
        }
        let mut idle = self.idle.lock().expect("nothing panics while it is held");
        if idle.len() < self.max_reads {
            idle.push(reader);
        }
    }
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

/// Reads a topic's messages from behind the ring.
pub(super) async fn read_chunk(
    shared: &Arc<Shared>,
    partition: u32,
    topic: Name,
    topic_id: u64,
    from: ChunkFrom,
) -> Result<Chunk, Refusal> {
    let backlog = &shared.backlog;
    let permit = backlog.permit().await?;
    let Some(page) = backlog.page(partition, topic_id, from, CHUNK_MESSAGES).await else {
        backlog.by_scan.increment(1);
        return scan_chunk(shared, permit, partition, topic, topic_id, from).await;
    };
    backlog.by_index.increment(1);
    fetch_chunk(shared, permit, partition, &topic, topic_id, from, page).await
}

async fn fetch_chunk(
    shared: &Arc<Shared>,
    permit: OwnedSemaphorePermit,
    partition: u32,
    topic: &Name,
    topic_id: u64,
    from: ChunkFrom,
    page: IndexPage,
) -> Result<Chunk, Refusal> {
    let (fetched, offsets) = fetch(shared, permit, partition, page.offsets).await?;
    let until = offsets.get(fetched.decided).copied().unwrap_or(page.until);
    let decided = &offsets[..fetched.decided];
    let message = |record: Record<'_>| {
        let index = decided.binary_search(&record.offset).ok()?;
        message_of(&record, topic, topic_id, from.ordinal + 1 + index as u64, None)
    };
    let messages: Vec<Arc<Stored>> = fetched.records.iter().filter_map(message).collect();
    shared.backlog.expired.increment((decided.len() - messages.len()) as u64);
    // The index has left out what older coordinators appended late.
    Ok(Chunk { from: from.offset, until: until.cast_signed(), messages, in_force: InForce::Unread })
}

/// The records at some offsets, and the offsets.
async fn fetch(
    shared: &Arc<Shared>,
    permit: OwnedSemaphorePermit,
    partition: u32,
    offsets: Vec<u64>,
) -> Result<(Fetched, Vec<u64>), Refusal> {
    if offsets.is_empty() {
        return Ok((Fetched::default(), offsets));
    }
    let log = shared.log.clone();
    let fetch = move || {
        let _permit = permit;
        log.fetch(Topic::MESSAGES, partition, &offsets, FETCH).map(|fetched| (fetched, offsets))
    };
    let fetched = tokio::task::spawn_blocking(fetch).await.map_err(|error| unreadable(&error))?;
    fetched.map_err(|error| unreadable(&error))
}

/// The message of a record, if it is one of the topic that can be handed out behind the opening of this coordinator.
fn message_of(
    record: &Record<'_>,
    topic: &Name,
    topic_id: u64,
    ordinal: u64,
    in_force: Option<u64>,
) -> Option<Arc<Stored>> {
    let value = record.value.filter(|_| record.key == topic.as_str().as_bytes())?;
    let message = Message::decode(value).ok()?;
    let wanted = message.topic_id == topic_id && !message.waits() && !message.is_late(in_force);
    wanted.then(|| Arc::new(Stored::new(record.offset, ordinal, value, &message)))
}

/// A scan of the partition.
async fn scan_chunk(
    shared: &Arc<Shared>,
    permit: OwnedSemaphorePermit,
    partition: u32,
    topic: Name,
    topic_id: u64,
    from: ChunkFrom,
) -> Result<Chunk, Refusal> {
    let start = shared.log.start(Topic::MESSAGES, partition).await.map_err(|error| unreadable(&error))?;
    let shared = shared.clone();
    let scan = move || {
        let _permit = permit;
        scan(&shared.backlog, partition, &topic, topic_id, from, start.cast_signed())
    };
    let scanned = tokio::task::spawn_blocking(scan).await.map_err(|error| unreadable(&error))?;
    scanned.map_err(|error| unreadable(&error))
}

fn unreadable(error: &dyn std::fmt::Display) -> Refusal {
    tracing::warn!(%error, "cannot read older messages");
    Refusal::new(Code::Unavailable, "older messages cannot be read at the moment")
}

fn scan(
    backlog: &Backlog,
    partition: u32,
    topic: &Name,
    topic_id: u64,
    from: ChunkFrom,
    start: i64,
) -> Result<Chunk, LogError> {
    let first = from.offset.max(start);
    let (read_from, mut in_force) = match from.in_force {
        InForce::Unread => ((first - LOOK_BACK).max(start), None),
        InForce::Read(nonce) => (first, nonce),
    };
    let mut chunk = Chunk { from: from.offset, until: first, messages: Vec::new(), in_force: from.in_force };
    let mut ordinal = from.ordinal;
    let mut bytes = 0;
    let (mut reader, mut batch, began) = (backlog.reader(partition, read_from)?, Batch::default(), Instant::now());
    'scan: while chunk.until < from.until && began.elapsed() < CHUNK_TIME {
        match reader.poll(&mut batch, POLL)? {
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
            in_force = opening(record.key, record.value).or(in_force);
            if offset < first {
                continue;
            }
            chunk.until = offset + 1;
            let Some(message) = message_of(&record, topic, topic_id, ordinal + 1, in_force) else { continue };
            ordinal += 1;
            bytes += message.value.len();
            chunk.messages.push(message);
            if chunk.messages.len() >= CHUNK_MESSAGES || bytes >= CHUNK_BYTES {
                break 'scan;
            }
        }
    }
    backlog.give_back(reader);
    chunk.in_force = InForce::Read(in_force);
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
        let permit = shared.backlog.permit().await?;
        let chunk = ChunkFrom { offset: from, ordinal: 0, until, in_force };
        let (found, next) = if let Some(page) = shared.backlog.page(partition, topic_id, chunk, COUNTED).await {
            in_force = InForce::Unread;
            (page.offsets.len(), page.until.cast_signed())
        } else {
            let chunk = scan_chunk(shared, permit, partition, topic.clone(), topic_id, chunk).await?;
            in_force = chunk.in_force;
            (chunk.messages.len(), chunk.until)
        };
        counted += found as u64;
        if next <= from {
            break;
        }
        from = next;
    }
    Ok(counted)
}

/// A message that was handed out before, if the log still has it.
pub(super) async fn read_one(
    shared: &Arc<Shared>,
    partition: u32,
    topic: &Name,
    topic_id: u64,
    offset: i64,
) -> Result<Option<Arc<Stored>>, Refusal> {
    let (fetched, _) = fetch(shared, shared.backlog.permit().await?, partition, vec![offset.cast_unsigned()]).await?;
    let record = fetched.records.iter().next();
    Ok(record.and_then(|record| message_of(&record, topic, topic_id, 0, None)))
}

/// The value of a delayed message's record, if the log still has it.
pub(super) async fn read_delayed(
    shared: &Arc<Shared>,
    partition: u32,
    topic: &Name,
    topic_id: u64,
    offset: u64,
) -> Result<Option<Vec<u8>>, Refusal> {
    let (fetched, _) = fetch(shared, shared.backlog.permit().await?, partition, vec![offset]).await?;
    let record = fetched.records.iter().next().filter(|record| record.key == topic.as_str().as_bytes());
    let value = record.and_then(|record| record.value);
    let own = |value: &&[u8]| Message::decode(value).is_ok_and(|message| message.topic_id == topic_id);
    Ok(value.filter(own).map(<[u8]>::to_vec))
}
