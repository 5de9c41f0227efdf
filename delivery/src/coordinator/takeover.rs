//! Taking a partition over: opening as its coordinator, and appending commands while it is in force.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use millrace_base::Backoff;
use millrace_contracts::topics::{Change, Coverage, Name, TopicCommand, TopicOwner};
use millrace_contracts::{Code, ProjectionPosition, Refusal, Topic};
use millrace_log::{LogError, NewRecord};
use tokio::sync::{mpsc, oneshot};

use super::backlog::LOOK_BACK;
use super::fold::Outcome;
use super::keyed::WINDOW_MS;
use super::shard::{Shard, Submission, moved, unknown};
use super::{Shared, window};
use crate::ring::Ring;

/// Most commands of one append.
const MAX_BATCH: usize = 1_024;
/// What to do if the messages are not those that the cursors are of.
const REMEDY: &str = "restore `messages` from a backup, or start over with another `prefix`";
/// How long an opening waits to be read back before it is tried again.
const OPEN_WAIT: Duration = Duration::from_secs(15);

/// Opens, then appends what is submitted, until the partition is revoked.
pub(super) async fn coordinate(shared: Arc<Shared>, shard: Arc<Shard>) {
    let Some(mut submitted) = shard.submitted.lock().expect("nothing panics while it is held").take() else { return };
    let mut number = 0;
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    while !shard.is_closed() {
        match open(&shared, &shard, &mut number).await {
            Ok(()) => {
                backoff.reset();
                shard.lock().refused = None;
                append_until_lost(&shared, &shard, &mut submitted, &mut number).await;
            }
            Err(error) => {
                tracing::warn!(partition = shard.partition, %error, "cannot take the partition over, trying again");
                shard.lock().refused = matches!(error, OpenError::Log(LogError::Refused(_))).then(|| error.to_string());
                tokio::time::sleep(backoff.next_pause()).await;
            }
        }
    }
}

/// Why an opening failed.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the opening was not read back within {OPEN_WAIT:?}")]
    Unread,
    #[error("{0}")]
    Refused(Refusal),
}

/// Refuses another log of messages than the one that the cursors are of: what is below them would never be handed out.
/// Retention may have dropped all that they know.
async fn check_messages(shared: &Arc<Shared>, partition: u32, covered: Coverage) -> Result<(), LogError> {
    let next_offset = (covered.offset + 1).cast_unsigned();
    let start = shared.log.start(Topic::MESSAGES, partition).await?;
    if next_offset <= start && start > 0 || next_offset == 0 {
        return Ok(());
    }
    let (log, position) = (shared.log.clone(), ProjectionPosition { next_offset, last_record: covered.last_record });
    let check = move || log.check_positions(Topic::MESSAGES, &[(partition, position)], None);
    let checked = tokio::task::spawn_blocking(check).await;
    checked.unwrap_or_else(|error| Err(LogError::unavailable(error.to_string()))).map_err(|error| error.advise(REMEDY))
}

async fn open(shared: &Arc<Shared>, shard: &Arc<Shard>, number: &mut u64) -> Result<(), OpenError> {
    shard.reopen.store(false, Ordering::Release);
    let covered = shard.lock().fold.covered();
    check_messages(shared, shard.partition, covered).await?;
    // Below 2^63, so that it reads the same everywhere.
    let nonce = fastrand::u64(1..1 << 63);
    let previous = shard.lock().fold.nonce();
    let change = Change::Open { previous, url: shared.config.url.clone() };
    *number = 1;
    let command =
        TopicCommand { nonce, number: 1, at_ms: shared.clock.now_ms(), topic: None, subscription: None, change };
    let (reply, read_back) = oneshot::channel();
    {
        let mut inner = shard.lock();
        inner.waiting.insert((nonce, 1), reply);
        inner.opening = Some(nonce);
    }
    let mut value = Vec::new();
    command.encode(&mut value);
    let key = shard.partition.to_string();
    // An unknown outcome is decided by reading it back.
    let _ = shared.append(Topic::TOPIC_COMMANDS, shard.partition, key.as_bytes(), &value).await;
    match tokio::time::timeout(OPEN_WAIT, read_back).await {
        Ok(Ok(Ok(Outcome::Opened(_)))) => {}
        Ok(Ok(Ok(Outcome::Refused(refusal)) | Err(refusal))) => return Err(OpenError::Refused(refusal)),
        _ => return Err(OpenError::Unread),
    }
    // In `messages`, too: readers skip messages with idempotency keys of older coordinators behind it.
    let owner = TopicOwner { nonce, url: String::new(), at_ms: shared.clock.now_ms() };
    let mut value = Vec::new();
    owner.encode(&mut value);
    if shared.append(Topic::MESSAGES, shard.partition, b"", &value).await.is_err() {
        return Err(OpenError::Unread);
    }
    let (covered, newest) = {
        let inner = shard.lock();
        (inner.fold.covered().offset, inner.fold.newest_head())
    };
    let start = shared.log.start(Topic::MESSAGES, shard.partition).await?.cast_signed();
    let window = shared.log.offset_at(Topic::MESSAGES, shard.partition, shared.clock.now_ms() - WINDOW_MS).await?;
    let unread = (covered + 1).max(start);
    // Whoever ended between two portions of heads left some that are newer than what all of them cover. What these count
    // already has no ordinal here, so it is read behind the ring.
    let first = unread.max(newest + 1);
    // From a little before, to meet the opening of whoever was in force there.
    let from = (unread - LOOK_BACK).max(start);
    let window = window.cast_signed().max(start)..from;
    let mut inner = shard.lock();
    inner.nonce = Some(nonce);
    if inner.ring.is_none() {
        inner.ring = Some(Ring::new(first, from, shared.config.ring_bytes));
        let (shared, shard) = (shared.clone(), shard.clone());
        tokio::task::spawn_blocking(move || window::read_again(&shared, &shard, start, &window));
    }
    drop(inner);
    shared.rings_changed();
    tracing::info!(partition = shard.partition, nonce, "coordinating the partition");
    Ok(())
}

async fn append_until_lost(
    shared: &Arc<Shared>,
    shard: &Arc<Shard>,
    submitted: &mut mpsc::Receiver<Submission>,
    number: &mut u64,
) {
    let mut batch = Vec::with_capacity(MAX_BATCH);
    loop {
        let nonce = {
            let inner = shard.lock();
            inner.nonce.filter(|_| inner.fold.nonce() == inner.nonce)
        };
        let lost = shard.moved.notified();
        let (Some(nonce), false) = (nonce, shard.is_closed() || shard.reopen.load(Ordering::Acquire)) else { return };
        tokio::select! {
            received = submitted.recv_many(&mut batch, MAX_BATCH) => if received == 0 { return },
            () = lost => continue,
        }
        append(shared, shard, nonce, number, std::mem::take(&mut batch));
    }
}

/// Appends a batch of commands; whoever waits for one that the log refused hears at once.
fn append(shared: &Arc<Shared>, shard: &Arc<Shard>, nonce: u64, number: &mut u64, batch: Vec<Submission>) {
    let at_ms = shared.clock.now_ms();
    let (mut bytes, mut ends, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
    let mut inner = shard.lock();
    for Submission { topic, subscription, change, reply } in batch {
        *number += 1;
        let command = TopicCommand { nonce, number: *number, at_ms, topic, subscription, change };
        command.encode(&mut bytes);
        ends.push((command.topic, bytes.len()));
        numbers.push(*number);
        inner.waiting.insert((nonce, *number), reply);
    }
    drop(inner);
    let mut from = 0;
    let mut records = Vec::with_capacity(ends.len());
    for (topic, end) in &ends {
        let key = topic.as_ref().map_or("", Name::as_str).as_bytes();
        records.push(NewRecord {
            topic: Topic::TOPIC_COMMANDS,
            partition: shard.partition,
            key,
            value: &bytes[from..*end],
        });
        from = *end;
    }
    let receipts = shared.log.append_replicated(&records);
    let shard = shard.clone();
    tokio::spawn(async move {
        for (number, outcome) in numbers.into_iter().zip(receipts.await) {
            let refusal = match outcome {
                millrace_log::Outcome::Acknowledged(_) => continue,
                millrace_log::Outcome::Refused(cause) => super::refused_by_log(cause),
                millrace_log::Outcome::Unknown => {
                    shard.lost();
                    unknown()
                }
            };
            if let Some(reply) = shard.lock().waiting.remove(&(nonce, number)) {
                let _ = reply.send(Err(refusal));
            }
        }
    });
}

/// A refusal for whoever comes while nobody is in force.
pub(super) fn not_in_force() -> Refusal {
    Refusal { code: Code::Unavailable, ..moved() }
}
