//! The answer of a range, written piece by piece: JSON, CSV or NDJSON, by hour or by day, with totals of what adds up.
//!
//! Users do not: one of two hours may be in both. So days and totals have none, and say why.

use std::fmt::Write as _;

use axum::http::HeaderName;
use bytes::Bytes;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use millrace_contracts::{Exactness, Hour};

use crate::Known;
use crate::page::RELATIVE_ERROR;
use crate::params::{Range, Step};

/// Says of every range that its users do not add up.
pub(crate) const USERS: HeaderName = HeaderName::from_static("millrace-unique-users");

const WHY: &str = "unique users of several hours do not add up: one of two hours may be in both";

/// A representation of a range. The first is the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// One object.
    Json,
    /// A header and a row for each hour or day.
    Csv,
    /// An object a line for each hour or day, and one with the totals.
    Ndjson,
}

impl Form {
    pub(crate) const ALL: [Self; 3] = [Self::Json, Self::Csv, Self::Ndjson];

    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Ndjson => "application/x-ndjson",
        }
    }
}

/// Clicks and impressions of some hours.
#[derive(Default)]
struct Sum {
    hours: u32,
    clicks: u64,
    impressions: u64,
    stale: bool,
}

impl Sum {
    fn add(&mut self, known: &Known) {
        self.hours += 1;
        self.clicks = self.clicks.saturating_add(known.totals.clicks);
        self.impressions = self.impressions.saturating_add(known.totals.impressions);
        self.stale |= known.stale;
    }
}

/// Writes a range.
pub(crate) struct Rows {
    form: Form,
    asked: Range,
    /// What has been written: what goes before the rows, and a row.
    begun: bool,
    followed: bool,
    /// The day that has begun: its first hour, and what of it is in the range.
    day: Option<(Hour, Sum)>,
    totals: Sum,
}

impl Rows {
    pub(crate) fn new(form: Form, asked: Range) -> Self {
        Self { form, asked, begun: false, followed: false, day: None, totals: Sum::default() }
    }

    /// The rows of the next hours.
    pub(crate) fn add(&mut self, piece: Vec<(Hour, Known)>) -> Bytes {
        let mut out = String::with_capacity(piece.len() * 192 + 256);
        if !self.begun {
            self.begun = true;
            self.begin(&mut out);
        }
        for (hour, known) in piece {
            self.totals.add(&known);
            match self.asked.step {
                Step::Hour => self.hour(&mut out, hour, &known),
                Step::Day => {
                    let first = Hour::from_index(hour.index().div_euclid(24) * 24);
                    if self.day.as_ref().is_some_and(|(day, _)| *day != first) {
                        self.day(&mut out);
                    }
                    self.day.get_or_insert_with(|| (first, Sum::default())).1.add(&known);
                }
            }
        }
        out.into()
    }

    /// What follows the last row.
    pub(crate) fn end(&mut self) -> Bytes {
        let mut out = String::new();
        self.day(&mut out);
        let totals = self.totals();
        match self.form {
            Form::Json => {
                let _ = writeln!(out, "],\"totals\":{totals}}}");
            }
            Form::Ndjson => {
                let _ = writeln!(out, "{{\"totals\":{totals}}}");
            }
            // A row that is none of the range's would be counted with the others.
            Form::Csv => {}
        }
        out.into()
    }

    fn totals(&self) -> String {
        let Sum { hours, clicks, impressions, stale } = self.totals;
        format!(
            r#"{{"hours":{hours},"unique_users":null,"unique_users_why":"{WHY}","clicks":{clicks},"impressions":{impressions},"stale":{stale}}}"#
        )
    }

    fn begin(&self, out: &mut String) {
        let (from, to) = (self.asked.from.start_ms(), self.asked.to.start_ms());
        let _ = match (self.form, self.asked.step) {
            (Form::Json, Step::Hour) => write!(out, r#"{{"from":{from},"to":{to},"step":"hour","rows":["#),
            (Form::Json, Step::Day) => write!(out, r#"{{"from":{from},"to":{to},"step":"day","rows":["#),
            (Form::Csv, Step::Hour) => {
                writeln!(out, "hour,timestamp,unique_users,clicks,impressions,exactness,tier,stale")
            }
            (Form::Csv, Step::Day) => writeln!(out, "day,timestamp,hours,clicks,impressions,stale"),
            (Form::Ndjson, _) => Ok(()),
        };
    }

    fn hour(&mut self, out: &mut String, hour: Hour, known: &Known) {
        let Known { totals, tier, stale, .. } = known;
        let (unique_users, clicks, impressions) = (totals.unique_users, totals.clicks, totals.impressions);
        let (exactness, tier, timestamp) = (totals.exactness.as_str(), tier.as_str(), hour.start_ms());
        if self.form == Form::Csv {
            let _ =
                writeln!(out, "{hour},{timestamp},{unique_users},{clicks},{impressions},{exactness},{tier},{stale}");
            return;
        }
        self.next_object(out);
        let _ = write!(
            out,
            r#"{{"hour":"{hour}","timestamp":{timestamp},"unique_users":{unique_users},"clicks":{clicks},"impressions":{impressions},"exactness":"{exactness}""#
        );
        if totals.exactness == Exactness::Approximate {
            let _ = write!(out, r#","unique_users_error":{RELATIVE_ERROR}"#);
        }
        let _ = write!(out, r#","tier":"{tier}","stale":{stale}}}"#);
        self.end_object(out);
    }

    /// The day that has begun, if any.
    fn day(&mut self, out: &mut String) {
        let Some((first, sum)) = self.day.take() else { return };
        let Sum { hours, clicks, impressions, stale } = sum;
        let (day, timestamp) = (date(first), first.start_ms());
        if self.form == Form::Csv {
            let _ = writeln!(out, "{day},{timestamp},{hours},{clicks},{impressions},{stale}");
            return;
        }
        self.next_object(out);
        let _ = write!(
            out,
            r#"{{"day":"{day}","timestamp":{timestamp},"hours":{hours},"unique_users":null,"clicks":{clicks},"impressions":{impressions},"stale":{stale}}}"#
        );
        self.end_object(out);
    }

    fn next_object(&mut self, out: &mut String) {
        if self.followed && self.form == Form::Json {
            out.push(',');
        }
        self.followed = true;
    }

    fn end_object(&self, out: &mut String) {
        if self.form == Form::Ndjson {
            out.push('\n');
        }
    }
}

/// `2026-11-21`.
fn date(hour: Hour) -> String {
    let time = Timestamp::from_millisecond(hour.start_ms()).map(|time| time.to_zoned(TimeZone::UTC).date());
    time.map(|date| date.to_string()).unwrap_or_default()
}
