//! Older hours: filled from the archive when they are asked for, corrected by every later count.

use std::ops::Range;
use std::sync::LazyLock;

use millrace_contracts::{Exactness, Hour, HourlyCount, StoreError};
use redis::{Cmd, Value};

use super::Inner;
use super::error::classify;
use super::keys::{parse, value};
use super::reader::{FIELDS, pos};
use super::script::Known;
use crate::Part;

static FILL: LazyLock<Known> = LazyLock::new(|| Known::new(include_str!("older.lua")));

/// What became of an attempt to fill an older hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Filled {
    /// Every part of the hour is there.
    Filled,
    /// Redis has seen more than the archive had: the hour is reserved; read the archive again and fill from that.
    Early,
    /// Redis, or the archive, does not contain everything: nothing can be filled.
    Incomplete,
}

/// Puts the parts of an hour into Redis, each unless Redis has a newer one.
pub(super) async fn fill(inner: &Inner, hour: Hour, parts: &[Part]) -> Result<Filled, StoreError> {
    inner.check().await?;
    let mut calls: Vec<Cmd> = Vec::with_capacity(parts.len());
    for part in parts {
        let (Some(position), true) = (part.position, part.complete) else { return Ok(Filled::Incomplete) };
        let nothing = nothing(hour, part.partition);
        let count = part.counts.iter().find(|count| count.hour == hour).unwrap_or(&nothing);
        let mut call = FILL.call(2);
        call.arg(inner.keys.position(part.partition)).arg(inner.keys.older(part.partition, hour));
        call.arg(position).arg(value(count)).arg(inner.older_ttl_ms);
        calls.push(call);
    }
    let mut worst = Filled::Filled;
    for reply in FILL.run::<String>(&mut inner.connection.clone(), &calls).await? {
        worst = worst.max(match reply.map_err(classify)?.as_str() {
            "filled" => Filled::Filled,
            "early" => Filled::Early,
            _ => Filled::Incomplete,
        });
    }
    Ok(worst)
}

/// A part without events is a zero that is known, older than any count.
fn nothing(hour: Hour, partition: u32) -> HourlyCount {
    let (next_offset, clicks, impressions, unique_users) = (0, 0, 0, 0);
    let exactness = Exactness::Exact;
    HourlyCount { hour, partition, generation: 0, next_offset, clicks, impressions, unique_users, exactness }
}

/// A consistent look at one partition: those of the hours that are live.
pub(super) async fn snapshot(inner: &Inner, partition: u32, hours: Range<Hour>) -> Result<Part, StoreError> {
    let hours: Vec<Hour> = (hours.start.index()..hours.end.index()).map(Hour::from_index).collect();
    // All keys of a partition lie on one node, so one transaction sees them at one moment.
    let mut pipe = redis::pipe();
    pipe.atomic().cmd("HMGET").arg(inner.keys.position(partition)).arg(&FIELDS);
    for hour in &hours {
        pipe.cmd("GET").arg(inner.keys.hour(partition, *hour));
    }
    let replies: Vec<Value> = pipe.query_async(&mut inner.connection.clone()).await.map_err(classify)?;
    let malformed = || StoreError::stop(format!("redis: partition {partition} is malformed"));
    let found = pos(replies.first().ok_or_else(malformed)?, malformed)?;
    let Some(found) = found.filter(|found| found.hours >= inner.window.hours()) else {
        return Ok(Part { partition, position: None, complete: false, counts: Vec::new() });
    };
    let mut counts = Vec::new();
    for (hour, reply) in hours.iter().zip(&replies[1..]) {
        let text: Option<String> = redis::from_redis_value_ref(reply).map_err(|_| malformed())?;
        let stored = text.as_deref().map(|text| parse(text).ok_or_else(malformed)).transpose()?;
        counts.extend(stored.filter(|stored| stored.build == found.build).map(|stored| stored.count(*hour, partition)));
    }
    Ok(Part { partition, position: Some(found.seen.position), complete: found.complete, counts })
}

/// Forgets where every partition stands, so that writers build all of it again.
pub(super) async fn reset(inner: &Inner) -> Result<(), StoreError> {
    inner.check().await?;
    let mut pipe = redis::pipe();
    for partition in 0..inner.partitions {
        pipe.cmd("DEL").arg(inner.keys.position(partition)).ignore();
    }
    pipe.query_async(&mut inner.connection.clone()).await.map_err(classify)
}
