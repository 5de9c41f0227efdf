//! Reading an hour: all partitions in one pipelined round trip.

use std::sync::PoisonError;

use millrace_contracts::{Hour, StoreError};
use redis::{FromRedisValue, Value};

use super::Inner;
use super::error::classify;
use super::keys::{is_reservation, parse};
use crate::{Answer, Totals};

/// The highest position seen of a partition, and in which incarnation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    incarnation: String,
    pub(super) position: u64,
}

/// What is read of a position hash.
pub(super) const FIELDS: [&str; 5] = ["position", "incarnation", "build", "complete", "hours"];

/// A partition's position hash, as far as a reader needs it.
pub(super) struct Pos {
    pub(super) seen: Seen,
    pub(super) build: String,
    pub(super) complete: bool,
    pub(super) hours: u32,
}

/// The counts of an hour inside the window, where a missing key is a zero.
pub(super) async fn live(inner: &Inner, hour: Hour) -> Result<Answer, StoreError> {
    let totals = sum(inner, hour, |partition| inner.keys.hour(partition, hour), true).await?;
    Ok(totals.map_or(Answer::Rebuilding, Answer::Known))
}

/// The counts of an older hour, if every partition's part was filled.
pub(super) async fn older(inner: &Inner, hour: Hour) -> Result<Option<Totals>, StoreError> {
    sum(inner, hour, |partition| inner.keys.older(partition, hour), false).await
}

/// Adds up the partitions. The position is read before and after the hour: what is missing means something only when the
/// same complete incarnation was there all along, and the three commands need neither a transaction nor one node.
async fn sum(
    inner: &Inner,
    hour: Hour,
    key: impl Fn(u32) -> String,
    missing_is_zero: bool,
) -> Result<Option<Totals>, StoreError> {
    // Taken before asking: what other readers see meanwhile may be newer than what this one is told.
    let before = inner.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
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
        let (first, last) = (pos(&replies[0], malformed)?, pos(&replies[2], malformed)?);
        let (Some(first), Some(last)) = (first, last) else { return Ok(None) };
        let same = first.seen.incarnation == last.seen.incarnation && first.build == last.build;
        let went_back = first.seen.incarnation == floor.incarnation && first.seen.position < floor.position;
        if !same || !first.complete || first.hours < inner.window.hours() || went_back {
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
        now.push(last.seen);
    }
    remember(&mut inner.seen.lock().unwrap_or_else(PoisonError::into_inner), now);
    Ok(Some(totals))
}

/// Keeps the highest position of each incarnation; replies may be handled out of order.
fn remember(seen: &mut [Seen], now: Vec<Seen>) {
    for (old, new) in seen.iter_mut().zip(now) {
        if old.incarnation != new.incarnation || old.position < new.position {
            *old = new;
        }
    }
}

pub(super) fn pos(reply: &Value, malformed: impl Fn() -> StoreError) -> Result<Option<Pos>, StoreError> {
    let fields = Vec::<Option<String>>::from_redis_value_ref(reply).map_err(|_| malformed())?;
    let [position, incarnation, build, complete, hours] =
        <[Option<String>; 5]>::try_from(fields).map_err(|_| malformed())?;
    let (Some(position), Some(incarnation), Some(build), Some(complete), Some(hours)) =
        (position, incarnation, build, complete, hours)
    else {
        return Ok(None);
    };
    Ok(Some(Pos {
        seen: Seen { incarnation, position: position.parse().map_err(|_| malformed())? },
        build,
        complete: complete == "1",
        hours: hours.parse().map_err(|_| malformed())?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_position_of_an_incarnation_is_remembered() {
        let seen = |incarnation: &str, position| Seen { incarnation: incarnation.into(), position };
        let mut mine = vec![Seen::default()];
        for (now, expected) in [
            (seen("a", 5), seen("a", 5)),
            (seen("a", 4), seen("a", 5)),
            (seen("a", 6), seen("a", 6)),
            (seen("b", 2), seen("b", 2)),
        ] {
            remember(&mut mine, vec![now]);
            assert_eq!(mine, [expected]);
        }
    }
}
