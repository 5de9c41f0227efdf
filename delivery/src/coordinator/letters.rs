//! Dead letters of a subscription: the list, and another try.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_contracts::Topic;
use millrace_contracts::topics::{
    Change, DeadLetter, DeadLetterView, Delivery, Message, Name, RedriveFilter, Reply, Retry, SettledRange,
};
use millrace_contracts::{Code, Refusal};
use millrace_log::{Batch, Limits, LogError, PollOutcome};

use super::Shared;
use super::rights;
use super::serve::On;
use crate::redriven;
use crate::ring::key_hash;

/// How long one scan may take, and most bytes of a page.
const SCAN_TIME: Duration = Duration::from_secs(2);
const PAGE_BYTES: usize = 10 << 20;
const LIMITS: Limits = Limits { records: 4_096, bytes: 8 << 20, wait: Duration::from_millis(50) };
/// Most letters of one command.
const MAX_BATCH: usize = 500;

/// A subscription's letters in a part of `dead-letters`.
struct Page {
    letters: Vec<DeadLetterView>,
    /// The first offset that was not read.
    next: u64,
    /// Whether the log's end was reached.
    ended: bool,
}

/// What a scan reads: letters under `key` of this incarnation of the topic, from an offset on.
#[derive(Clone)]
struct Wanted {
    key: String,
    topic_id: u64,
    from: u64,
    limit: usize,
}

async fn read(shared: &Arc<Shared>, partition: u32, wanted: Wanted) -> Result<Page, Refusal> {
    let unreadable = |error: &dyn std::fmt::Display| {
        tracing::warn!(%error, "cannot read dead letters");
        Refusal::new(Code::Unavailable, "dead letters cannot be read at the moment")
    };
    let permit = shared.backlog.permit().await?;
    let start = shared.log.start(Topic::DEAD_LETTERS, partition).await.map_err(|error| unreadable(&error))?;
    let end = shared.log.end(Topic::DEAD_LETTERS, partition).await.map_err(|error| unreadable(&error))?;
    if wanted.from >= end {
        return Ok(Page { letters: Vec::new(), next: wanted.from, ended: true });
    }
    let shared = shared.clone();
    let scanned = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        scan(&shared, partition, start, &wanted)
    });
    scanned.await.map_err(|error| unreadable(&error))?.map_err(|error| unreadable(&error))
}

fn scan(shared: &Shared, partition: u32, start: u64, wanted: &Wanted) -> Result<Page, LogError> {
    let next = wanted.from.max(start);
    let mut page = Page { letters: Vec::new(), next, ended: false };
    let mut reader = shared.log.reader(Topic::DEAD_LETTERS, &[(partition, next)])?;
    let (mut batch, mut bytes, began) = (Batch::default(), 0, Instant::now());
    while began.elapsed() < SCAN_TIME {
        match reader.poll(&mut batch, LIMITS)? {
            PollOutcome::Nothing => continue,
            PollOutcome::CaughtUp { .. } => {
                page.ended = true;
                break;
            }
            PollOutcome::Records => {}
        }
        for record in batch.iter() {
            if page.letters.len() >= wanted.limit || bytes >= PAGE_BYTES {
                return Ok(page);
            }
            page.next = record.offset + 1;
            let value = record.value.filter(|_| record.key == wanted.key.as_bytes());
            let letter = value.and_then(|value| DeadLetter::decode(value).ok());
            let Some(letter) = letter.filter(|letter| letter.topic_id == wanted.topic_id) else { continue };
            bytes += letter.message.len();
            page.letters.extend(view(record.offset, &letter));
        }
    }
    Ok(page)
}

fn view(offset: u64, letter: &DeadLetter<'_>) -> Option<DeadLetterView> {
    let message = Message::decode(letter.message).ok()?;
    Some(DeadLetterView {
        offset,
        dead_lettered_ms: letter.dead_lettered_ms,
        reason: letter.reason.to_owned(),
        attempts: letter.attempts,
        first_attempt_ms: letter.first_attempt_ms,
        last_attempt_ms: letter.last_attempt_ms,
        last_status: letter.last_status,
        last_error: letter.last_error.map(str::to_owned),
        message: Delivery::new(&message, letter.offset, String::new(), letter.attempts),
    })
}

/// All letters on the list of a subscription, a page at a time.
pub(super) struct Letters {
    wanted: Wanted,
    redriven: Vec<(u64, u64)>,
    ended: bool,
}

impl Letters {
    /// The next page; `None` after the last one.
    pub(super) async fn next(&mut self, on: &On<'_>) -> Result<Option<Vec<DeadLetterView>>, Refusal> {
        if self.ended {
            return Ok(None);
        }
        let page = read(on.shared, on.shard.partition, self.wanted.clone()).await?;
        (self.wanted.from, self.ended) = (page.next, page.ended);
        let listed = |letter: &DeadLetterView| !redriven::contains(&self.redriven, letter.offset);
        Ok(Some(page.letters.into_iter().filter(listed).collect()))
    }
}

impl On<'_> {
    /// The letters on the list from an offset in `dead-letters` on.
    pub(super) fn letters(&self, name: &Name, from: u64) -> Result<Letters, Refusal> {
        let (topic_id, redriven) = self.redriven(name)?;
        Ok(Letters { wanted: self.wanted(name, topic_id, from, MAX_BATCH), redriven, ended: false })
    }

    /// The topic's id, and the letters of the subscription that were redriven.
    fn redriven(&self, name: &Name) -> Result<(u64, Vec<(u64, u64)>), Refusal> {
        let inner = self.inner()?;
        let (topic, found) = rights::subscription(&inner, self.topic, name, self.principal)?;
        Ok((topic.meta.created, found.meta.redriven.clone()))
    }

    fn wanted(&self, name: &Name, topic_id: u64, from: u64, limit: usize) -> Wanted {
        Wanted { key: format!("{}/{name}", self.topic), topic_id, from, limit }
    }

    pub(super) async fn dead_letters(&self, name: &Name, after: Option<u64>, limit: usize) -> Result<Reply, Refusal> {
        let (topic_id, known) = self.redriven(name)?;
        let mut from = after.map_or(0, |after| after.saturating_add(1));
        let mut letters = Vec::new();
        let began = Instant::now();
        loop {
            let wanted = self.wanted(name, topic_id, from, limit - letters.len());
            let page = read(self.shared, self.shard.partition, wanted).await?;
            letters.extend(page.letters.into_iter().filter(|letter| !redriven::contains(&known, letter.offset)));
            from = page.next;
            if page.ended {
                return Ok(Reply::DeadLetters(letters, None));
            }
            if letters.len() >= limit || began.elapsed() >= SCAN_TIME {
                return Ok(Reply::DeadLetters(letters, Some(from.saturating_sub(1))));
            }
        }
    }

    pub(super) async fn redrive(&self, name: &Name, filter: RedriveFilter) -> Result<Reply, Refusal> {
        let (topic_id, known) = self.redriven(name)?;
        // A message that the log dropped cannot be sent again; its letter stays.
        let start = self.shared.log.start(Topic::MESSAGES, self.shard.partition).await;
        let start = start.map_err(|error| Refusal::new(Code::Unavailable, error.to_string()))?;
        let chosen = |letter: &DeadLetterView| {
            !redriven::contains(&known, letter.offset)
                && letter.message.offset >= start
                && filter.from_ms.is_none_or(|from| letter.dead_lettered_ms >= from)
                && filter.to_ms.is_none_or(|to| letter.dead_lettered_ms < to)
                && filter.status.is_none_or(|status| letter.last_status == Some(status))
        };
        let id = fastrand::u64(..);
        let (mut from, mut selected) = (0, 0_u64);
        loop {
            let page = read(self.shared, self.shard.partition, self.wanted(name, topic_id, from, MAX_BATCH)).await?;
            from = page.next;
            let now_ms = self.shared.clock.now_ms();
            let mut batch: Vec<(u64, Retry)> = Vec::new();
            let mut ranges: Vec<(u64, u64)> = Vec::new();
            let mut joins = false;
            for letter in &page.letters {
                if !chosen(letter) {
                    joins = false;
                    continue;
                }
                let wait_ms = filter.rate.map_or(0, |rate| (selected * 1_000 / u64::from(rate)).cast_signed());
                batch.push((letter.offset, retry(letter, now_ms, now_ms.saturating_add(wait_ms))));
                match ranges.last_mut().filter(|_| joins) {
                    Some((_, last)) => *last = letter.offset,
                    None => ranges.push((letter.offset, letter.offset)),
                }
                joins = true;
                selected += 1;
            }
            // One that selects nothing has a state, too.
            if !batch.is_empty() || (page.ended && selected == 0) {
                let change = Change::Redrive { id, letters: batch, ranges };
                self.shard.submit(Some(self.topic), Some(name), change).await?;
                self.shard.lock().wake_one(self.topic, name);
            }
            if page.ended {
                return Ok(Reply::Redriven { id, selected });
            }
        }
    }
}

impl On<'_> {
    pub(super) fn describe_redrive(&self, name: &Name, id: u64) -> Result<Reply, Refusal> {
        let inner = self.inner()?;
        let (_, found) = rights::subscription(&inner, self.topic, name, self.principal)?;
        let missing = || Refusal::new(Code::NotFound, "no such redrive, or one of long ago").field("redrive");
        found.redrives.get(&id).copied().map(Reply::Redrive).ok_or_else(missing)
    }
}

/// The message of a letter, as if it had never been tried.
fn retry(letter: &DeadLetterView, now_ms: i64, next_ms: i64) -> Retry {
    let offset = letter.message.offset.cast_signed();
    Retry {
        // The cursor covers it already, so the ordinals do not count.
        range: SettledRange { after: offset - 1, offset, ordinal_after: 0, ordinal: 0 },
        attempts: 0,
        next_ms,
        first_ms: now_ms,
        key_hash: letter.message.key.as_deref().map(key_hash),
        last: None,
        redrive: None,
        letter: None,
    }
}
