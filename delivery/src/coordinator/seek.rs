//! Where a subscription begins: a start is resolved to an offset before its command is appended.

use std::sync::Arc;

use millrace_contracts::topics::{Name, Start};
use millrace_contracts::{Code, Refusal, Topic};

use super::shard::Shard;
use super::{Shared, backlog};

/// The floor of a cursor that begins at `start`, and the topic's ordinal there.
pub(super) async fn resolve(
    shared: &Arc<Shared>,
    shard: &Arc<Shard>,
    topic: &Name,
    topic_id: u64,
    start: Start,
) -> Result<(i64, u64), Refusal> {
    let partition = shard.partition;
    let log_end = super::pull::reach_end(shared, shard).await?.cast_signed();
    let unreadable = |error: millrace_log::LogError| Refusal::new(Code::Unavailable, error.to_string());
    let log_start = shared.log.start(Topic::MESSAGES, partition).await.map_err(unreadable)?.cast_signed();
    let newest = shard.lock().head(topic).offset;
    let next = match start {
        Start::Newest if newest >= 0 => newest.clamp(log_start, log_end),
        Start::Newest | Start::Latest => log_end,
        Start::Earliest => log_start,
        Start::Offset(offset) => i64::try_from(offset).unwrap_or(i64::MAX).clamp(log_start, log_end),
        Start::At(ms) => {
            let found = shared.log.offset_at(Topic::MESSAGES, partition, ms).await.map_err(unreadable)?;
            found.cast_signed().clamp(log_start, log_end)
        }
    };
    // Messages from `next` to the ring's beginning are counted in the log, those in the ring there.
    let (head, in_ring, until) = {
        let inner = shard.lock();
        let Some(ring) = &inner.ring else { return Err(super::takeover::not_in_force()) };
        (inner.head(topic).ordinal, ring.after(topic, next - 1).count() as u64, ring.first())
    };
    let before_ring = backlog::count(shared, partition, topic, topic_id, (next, until)).await?;
    Ok((next - 1, head.saturating_sub(in_ring + before_ring)))
}
