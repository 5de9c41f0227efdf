//! Events for the processor: what the command service would have written, without HTTP in between.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::ensure;
use millrace_contracts::{EventRef, Kind, Topic, UserHash, partition_of};
use millrace_log::{Log, NewRecord, Outcome};

use crate::kafka::Kafka;

const AT_ONCE: u64 = 1_000;
const UNDER_WAY: usize = 200;
const HOUR_MS: u64 = 3_600_000;
/// One event in this many is of an earlier hour, of the last 24.
const LATE: u64 = 20;

struct Event {
    partition: u32,
    key: String,
    value: Vec<u8>,
}

/// Writes the events, and is done when the log has all of them.
pub(crate) async fn run(kafka: &Kafka, events: u64, users: u64) -> anyhow::Result<()> {
    let log = Log::Kafka(kafka.open()?);
    log.create_topics().await?;
    let now_ms = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut under_way = VecDeque::new();
    let mut left = events;
    while left > 0 || !under_way.is_empty() {
        if left > 0 && under_way.len() < UNDER_WAY {
            let count = left.min(AT_ONCE);
            left -= count;
            let made: Vec<_> = (0..count).map(|_| event(&mut random, users, now_ms, kafka.partitions)).collect();
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

fn event(random: &mut Random, users: u64, now_ms: u64, partitions: u32) -> Event {
    let key = format!("user-{}", random.next() % users);
    let back = if random.next().is_multiple_of(LATE) { 1 + random.next() % 23 } else { 0 };
    let kind = Kind::ALL[usize::from(random.next().is_multiple_of(2))];
    let received_at_ms = now_ms.cast_signed();
    let timestamp_ms = (now_ms - back * HOUR_MS).cast_signed();
    let mut value = Vec::with_capacity(key.len() + 32);
    EventRef { event_id: None, timestamp_ms, user: &key, kind, received_at_ms }.encode(&mut value);
    Event { partition: partition_of(UserHash::of(&key), partitions), key, value }
}

/// xorshift64*: the same events in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }
}
