//! JSON bodies of `/analytics`. Their OpenAPI schemas derive from the same types.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::Date;
use millrace_contracts::{Exactness, Hour};
use millrace_service::openapi::words;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, Type};

use crate::stores::port::{HourCounts, Tier};

/// The relative standard error of approximate unique users: that of a sketch of 2^14 registers, 1.04 / sqrt(2^14). A
/// partition whose set is still exact only lowers it.
pub(crate) const USERS_ERROR: f64 = 0.0081;

/// Why days and totals have no unique users.
const NOT_ADDITIVE: &str = "unique users of several hours do not add up: a user may be active in more than one";

/// What was counted in an hour.
#[derive(Serialize, ToSchema)]
pub(super) struct Counts {
    unique_users: u64,
    clicks: u64,
    impressions: u64,
}

/// How exact and how fresh the counts of an hour are.
#[derive(Serialize, ToSchema)]
pub(super) struct Freshness {
    /// Whether `unique_users` is exact; clicks and impressions always are.
    #[schema(schema_with = exactness)]
    exactness: &'static str,
    /// The relative standard error of approximate unique users.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    unique_users_error: Option<f64>,
    /// The read model that served the counts.
    #[schema(schema_with = tier)]
    tier: &'static str,
    /// Whether the counts may lag: the read model of this hour is unavailable, or it lacks events that the log has had for a
    /// while.
    stale: bool,
}

/// A time as bodies and headers have it.
pub(super) struct Time(Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// The counts of an hour.
#[derive(Serialize, ToSchema)]
#[schema(as = Hour)]
pub(super) struct HourBody {
    #[serde(flatten)]
    counts: Counts,
    /// When the read of the store began.
    #[serde(serialize_with = "display")]
    #[schema(value_type = String, format = DateTime)]
    as_of: Timestamp,
    /// The counts contain every event that the log received before this time; absent while that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime, nullable = false)]
    counted_up_to: Option<Time>,
    #[serde(flatten)]
    freshness: Freshness,
}

/// The counts of the current hour in an event of the live stream.
#[derive(Serialize, ToSchema)]
#[schema(as = LiveHour)]
pub(super) struct LiveHourBody {
    #[serde(serialize_with = "display")]
    #[schema(value_type = String, pattern = r"^\d{4,}-\d\d-\d\dT\d\dZ$")]
    hour: Hour,
    /// The start of the hour, in ms since the epoch.
    timestamp: i64,
    #[serde(flatten)]
    body: HourBody,
}

/// An hour of a range.
#[derive(Serialize, ToSchema)]
pub(super) struct HourRow {
    #[serde(serialize_with = "display")]
    #[schema(value_type = String, pattern = r"^\d{4,}-\d\d-\d\dT\d\dZ$")]
    hour: Hour,
    /// The start of the hour, in ms since the epoch.
    timestamp: i64,
    #[serde(flatten)]
    counts: Counts,
    #[serde(flatten)]
    freshness: Freshness,
}

/// A UTC day of a range.
#[derive(Serialize, ToSchema)]
pub(super) struct DayRow {
    #[serde(serialize_with = "display")]
    #[schema(value_type = String, pattern = r"^\d{4,}-\d\d-\d\d$")]
    pub(super) day: Date,
    /// The start of the day, in ms since the epoch.
    pub(super) timestamp: i64,
    #[serde(flatten)]
    pub(super) sums: Sums,
}

/// The totals of a range.
#[derive(Serialize, ToSchema)]
pub(super) struct Totals {
    #[serde(flatten)]
    sums: Sums,
    /// Why `unique_users` is null.
    unique_users_why: &'static str,
}

/// Clicks and impressions of several hours.
#[derive(Clone, Copy, Default, Serialize, ToSchema)]
pub(super) struct Sums {
    /// The number of hours that are summed up.
    pub(super) hours: u32,
    #[schema(schema_with = null)]
    unique_users: (),
    pub(super) clicks: u64,
    pub(super) impressions: u64,
    /// Whether one of the hours is stale.
    pub(super) stale: bool,
}

impl Counts {
    fn new(counts: &HourCounts) -> Self {
        let totals = &counts.totals;
        Self { unique_users: totals.unique_users, clicks: totals.clicks, impressions: totals.impressions }
    }
}

impl Freshness {
    fn new(counts: &HourCounts) -> Self {
        let approximate = counts.totals.exactness == Exactness::Approximate;
        Self {
            exactness: counts.totals.exactness.as_str(),
            unique_users_error: approximate.then_some(USERS_ERROR),
            tier: counts.tier.as_str(),
            stale: counts.stale,
        }
    }
}

impl HourBody {
    pub(super) fn new(counts: &HourCounts) -> Self {
        Self {
            counts: Counts::new(counts),
            as_of: time(counts.as_of_ms),
            counted_up_to: counts.coverage.up_to_ms.map(|ms| Time(time(ms))),
            freshness: Freshness::new(counts),
        }
    }
}

impl LiveHourBody {
    pub(super) fn new(hour: Hour, counts: &HourCounts) -> Self {
        Self { hour, timestamp: hour.start_ms(), body: HourBody::new(counts) }
    }
}

impl HourRow {
    pub(super) fn new(hour: Hour, counts: &HourCounts) -> Self {
        let timestamp = hour.start_ms();
        Self { hour, timestamp, counts: Counts::new(counts), freshness: Freshness::new(counts) }
    }
}

impl Totals {
    pub(super) fn new(sums: Sums) -> Self {
        Self { sums, unique_users_why: NOT_ADDITIVE }
    }
}

impl Sums {
    pub(super) fn add(&mut self, counts: &HourCounts) {
        self.hours += 1;
        self.clicks = self.clicks.saturating_add(counts.totals.clicks);
        self.impressions = self.impressions.saturating_add(counts.totals.impressions);
        self.stale |= counts.stale;
    }
}

/// A body as JSON.
pub(super) fn json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("bodies have string keys, and memory takes any length")
}

/// A time in ms since the epoch as bodies and headers have it. A time out of range is the epoch.
pub(super) fn time(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or_default()
}

fn display<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

pub(super) fn exactness() -> ObjectBuilder {
    words([Exactness::Exact, Exactness::Approximate].map(Exactness::as_str))
}

pub(super) fn tier() -> ObjectBuilder {
    words([Tier::Memory, Tier::Redis, Tier::Archive].map(Tier::as_str))
}

fn null() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Null)
}
