//! The body of a range, written chunk by chunk: JSON, CSV or NDJSON, by hour or by day, with totals.
//!
//! Days and totals have no unique users: a user may be active in more than one hour.

use std::io::Write as _;

use axum::http::HeaderName;
use bytes::Bytes;
use jiff::tz::TimeZone;
use millrace_contracts::Hour;
use serde::Serialize;

use super::body::{self, DayRow, HourRow, Sums, Totals};
use super::params::{RangeQuery, Step};
use crate::stores::port::HourCounts;

/// The header that declares that unique users do not add up.
pub(crate) const USERS: HeaderName = HeaderName::from_static("millrace-unique-users");

/// A representation of a range. The first is the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RangeFormat {
    /// One object with all rows and the totals.
    Json,
    /// A header and a row for each hour or day.
    Csv,
    /// One object per line for each hour or day, and a last one with the totals.
    Ndjson,
}

impl RangeFormat {
    pub(crate) const ALL: [Self; 3] = [Self::Json, Self::Csv, Self::Ndjson];

    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Ndjson => "application/x-ndjson",
        }
    }
}

/// Writes the body of a range.
pub(crate) struct RowWriter {
    format: RangeFormat,
    query: RangeQuery,
    /// Whether the text before the rows has been written.
    begun: bool,
    /// Whether a row has been written.
    has_rows: bool,
    /// The day whose hours are being summed up: its first hour, and the sums.
    day: Option<(Hour, Sums)>,
    totals: Sums,
}

impl RowWriter {
    pub(crate) fn new(format: RangeFormat, query: RangeQuery) -> Self {
        Self { format, query, begun: false, has_rows: false, day: None, totals: Sums::default() }
    }

    /// The rows of the next hours.
    pub(crate) fn write(&mut self, chunk: &[(Hour, HourCounts)]) -> Bytes {
        let mut out = Vec::with_capacity(chunk.len() * 192 + 256);
        if !self.begun {
            self.begun = true;
            self.write_head(&mut out);
        }
        for &(hour, ref counts) in chunk {
            self.totals.add(counts);
            match self.query.step {
                Step::Hour => self.write_hour(&mut out, hour, counts),
                Step::Day => {
                    let first = Hour::from_index(hour.index().div_euclid(24) * 24);
                    if self.day.as_ref().is_some_and(|(day, _)| *day != first) {
                        self.write_day(&mut out);
                    }
                    self.day.get_or_insert_with(|| (first, Sums::default())).1.add(counts);
                }
            }
        }
        out.into()
    }

    /// The text after the last row.
    pub(crate) fn finish(&mut self) -> Bytes {
        let mut out = Vec::new();
        self.write_day(&mut out);
        let totals = Totals::new(self.totals);
        match self.format {
            RangeFormat::Json => {
                out.extend_from_slice(b"],\"totals\":");
                out.extend(body::json(&totals));
                out.extend_from_slice(b"}\n");
            }
            RangeFormat::Ndjson => {
                out.extend_from_slice(b"{\"totals\":");
                out.extend(body::json(&totals));
                out.extend_from_slice(b"}\n");
            }
            // Programs that sum up a column would count a row of totals, too.
            RangeFormat::Csv => {}
        }
        out.into()
    }

    fn write_head(&self, out: &mut Vec<u8>) {
        let (from, to, step) = (self.query.from.start_ms(), self.query.to.start_ms(), self.query.step.as_str());
        let _ = match (self.format, self.query.step) {
            (RangeFormat::Json, _) => write!(out, r#"{{"from":{from},"to":{to},"step":"{step}","rows":["#),
            (RangeFormat::Csv, Step::Hour) => {
                writeln!(out, "hour,timestamp,unique_users,clicks,impressions,exactness,tier,stale")
            }
            (RangeFormat::Csv, Step::Day) => writeln!(out, "day,timestamp,hours,clicks,impressions,stale"),
            (RangeFormat::Ndjson, _) => Ok(()),
        };
    }

    fn write_hour(&mut self, out: &mut Vec<u8>, hour: Hour, counts: &HourCounts) {
        if self.format != RangeFormat::Csv {
            return self.write_object(out, &HourRow::new(hour, counts));
        }
        let HourCounts { totals, tier, stale, .. } = counts;
        let (unique_users, clicks, impressions) = (totals.unique_users, totals.clicks, totals.impressions);
        let (exactness, tier, timestamp) = (totals.exactness.as_str(), tier.as_str(), hour.start_ms());
        let _ = writeln!(out, "{hour},{timestamp},{unique_users},{clicks},{impressions},{exactness},{tier},{stale}");
    }

    /// Writes the day whose hours are being summed up, if there is one.
    fn write_day(&mut self, out: &mut Vec<u8>) {
        let Some((first, sums)) = self.day.take() else { return };
        let timestamp = first.start_ms();
        let day = body::time(timestamp).to_zoned(TimeZone::UTC).date();
        if self.format != RangeFormat::Csv {
            return self.write_object(out, &DayRow { day, timestamp, sums });
        }
        let Sums { hours, clicks, impressions, stale, .. } = sums;
        let _ = writeln!(out, "{day},{timestamp},{hours},{clicks},{impressions},{stale}");
    }

    fn write_object(&mut self, out: &mut Vec<u8>, row: &impl Serialize) {
        if self.has_rows && self.format == RangeFormat::Json {
            out.push(b',');
        }
        self.has_rows = true;
        out.extend(body::json(row));
        if self.format == RangeFormat::Ndjson {
            out.push(b'\n');
        }
    }
}
