//! Reads of an hour: all partitions in one pipelined round trip.

use std::sync::PoisonError;

use millrace_contracts::{CountedPosition, Hour, StoreError};
use redis::{FromRedisValue, Value};

use super::Inner;
use super::error::classify;
use super::keys::{is_reservation, parse};
use crate::{HourRead, Totals};

/// The highest observed position of a partition, and its incarnation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PartitionFloor {
    incarnation: String,
    pub(super) position: u64,
}

/// The fields of the position hash.
pub(super) const FIELDS: [&str; 6] = ["position", "incarnation", "build", "complete", "hours", "written_from"];

/// A parsed position hash.
pub(super) struct PositionFields {
    pub(super) floor: PartitionFloor,
    pub(super) build: String,
    pub(super) complete: bool,
    pub(super) hours: u32,
    /// The first hour that every writer of the build wrote; `None` in positions of earlier versions.
    written_from: Option<i64>,
}

/// The counts of an hour inside the window, where a missing key means zero.
pub(super) async fn live(inner: &Inner, hour: Hour) -> Result<HourRead, StoreError> {
    let totals = sum(inner, hour, |partition| inner.keys.hour(partition, hour), true).await?;
    Ok(totals.map_or(HourRead::Rebuilding, HourRead::Complete))
}

/// The counts of an older hour, if every partition is filled.
pub(super) async fn older(inner: &Inner, hour: Hour) -> Result<Option<Totals>, StoreError> {
    sum(inner, hour, |partition| inner.keys.older(partition, hour), false).await
}

/// Up to which position each partition is counted. Raises the floors to what it read: should Redis lose it, a later read of
/// counts is refused, and does not have less than was said here.
pub(super) async fn counted(inner: &Inner) -> Result<Vec<Option<CountedPosition>>, StoreError> {
    let mut pipe = redis::pipe();
    for partition in 0..inner.partitions {
        let position = inner.keys.position(partition);
        pipe.cmd("HGET").arg(&position).arg("counted");
        pipe.cmd("HMGET").arg(&position).arg(&FIELDS);
    }
    let replies: Vec<Value> = pipe.query_async(&mut inner.connection.clone()).await.map_err(classify)?;
    let (mut all, mut now) = (Vec::new(), Vec::new());
    for (partition, replies) in (0..inner.partitions).zip(replies.chunks_exact(2)) {
        let malformed = || StoreError::stop(format!("redis: the position of partition {partition} is malformed"));
        let counted = Option::<String>::from_redis_value_ref(&replies[0]).map_err(|_| malformed())?;
        let found = parse_position(&replies[1], malformed)?;
        let is_complete = |found: &PositionFields| found.complete && found.hours >= inner.window.hours();
        all.push(match (&found, counted) {
            (Some(found), Some(text)) if is_complete(found) => parse_counted(partition, &text),
            _ => None,
        });
        now.extend(found.map(|found| found.floor));
    }
    if now.len() == all.len() {
        raise(&mut inner.floors.lock().unwrap_or_else(PoisonError::into_inner), now);
    }
    Ok(all)
}

/// Parses `next_offset:log_time`.
fn parse_counted(partition: u32, text: &str) -> Option<CountedPosition> {
    let (next_offset, log_time) = text.split_once(':')?;
    Some(CountedPosition { partition, next_offset: next_offset.parse().ok()?, log_time_ms: log_time.parse().ok()? })
}

/// Sums the partitions. It reads the position before and after the hour: a missing key means zero only if the same complete
/// incarnation was there both times. So the three commands need neither a transaction nor a common node.
async fn sum(
    inner: &Inner,
    hour: Hour,
    key: impl Fn(u32) -> String,
    missing_is_zero: bool,
) -> Result<Option<Totals>, StoreError> {
    // Copied before the read: what other readers observe meanwhile may be newer than this reply.
    let before = inner.floors.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut pipe = redis::pipe();
    for partition in 0..inner.partitions {
        let position = inner.keys.position(partition);
        pipe.cmd("HMGET").arg(&position).arg(&FIELDS);
        pipe.cmd("GET").arg(key(partition));
        pipe.cmd("HMGET").arg(&position).arg(&FIELDS);
    }
    let replies: Vec<Value> = pipe.query_async(&mut inner.connection.clone()).await.map_err(classify)?;

    let mut totals = Totals::default();
    let mut now = Vec::with_capacity(before.len());
    for ((partition, floor), replies) in (0..inner.partitions).zip(&before).zip(replies.chunks_exact(3)) {
        let malformed = || StoreError::stop(format!("redis: partition {partition} of {hour} is malformed"));
        let (first, last) = (parse_position(&replies[0], malformed)?, parse_position(&replies[2], malformed)?);
        let (Some(first), Some(last)) = (first, last) else { return Ok(None) };
        let same = first.floor.incarnation == last.floor.incarnation && first.build == last.build;
        let decreased = first.floor.incarnation == floor.incarnation && first.floor.position < floor.position;
        if !same || !first.complete || first.hours < inner.window.hours() || decreased {
            return Ok(None);
        }
        // By the clock of a writer the hour had left the window: it left out its counts.
        if missing_is_zero && last.written_from.is_some_and(|from| hour.index() < from) {
            return Ok(None);
        }
        let value = Option::<String>::from_redis_value_ref(&replies[1]).map_err(|_| malformed())?;
        let value = value.as_deref().filter(|text| missing_is_zero || !is_reservation(text));
        let stored = value.map(|text| parse(text).ok_or_else(malformed)).transpose()?;
        match stored.filter(|stored| stored.build == first.build) {
            Some(stored) => totals.add(stored.clicks, stored.impressions, stored.unique_users, stored.exactness),
            None if missing_is_zero => {}
            None => return Ok(None),
        }
        now.push(last.floor);
    }
    raise(&mut inner.floors.lock().unwrap_or_else(PoisonError::into_inner), now);
    Ok(Some(totals))
}

/// Raises the floors to newer positions; replies may arrive out of order.
fn raise(floors: &mut [PartitionFloor], now: Vec<PartitionFloor>) {
    for (old, new) in floors.iter_mut().zip(now) {
        if old.incarnation != new.incarnation || old.position < new.position {
            *old = new;
        }
    }
}

pub(super) fn parse_position(
    reply: &Value,
    malformed: impl Fn() -> StoreError,
) -> Result<Option<PositionFields>, StoreError> {
    let fields = Vec::<Option<String>>::from_redis_value_ref(reply).map_err(|_| malformed())?;
    let [position, incarnation, build, complete, hours, written_from] =
        <[Option<String>; 6]>::try_from(fields).map_err(|_| malformed())?;
    let (Some(position), Some(incarnation), Some(build), Some(complete), Some(hours)) =
        (position, incarnation, build, complete, hours)
    else {
        return Ok(None);
    };
    Ok(Some(PositionFields {
        floor: PartitionFloor { incarnation, position: position.parse().map_err(|_| malformed())? },
        build,
        complete: complete == "1",
        hours: hours.parse().map_err(|_| malformed())?,
        written_from: written_from.map(|from| from.parse().map_err(|_| malformed())).transpose()?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_keep_the_highest_position_of_an_incarnation() {
        let floor = |incarnation: &str, position| PartitionFloor { incarnation: incarnation.into(), position };
        let mut floors = vec![PartitionFloor::default()];
        for (now, expected) in [
            (floor("a", 5), floor("a", 5)),
            (floor("a", 4), floor("a", 5)),
            (floor("a", 6), floor("a", 6)),
            (floor("b", 2), floor("b", 2)),
        ] {
            raise(&mut floors, vec![now]);
            assert_eq!(floors, [expected]);
        }
    }
}
