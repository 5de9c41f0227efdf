//! What became of a message for a subscription, and why.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_contracts::topics::{DeadLetterView, ExplanationView, Name, Reply, Verdict};
use millrace_contracts::{Code, Refusal, Topic};

use super::backlog::read_one;
use super::pull::reach_end;
use super::rights;
use super::serve::On;
use crate::push::Endpoint;
use crate::ring::Stored;

/// How long a search of dead letters may take.
const SEARCH_TIME: Duration = Duration::from_secs(10);
/// How far the clocks of processes may be apart, in ms: a letter is as old as its message at most.
const MAX_SKEW_MS: i64 = 300_000;

impl On<'_> {
    pub(super) async fn explain(&self, name: &Name, offset: u64) -> Result<Reply, Refusal> {
        let topic_id = rights::subscription(&*self.inner()?, self.topic, name, self.principal)?.0.meta.created;
        let missing = || Refusal::new(Code::NotFound, "no message of the topic has this offset").field("offset");
        let at = i64::try_from(offset).map_err(|_| missing())?;
        if offset >= reach_end(self.shared, self.shard).await? {
            return Err(missing());
        }
        let start = self.shared.log.start(Topic::MESSAGES, self.shard.partition).await;
        let start = start.map_err(|error| Refusal::new(Code::Unavailable, error.to_string()))?;
        let at_hand = self.inner()?.ring.as_ref().and_then(|ring| ring.get(self.topic, at).cloned());
        let stored = match at_hand {
            None if offset >= start => {
                let read = read_one(self.shared, self.shard.partition, self.topic, topic_id, at).await?;
                Some(read.ok_or_else(missing)?)
            }
            at_hand => at_hand,
        };
        let mut explained = self.judge(name, at, stored.as_ref())?;
        // A dead letter is settled.
        let published_ms = stored.map(|stored| stored.published_ms);
        if !matches!(explained.verdict, Verdict::Pending | Verdict::InRetry)
            && let Some(letter) = self.letter_of(name, offset, published_ms).await?
        {
            let (attempts, last_error) = (Some(letter.attempts), letter.last_error);
            explained = ExplanationView { attempts, last_error, ..Verdict::DeadLettered.into() };
        }
        Ok(Reply::Explanation(explained))
    }

    /// The verdict, but for dead letters. `stored`: the message; `None` if the log has dropped it.
    fn judge(&self, name: &Name, at: i64, stored: Option<&Arc<Stored>>) -> Result<ExplanationView, Refusal> {
        let now_ms = self.shared.clock.now_ms();
        let inner = self.inner()?;
        let (topic, found) = rights::subscription(&inner, self.topic, name, self.principal)?;
        let endpoint = inner.push.endpoint(self.topic, name);
        let held_ms = endpoint.and_then(|endpoint| endpoint.held_until(now_ms));
        if let Some(retry) = found.retries.get(&at) {
            return Ok(ExplanationView {
                attempts: Some(retry.attempts),
                next_attempt_ms: Some(held_ms.map_or(retry.next_ms, |held| held.max(retry.next_ms))),
                last_error: retry.last.map(|last| last.error.as_str().to_owned()),
                ..Verdict::InRetry.into()
            });
        }
        if at <= found.cursor.start {
            return Ok(Verdict::BeforeStart.into());
        }
        let ms = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let Some(stored) =
            stored.filter(|stored| stored.published_ms.saturating_add(ms(topic.meta.settings.retention_ms)) > now_ms)
        else {
            return Ok(Verdict::Expired.into());
        };
        let filter = found.meta.settings.filter.as_ref();
        let matches =
            stored.message().is_some_and(|message| filter.is_none_or(|filter| filter.matches(&message.attributes)));
        if !matches {
            return Ok(Verdict::Filtered.into());
        }
        if found.cursor.covers(at) {
            let own = endpoint.into_iter().flat_map(Endpoint::attempts);
            let attempts =
                own.filter(|attempt| attempt.offset == at.cast_unsigned()).map(|attempt| attempt.attempt).max();
            return Ok(ExplanationView { attempts, ..Verdict::Delivered.into() });
        }
        let reading = inner.readings.get(&(self.topic.clone(), name.clone()));
        let leases =
            reading.filter(|reading| reading.of == (found.meta.created, found.cursor.epoch)).map(|one| &one.leases);
        let visible_ms = stored.published_ms.saturating_add(ms(topic.meta.settings.delay_ms));
        let leased_ms = leases.and_then(|leases| leases.get(at)).map(|lease| lease.until_ms);
        // The lease of a message on its way to an endpoint ends only if the attempt is never recorded.
        let leased_ms = leased_ms.filter(|_| found.meta.settings.push.is_none());
        Ok(ExplanationView {
            attempts: Some(leases.map_or(0, |leases| leases.failures(at))),
            next_attempt_ms: [held_ms, leased_ms, Some(visible_ms)]
                .into_iter()
                .flatten()
                .filter(|at| *at > now_ms)
                .max(),
            ..Verdict::Pending.into()
        })
    }

    /// The newest dead letter of a message that is on the list. `published_ms`: `None` if the log has dropped the message.
    async fn letter_of(
        &self,
        name: &Name,
        offset: u64,
        published_ms: Option<i64>,
    ) -> Result<Option<DeadLetterView>, Refusal> {
        let from = match published_ms {
            Some(ms) => {
                let log = &self.shared.log;
                let from = log.offset_at(Topic::DEAD_LETTERS, self.shard.partition, ms.saturating_sub(MAX_SKEW_MS));
                from.await.map_err(|error| Refusal::new(Code::Unavailable, error.to_string()))?
            }
            None => 0,
        };
        let mut letters = self.letters(name, from)?;
        let (mut found, began) = (None, Instant::now());
        while let Some(page) = letters.next(self).await? {
            if began.elapsed() >= SEARCH_TIME {
                return Err(Refusal::new(Code::Unavailable, "too many dead letters to search in time"));
            }
            found = page.into_iter().rfind(|letter| letter.message.offset == offset).or(found);
        }
        Ok(found)
    }
}
