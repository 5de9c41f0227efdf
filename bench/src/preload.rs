//! Preloaded events: what the command service would have written, written to the log without HTTP.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use millrace_contracts::{EventRef, Kind, Topic, UserHash, partition_of};
use millrace_log::{Log, NewRecord, Outcome};

use crate::clock::{HOUR_MS, now_ms};

const AT_ONCE: u64 = 1_000;
const UNDER_WAY: usize = 100;
/// One in this many events is of an earlier hour.
const LATE: u64 = 20;

/// Number and distribution of the events.
#[derive(Debug, Clone, Args)]
pub(crate) struct Shape {
    /// Number of events
    #[arg(long)]
    events: u64,
    /// Number of users, drawn at random
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    users: u64,
    /// A different user for each event
    #[arg(long, conflicts_with = "users")]
    distinct: bool,
    /// Number of hours: 95 % of the events in the current one, the others spread over those before
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..))]
    hours: u64,
}

struct Event {
    partition: u32,
    key: String,
    value: Vec<u8>,
}

/// Writes the events and returns once the log has all of them.
pub(crate) async fn run(log: Log, shape: &Shape) -> anyhow::Result<()> {
    log.create_topics().await?;
    let (now_ms, partitions) = (now_ms(), log.partitions(Topic::EVENTS));
    let mut random = Random::new();
    let mut under_way = VecDeque::new();
    let mut written = 0;
    while written < shape.events || !under_way.is_empty() {
        if written < shape.events && under_way.len() < UNDER_WAY {
            let end = shape.events.min(written + AT_ONCE);
            let made: Vec<_> = (written..end).map(|n| event(shape, n, &mut random, now_ms, partitions)).collect();
            written = end;
            let records: Vec<_> = made
                .iter()
                .map(|event| NewRecord {
                    topic: Topic::EVENTS,
                    partition: event.partition,
                    key: event.key.as_bytes(),
                    value: &event.value,
                })
                .collect();
            under_way.push_back(log.append(&records));
        } else if let Some(oldest) = under_way.pop_front() {
            let outcomes = oldest.await;
            let stored = outcomes.iter().all(|outcome| matches!(outcome, Outcome::Acknowledged(_)));
            ensure!(stored, "an event was not stored");
        }
    }
    log.close(Duration::from_secs(10)).await;
    Ok(())
}

fn event(shape: &Shape, number: u64, random: &mut Random, now_ms: u64, partitions: u32) -> Event {
    let key = format!("user-{}", if shape.distinct { number } else { random.below(shape.users) });
    let late = shape.hours > 1 && random.below(LATE) == 0;
    let back = if late { 1 + random.below(shape.hours - 1) } else { 0 };
    let kind = Kind::ALL[usize::from(random.below(2) == 0)];
    let received_at_ms = now_ms.cast_signed();
    let timestamp_ms = now_ms.saturating_sub(back * HOUR_MS).cast_signed();
    let mut value = Vec::with_capacity(key.len() + 32);
    EventRef { event_id: None, timestamp_ms, user: &key, kind, received_at_ms }.encode(&mut value);
    Event { partition: partition_of(UserHash::of(&key), partitions), key, value }
}

/// xorshift64*: the same in every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Self {
        Self(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % bound
    }
}
