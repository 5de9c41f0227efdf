//! An event of the live stream: its id, and how it is encoded.

use std::fmt;

use bytes::Bytes;
use millrace_contracts::Hour;

use super::body::{self, LiveHourBody};
use super::current::HourResult;
use super::render::HourResponse;
use crate::stores::port::ReadError;

/// An encoded event.
#[derive(Clone)]
pub(crate) struct LiveEvent {
    pub(crate) key: EventKey,
    pub(crate) bytes: Bytes,
}

/// What makes two events different.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventKey {
    Counts(EventId),
    Unavailable(ReadError),
}

impl EventKey {
    pub(crate) fn new(hour: Hour, result: &HourResult) -> Self {
        match result {
            Ok(response) => Self::Counts(EventId::new(hour, response)),
            Err(error) => Self::Unavailable(*error),
        }
    }
}

impl LiveEvent {
    pub(crate) fn new(hour: Hour, key: EventKey, result: &HourResult) -> Self {
        let bytes = match (key, result) {
            (EventKey::Counts(id), Ok(response)) => {
                let mut event = format!("event: hour\nid: {id}\ndata: ").into_bytes();
                event.extend(body::json(&LiveHourBody::new(hour, &response.counts)));
                event.extend_from_slice(b"\n\n");
                event
            }
            (EventKey::Unavailable(error), _) => unavailable(error),
            (EventKey::Counts(_), Err(error)) => unavailable(*error),
        };
        Self { key, bytes: bytes.into() }
    }
}

fn unavailable(error: ReadError) -> Vec<u8> {
    format!("event: unavailable\ndata: {{\"code\":\"{}\"}}\n\n", error.code().0).into()
}

/// The id of an event with counts: the counts themselves, so that any instance can resume a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EventId {
    hour: i64,
    unique_users: u64,
    clicks: u64,
    impressions: u64,
    stale: bool,
}

impl EventId {
    fn new(hour: Hour, response: &HourResponse) -> Self {
        let totals = &response.counts.totals;
        let (unique_users, clicks, impressions) = (totals.unique_users, totals.clicks, totals.impressions);
        Self { hour: hour.index(), unique_users, clicks, impressions, stale: response.counts.stale }
    }

    /// Parses a `Last-Event-ID`; `None` if it is not an id of this service.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
        let (hour, unique_users, clicks, impressions) = (number()?, number()?, number()?, number()?);
        let stale = match parts.next() {
            None => false,
            Some("stale") => true,
            Some(_) => return None,
        };
        let hour = i64::try_from(hour).ok()?;
        parts.next().is_none().then_some(Self { hour, unique_users, clicks, impressions, stale })
    }

    /// Whether these counts are of an earlier hour than `other`, or lower.
    pub(crate) fn is_behind(&self, other: &Self) -> bool {
        let lower = self.clicks < other.clicks || self.impressions < other.impressions;
        self.hour < other.hour || (self.hour == other.hour && lower)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hour, unique_users, clicks, impressions, stale } = self;
        let stale = if *stale { "-stale" } else { "" };
        write!(f, "{hour:x}-{unique_users:x}-{clicks:x}-{impressions:x}{stale}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip() {
        let id = EventId { hour: 498_680, unique_users: 7, clicks: u64::MAX, impressions: 0, stale: false };
        for id in [id, EventId { stale: true, ..id }] {
            assert_eq!(EventId::parse(&id.to_string()), Some(id));
        }
        for bad in ["", "1", "1-2-3", "1-2-3-4-x", "1-2-3-4-stale-", "g-2-3-4", "-1-2-3-4", "1-2-3-4-5"] {
            assert_eq!(EventId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_id_with_lower_counts_is_behind() {
        let id = EventId { hour: 5, unique_users: 7, clicks: 7, impressions: 7, stale: false };
        for (other, behind) in [
            (id, false),
            (EventId { clicks: 8, ..id }, true),
            (EventId { impressions: 8, clicks: 6, ..id }, true),
            (EventId { unique_users: 8, ..id }, false),
            (EventId { hour: 6, clicks: 0, ..id }, true),
            (EventId { hour: 4, clicks: 9, ..id }, false),
        ] {
            assert_eq!(id.is_behind(&other), behind, "{other:?}");
        }
    }
}
