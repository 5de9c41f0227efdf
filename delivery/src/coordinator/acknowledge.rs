//! What readers do with the messages they were handed: acknowledge, return, extend the lease.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use millrace_contracts::topics::{AckAnswer, AckSelection, AckToken, AttemptFailure, Change, Name, Reply, Retry};
use millrace_contracts::{Code, Refusal};
use millrace_log::sabotaged;

use super::fold::Outcome;
use super::rights;
use super::serve::On;
use super::shard::Inner;
use super::takeover::not_in_force;
use crate::lease::Lease;

impl On<'_> {
    /// The tokens of this subscription and epoch, each once; how many are of others.
    fn current(&self, inner: &Inner, name: &Name, tokens: &[AckToken]) -> Result<(u64, Vec<AckToken>, u64), Refusal> {
        let (topic, found) = rights::subscription(inner, self.topic, name, self.principal)?;
        let (created, epoch) = (found.meta.created, found.cursor.epoch);
        let topic_id = (self.shard.partition, topic.meta.created);
        let is_current = |token: &AckToken| {
            (token.topic.partition, token.topic.offset) == topic_id
                && token.subscription == created
                && token.epoch == epoch
        };
        let (mut current, stale): (Vec<AckToken>, Vec<AckToken>) = tokens.iter().copied().partition(is_current);
        current.sort_unstable_by_key(|token| (token.range.offset, Reverse(token.lease)));
        current.dedup_by_key(|token| token.range.offset);
        Ok((epoch, current, stale.len() as u64))
    }

    pub(super) async fn ack(&self, name: &Name, selection: AckSelection) -> Result<Reply, Refusal> {
        self.settle(name, selection, false).await
    }

    /// Settles messages. `delivered`: the endpoint of a push subscription took them.
    pub(super) async fn settle(&self, name: &Name, selection: AckSelection, delivered: bool) -> Result<Reply, Refusal> {
        let (texts, up_to) = match selection {
            AckSelection::Tokens(tokens) => (tokens, false),
            AckSelection::UpTo(token) => (vec![token], true),
        };
        let tokens = parse(&texts, if up_to { "up_to" } else { "tokens" })?;
        let (epoch, current, stale) = self.current(&*self.inner()?, name, &tokens)?;
        if current.is_empty() {
            return answer(AckAnswer { stale, ..AckAnswer::default() });
        }
        let ranges: Vec<_> = current.iter().map(|token| token.range).collect();
        let change = match (up_to, ranges.first()) {
            (true, Some(range)) => Change::SettleUpTo { epoch, offset: range.offset, ordinal: range.ordinal },
            _ => Change::Settle { epoch, ranges: ranges.clone(), delivered },
        };
        let outcome = self.submit_settlement(name, change, ranges.len() as u64).await;
        let (now, already) = match outcome {
            Ok(Outcome::Settled { now, already }) => (now, already),
            Ok(_) => (0, 0),
            Err(refusal) if refusal.code == Code::StaleToken => {
                return answer(AckAnswer { stale: stale + ranges.len() as u64, ..AckAnswer::default() });
            }
            Err(refusal) => return Err(refusal),
        };
        let mut inner = self.shard.lock();
        if let Some(reading) = inner.reading(self.topic, name) {
            for range in &ranges {
                if up_to {
                    reading.leases.settle_up_to(range.offset);
                } else {
                    reading.leases.settle(range.offset);
                }
            }
            // Messages that waited for a key's older one are looked at again.
            reading.frontier = None;
        }
        inner.release(self.topic, name);
        inner.wake_one(self.topic, name);
        drop(inner);
        answer(AckAnswer { acknowledged: now, already, stale })
    }

    /// Guard: an acknowledgement is answered once the fold has read it back. Disabled, it is answered before the log has it.
    async fn submit_settlement(&self, name: &Name, change: Change, ranges: u64) -> Result<Outcome, Refusal> {
        if !sabotaged("sabotage::answer-acks-early") {
            return self.shard.submit(Some(self.topic), Some(name), change).await;
        }
        let (shard, topic, name) = (self.shard.clone(), self.topic.clone(), name.clone());
        tokio::spawn(async move { shard.submit(Some(&topic), Some(&name), change).await });
        Ok(Outcome::Settled { now: ranges, already: 0 })
    }

    /// Puts messages into retry. `last`: how a push of them failed.
    pub(super) async fn retry(
        &self,
        name: &Name,
        texts: &[String],
        delay_ms: Option<u64>,
        last: Option<AttemptFailure>,
    ) -> Result<Reply, Refusal> {
        let tokens = parse(texts, "tokens")?;
        let now_ms = self.shared.clock.now_ms();
        let (epoch, retries, mut stale) = {
            let mut inner = self.inner()?;
            let (epoch, current, stale) = self.current(&inner, name, &tokens)?;
            let retries = &rights::subscription(&inner, self.topic, name, self.principal)?.1.retries;
            let known = |token: &AckToken| retries.get(&token.range.offset).map(|retry| (token.range.offset, *retry));
            let known: BTreeMap<i64, Retry> = current.iter().filter_map(known).collect();
            let Some(reading) = inner.reading(self.topic, name) else { return Err(not_in_force()) };
            reading.expire(now_ms);
            let (valid, ended): (Vec<_>, Vec<_>) = current.into_iter().partition(|token| {
                let running = reading.leases.get(token.range.offset).map_or(0, |lease| lease.number);
                running == token.lease
            });
            let retry = |token: &AckToken| {
                let offset = token.range.offset;
                let known = known.get(&offset);
                let attempts = 1 + known.map_or(0, |retry| retry.attempts) + reading.leases.failures(offset);
                let delay = delay_ms.unwrap_or_else(|| default_delay_ms(attempts));
                Retry {
                    range: token.range,
                    attempts,
                    next_ms: now_ms.saturating_add(i64::try_from(delay).unwrap_or(i64::MAX)),
                    first_ms: known.map_or(now_ms, |retry| retry.first_ms),
                    key_hash: reading.leases.get(offset).and_then(|lease| lease.key_hash),
                    last,
                    redrive: None,
                    letter: None,
                }
            };
            (epoch, valid.iter().map(retry).collect::<Vec<_>>(), stale + ended.len() as u64)
        };
        if retries.is_empty() {
            return answer(AckAnswer { stale, ..AckAnswer::default() });
        }
        let offsets: Vec<i64> = retries.iter().map(|retry| retry.range.offset).collect();
        let outcome = self.shard.submit(Some(self.topic), Some(name), Change::Retry { epoch, retries }).await;
        let (now, already) = match outcome {
            Ok(Outcome::Settled { now, already }) => (now, already),
            Ok(_) => (0, 0),
            Err(refusal) if refusal.code == Code::StaleToken => {
                stale += offsets.len() as u64;
                return answer(AckAnswer { stale, ..AckAnswer::default() });
            }
            Err(refusal) => return Err(refusal),
        };
        let mut inner = self.shard.lock();
        if let Some(reading) = inner.reading(self.topic, name) {
            for offset in &offsets {
                reading.leases.settle(*offset);
            }
            reading.frontier = None;
        }
        inner.release(self.topic, name);
        inner.wake_one(self.topic, name);
        drop(inner);
        answer(AckAnswer { acknowledged: now, already, stale })
    }

    pub(super) fn extend(&self, name: &Name, texts: &[String], lease_ms: u64) -> Result<Reply, Refusal> {
        let tokens = parse(texts, "tokens")?;
        let now_ms = self.shared.clock.now_ms();
        let mut inner = self.inner()?;
        let (_, current, stale) = self.current(&inner, name, &tokens)?;
        let Some(reading) = inner.reading(self.topic, name) else { return Err(not_in_force()) };
        reading.expire(now_ms);
        let mut result = AckAnswer { stale, ..AckAnswer::default() };
        let mut ends_earlier = false;
        for token in current {
            match reading.leases.get(token.range.offset).filter(|lease| lease.number == token.lease) {
                Some(lease) => {
                    let until_ms = now_ms.saturating_add(i64::try_from(lease_ms).unwrap_or(i64::MAX));
                    ends_earlier |= until_ms < lease.until_ms;
                    reading.leases.insert(token.range.offset, Lease { until_ms, ..lease });
                    result.acknowledged += 1;
                }
                None => result.stale += 1,
            }
        }
        if ends_earlier {
            // Whoever waits for the end waits for the former one.
            inner.wake_one(self.topic, name);
        }
        drop(inner);
        answer(result)
    }
}

/// The pause before a returned message's next attempt: 1 s, doubling up to 10 min.
fn default_delay_ms(attempts: u32) -> u64 {
    const MAX_MS: u64 = 600_000;
    1_000_u64.checked_shl(attempts.saturating_sub(1).min(20)).unwrap_or(MAX_MS).min(MAX_MS)
}

/// One malformed token refuses the whole call.
fn parse(texts: &[String], field: &'static str) -> Result<Vec<AckToken>, Refusal> {
    let malformed = |_| Refusal::new(Code::InvalidToken, "not a token that was handed out here").field(field);
    texts.iter().map(|text| AckToken::parse(text).map_err(malformed)).collect()
}

fn answer(result: AckAnswer) -> Result<Reply, Refusal> {
    if result.stale > 0 && result.acknowledged + result.already == 0 {
        return Err(Refusal::new(Code::StaleToken, "the tokens are of another position, lease or subscription"));
    }
    Ok(Reply::Acknowledged(result))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_returned_message_waits_longer_each_time() {
        let delays: Vec<u64> = (1..=12).map(default_delay_ms).collect();
        assert_eq!(delays[..4], [1_000, 2_000, 4_000, 8_000]);
        assert_eq!(delays[10..], [600_000, 600_000]);
    }
}
