//! Older hours: refilled from the archive on request, corrected by every later count.

use std::ops::Range;
use std::sync::LazyLock;

use millrace_contracts::{Exactness, Hour, HourlyCount, StoreError};
use redis::{Cmd, Value};

use super::Inner;
use super::error::classify;
use super::keys::{parse, value};
use super::reader::{FIELDS, parse_position};
use super::script::CachedScript;
use crate::PartitionSnapshot;

static FILL: LazyLock<CachedScript> = LazyLock::new(|| CachedScript::new(include_str!("refill.lua")));

/// The outcome of an attempt to refill an older hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefillOutcome {
    /// Every partition of the hour is filled.
    Filled,
    /// The archive is behind Redis. The hour is reserved: read the archive again and retry.
    ArchiveBehind,
    /// Redis or the archive is being rebuilt.
    Rebuilding,
}

/// Writes the counts of an hour into Redis, per partition, unless Redis has newer ones.
pub(super) async fn fill(inner: &Inner, hour: Hour, parts: &[PartitionSnapshot]) -> Result<RefillOutcome, StoreError> {
    inner.check().await?;
    let mut calls: Vec<Cmd> = Vec::with_capacity(parts.len());
    for part in parts {
        let (Some(position), true) = (part.position, part.complete) else { return Ok(RefillOutcome::Rebuilding) };
        let empty = empty_count(hour, part.partition);
        let count = part.counts.iter().find(|count| count.hour == hour).unwrap_or(&empty);
        let mut call = FILL.call(2);
        call.arg(inner.keys.position(part.partition)).arg(inner.keys.older(part.partition, hour));
        call.arg(position).arg(value(count)).arg(inner.older_ttl_ms);
        calls.push(call);
    }
    let mut worst = RefillOutcome::Filled;
    for reply in FILL.run::<String>(&mut inner.connection.clone(), &calls).await? {
        worst = worst.max(match reply.map_err(classify)?.as_str() {
            "filled" => RefillOutcome::Filled,
            "archive-behind" => RefillOutcome::ArchiveBehind,
            _ => RefillOutcome::Rebuilding,
        });
    }
    Ok(worst)
}

/// The count of an hour without events: zeros, older than any count.
fn empty_count(hour: Hour, partition: u32) -> HourlyCount {
    let (next_offset, clicks, impressions, unique_users) = (0, 0, 0, 0);
    let exactness = Exactness::Exact;
    HourlyCount { hour, partition, generation: 0, next_offset, clicks, impressions, unique_users, exactness }
}

/// A consistent snapshot of the live hours of one partition.
pub(super) async fn snapshot(
    inner: &Inner,
    partition: u32,
    hours: Range<Hour>,
) -> Result<PartitionSnapshot, StoreError> {
    let hours: Vec<Hour> = (hours.start.index()..hours.end.index()).map(Hour::from_index).collect();
    // All keys of a partition are on one node, so one transaction reads them at one moment.
    let mut pipe = redis::pipe();
    pipe.atomic().cmd("HMGET").arg(inner.keys.position(partition)).arg(&FIELDS);
    for hour in &hours {
        pipe.cmd("GET").arg(inner.keys.hour(partition, *hour));
    }
    let replies: Vec<Value> = pipe.query_async(&mut inner.connection.clone()).await.map_err(classify)?;
    let malformed = || StoreError::stop(format!("redis: partition {partition} is malformed"));
    let found = parse_position(replies.first().ok_or_else(malformed)?, malformed)?;
    let Some(found) = found.filter(|found| found.hours >= inner.window.hours()) else {
        return Ok(PartitionSnapshot { partition, position: None, complete: false, counts: Vec::new() });
    };
    let mut counts = Vec::new();
    for (hour, reply) in hours.iter().zip(&replies[1..]) {
        let text: Option<String> = redis::from_redis_value_ref(reply).map_err(|_| malformed())?;
        let stored = text.as_deref().map(|text| parse(text).ok_or_else(malformed)).transpose()?;
        counts.extend(stored.filter(|stored| stored.build == found.build).map(|stored| stored.count(*hour, partition)));
    }
    Ok(PartitionSnapshot { partition, position: Some(found.floor.position), complete: found.complete, counts })
}

/// Deletes the position of every partition, so that writers rebuild all of them.
pub(super) async fn reset(inner: &Inner) -> Result<(), StoreError> {
    inner.check().await?;
    let mut pipe = redis::pipe();
    for partition in 0..inner.partitions {
        pipe.cmd("DEL").arg(inner.keys.position(partition)).ignore();
    }
    pipe.query_async(&mut inner.connection.clone()).await.map_err(classify)
}
