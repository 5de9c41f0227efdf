//! Retention: raises the start of a partition, then drops whole tables below it. Never past the position of a consumer: a
//! stage that is held up would lose records, and refuse its position for good.
//!
//! Never deletes by key: a million deletes make the next seek take half a second. `drop_range` is not part of fjall's
//! stable interface, one reason why its version is pinned.

use std::sync::Arc;

use fjall::AbstractTree;
use millrace_contracts::Cleanup;

use super::consumers::Need;
use super::partition::Partition;
use super::writer::Records;
use super::{Shared, codec, damaged};
use crate::LogError;

/// Drops old records at intervals, until the log shuts down.
pub(super) fn run(shared: &Arc<Shared>) {
    while !shared.wait_for_shutdown(shared.config.retention_check_interval.0) {
        // A tool has no consumers, and knows no positions.
        if !shared.consumers.any() {
            continue;
        }
        if let Err(error) = drop_old(shared, shared.clock.now_ms()) {
            tracing::warn!(%error, "cannot drop old records; retrying at the next interval");
        }
    }
}

pub(super) fn drop_old(shared: &Shared, now_ms: i64) -> Result<(), LogError> {
    let mut held_by = None;
    for partition in shared.layout.all() {
        let excess = excess(shared, partition, now_ms)?;
        let mut start = excess.by_age.max(excess.by_size);
        if partition.latest.is_none()
            && let Some((need, role)) = shared.consumers.lowest(partition.topic, partition.number)
        {
            if need.position < start {
                held_by = Some(format!("retention waits for {role} at {}@{}", partition.shown(), need.position));
            }
            start = excess.within(need, shared.disk.is_full());
        }
        if start <= partition.start() {
            continue;
        }
        // First the start, durably: records below it may be missing from here on.
        shared.step(Records::default(), vec![(partition.start_key(), start)], false)?;
        partition.set_start(start);
        let below = ..start.to_be_bytes();
        partition
            .log
            .tree
            .drop_range::<[u8; 8], _>(below)
            .map_err(|error| damaged(partition.log.path(), &partition.shown(), error.into()))?;
        tracing::info!(partition = partition.shown(), start, "dropped the records below the new start");
    }
    if let Some(held_by) = &held_by {
        tracing::warn!("{held_by}: records past their retention remain until it has read them");
    }
    shared.disk.set_held_by(held_by);
    Ok(())
}

/// The starts that would leave a partition within its retention.
struct Excess {
    by_age: u64,
    by_size: u64,
}

impl Excess {
    /// The start that leaves a consumer what it needs. A replay is worth less than the intake of new records.
    fn within(&self, need: Need, disk_full: bool) -> u64 {
        let by_size = if disk_full { self.by_size } else { self.by_size.min(need.replay) };
        self.by_age.max(by_size).min(need.position)
    }
}

fn excess(shared: &Shared, partition: &Partition, now_ms: i64) -> Result<Excess, LogError> {
    let (start, end) = (partition.start(), partition.end());
    match partition.topic.cleanup {
        Cleanup::Compact => {
            let by_size = end.saturating_sub(u64::from(shared.config.max_tail_records)).max(start);
            Ok(Excess { by_age: start, by_size })
        }
        Cleanup::Delete { retention_ms } => {
            let oldest = now_ms.saturating_sub(i64::try_from(retention_ms).unwrap_or(i64::MAX));
            Ok(Excess { by_age: first_since(partition, oldest)?, by_size: by_size(shared, partition) })
        }
    }
}

/// The first offset with a timestamp of at least `oldest`; timestamps ascend with offsets.
fn first_since(partition: &Partition, oldest: i64) -> Result<u64, LogError> {
    let (mut low, mut high) = (partition.start(), partition.end());
    while low < high {
        let middle = low + (high - low) / 2;
        let value = partition
            .log
            .get(middle.to_be_bytes())
            .map_err(|error| damaged(partition.log.path(), &partition.shown(), error))?;
        let record = value.as_ref().and_then(|value| codec::decode(middle, value));
        let record = record.ok_or_else(|| partition.broken("the record", middle))?;
        if record.timestamp_ms < oldest { low = middle + 1 } else { high = middle }
    }
    Ok(low)
}

/// The start that leaves about as many bytes as allowed, assuming records of equal size.
fn by_size(shared: &Shared, partition: &Partition) -> u64 {
    let (start, end) = (partition.start(), partition.end());
    let (most, used) = (shared.config.retention_bytes.0, partition.log.disk_space());
    if most == 0 || used <= most {
        return start;
    }
    let excess = u128::from(end - start) * u128::from(used - most) / u128::from(used);
    start + u64::try_from(excess).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_always_holds_and_a_replay_only_against_size_on_a_disk_with_space() {
        let start = |by_age, by_size, disk_full| {
            Excess { by_age, by_size }.within(Need { position: 100, replay: 40 }, disk_full)
        };
        assert_eq!((start(0, 30, false), start(0, 60, false), start(0, 60, true)), (30, 40, 60));
        assert_eq!((start(60, 0, false), start(60, 30, true)), (60, 60), "age passes a replay");
        assert_eq!((start(150, 0, false), start(0, 150, true)), (100, 100), "nothing passes a position");
    }
}
