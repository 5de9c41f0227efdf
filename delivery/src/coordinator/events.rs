//! Publishes the events about subscriptions to the topic `millrace-events`, wherever its partition is.

use std::sync::Arc;
use std::time::Duration;

use millrace_base::Backoff;
use millrace_contracts::topics::{Change, Name, partition_of_topic};
use millrace_contracts::{Refusal, Topic};
use millrace_log::{NewRecord, Outcome};

use super::shard::{Shard, unknown};
use super::{Shared, refused_by_log};

/// Most events of one append.
const MAX_BATCH: usize = 500;
/// The pause between two looks, and before the first repeat.
const TICK: Duration = Duration::from_millis(200);
/// The longest pause after failures: an append whose outcome is unknown may have published its events.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Publishes the events of a partition until it is revoked. A task of its own: the topic of events is in another partition,
/// which may have no leader while this one has, and nothing else waits for it.
pub(super) async fn run(shared: Arc<Shared>, shard: Arc<Shard>) {
    let mut backoff = Backoff::new(TICK, MAX_PAUSE);
    while !shard.is_closed() {
        let pause = match publish(&shared, &shard).await {
            Ok(()) => {
                backoff.reset();
                TICK
            }
            Err(refusal) => {
                let partition = shard.partition;
                tracing::warn!(partition, %refusal, "events about subscriptions are not published, trying again");
                backoff.next_pause()
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Appends what waits, and settles it once it is durable. A crash in between repeats an event under its id.
async fn publish(shared: &Arc<Shared>, shard: &Arc<Shard>) -> Result<(), Refusal> {
    let (mut offsets, mut bytes, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    {
        let inner = shard.lock();
        if !inner.serves() {
            return Ok(());
        }
        for (offset, event) in inner.fold.events().take(MAX_BATCH) {
            offsets.push(offset);
            event.encode(&id(shard.partition, offset), &mut bytes);
            ends.push(bytes.len());
        }
    }
    if offsets.is_empty() {
        return Ok(());
    }
    let name = Name::events();
    let partition = partition_of_topic(&name, shared.log.partitions(Topic::MESSAGES));
    let mut from = 0;
    let mut records = Vec::with_capacity(ends.len());
    for end in ends {
        let key = name.as_str().as_bytes();
        records.push(NewRecord { topic: Topic::MESSAGES, partition, key, value: &bytes[from..end] });
        from = end;
    }
    let mut durable = Vec::with_capacity(offsets.len());
    let mut failure = None;
    for (offset, outcome) in offsets.into_iter().zip(shared.log.append_replicated(&records).await) {
        match outcome {
            Outcome::Acknowledged(_) => durable.push(offset),
            Outcome::Refused(cause) => failure = Some(refused_by_log(cause)),
            Outcome::Unknown => failure = Some(unknown()),
        }
    }
    if !durable.is_empty() {
        shard.submit(None, None, Change::EndEvents { offsets: durable }).await?;
    }
    failure.map_or(Ok(()), Err)
}

/// The id of an event, the same for every publication of it.
fn id(partition: u32, offset: u64) -> String {
    format!("evt-{partition}-{offset}")
}

/// Whether the topic of events is in this one of so many partitions.
pub(super) fn is_here(partition: u32, partitions: u32) -> bool {
    partition_of_topic(&Name::events(), partitions) == partition
}
