//! Rows: parses them and writes them in a format.

use std::io::{self, Write};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::Step;

/// Format of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A header line, then one row per line
    Csv,
    /// One object with all rows and the totals
    Json,
    /// One object per line, the last one with the totals
    Ndjson,
}

/// A line of a response.
#[derive(Debug)]
pub(super) enum Line<'a> {
    Row(Row<'a>),
    Totals(Totals),
}

/// An hour or a day.
#[derive(Debug, Deserialize)]
pub(super) struct Row<'a> {
    #[serde(alias = "day")]
    hour: &'a str,
    timestamp: i64,
    hours: Option<u32>,
    unique_users: Option<u64>,
    clicks: u64,
    impressions: u64,
    exactness: Option<&'a str>,
    tier: Option<&'a str>,
    stale: bool,
    /// The line itself, so that JSON contains the additional fields of a newer service.
    #[serde(skip)]
    text: &'a str,
}

/// The sums, and the reason why unique users have none.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Totals {
    hours: u32,
    unique_users: Option<u64>,
    clicks: u64,
    impressions: u64,
    stale: bool,
    unique_users_why: String,
}

impl Totals {
    /// Adds the totals of the next piece.
    pub(super) fn add(&mut self, next: &Self) {
        self.hours += next.hours;
        self.clicks = self.clicks.saturating_add(next.clicks);
        self.impressions = self.impressions.saturating_add(next.impressions);
        self.stale |= next.stale;
    }
}

/// Parses a line of a response.
pub(super) fn parse(text: &str) -> serde_json::Result<Line<'_>> {
    #[derive(Deserialize)]
    struct Last {
        totals: Totals,
    }
    match serde_json::from_str::<Last>(text) {
        Ok(Last { totals }) => Ok(Line::Totals(totals)),
        Err(_) => Ok(Line::Row(Row { text, ..serde_json::from_str(text)? })),
    }
}

/// Writes rows in a format, byte for byte like the service.
pub(super) struct Writer<W> {
    out: W,
    format: Format,
    rows: bool,
}

impl<W: Write> Writer<W> {
    /// Writes the beginning; `from` and `to` are the first ms of hours.
    pub(super) fn begin(mut out: W, format: Format, step: Step, from: i64, to: i64) -> io::Result<Self> {
        match (format, step) {
            (Format::Csv, Step::Hour) => {
                writeln!(out, "hour,timestamp,unique_users,clicks,impressions,exactness,tier,stale")?;
            }
            (Format::Csv, Step::Day) => writeln!(out, "day,timestamp,hours,clicks,impressions,stale")?,
            (Format::Json, _) => write!(out, r#"{{"from":{from},"to":{to},"step":"{step}","rows":["#)?,
            (Format::Ndjson, _) => {}
        }
        Ok(Self { out, format, rows: false })
    }

    /// Writes a row.
    pub(super) fn row(&mut self, row: &Row<'_>) -> io::Result<()> {
        let out = &mut self.out;
        let comma = std::mem::replace(&mut self.rows, true);
        match self.format {
            Format::Ndjson => writeln!(out, "{}", row.text),
            Format::Json if comma => write!(out, ",{}", row.text),
            Format::Json => write!(out, "{}", row.text),
            Format::Csv => {
                let Row { hour, timestamp, clicks, impressions, stale, .. } = row;
                if let Some(hours) = row.hours {
                    return writeln!(out, "{hour},{timestamp},{hours},{clicks},{impressions},{stale}");
                }
                let users = row.unique_users.map(|users| users.to_string()).unwrap_or_default();
                let (exactness, tier) = (row.exactness.unwrap_or_default(), row.tier.unwrap_or_default());
                writeln!(out, "{hour},{timestamp},{users},{clicks},{impressions},{exactness},{tier},{stale}")
            }
        }
    }

    /// Writes the end.
    pub(super) fn end(mut self, totals: &Totals) -> io::Result<W> {
        let totals = serde_json::to_string(totals)?;
        match self.format {
            Format::Csv => {}
            Format::Json => writeln!(self.out, "],\"totals\":{totals}}}")?,
            Format::Ndjson => writeln!(self.out, "{{\"totals\":{totals}}}")?,
        }
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: &str = r#"{"hour":"1970-01-01T00Z","timestamp":0,"unique_users":1,"clicks":2,"impressions":3,"exactness":"exact","tier":"archive","stale":false,"new":1}"#;
    const DAY: &str =
        r#"{"day":"1970-01-01","timestamp":0,"hours":24,"unique_users":null,"clicks":2,"impressions":3,"stale":true}"#;
    const TOTALS: &str =
        r#"{"totals":{"hours":1,"unique_users":null,"clicks":2,"impressions":3,"stale":false,"unique_users_why":"w"}}"#;

    fn written(format: Format, step: Step, lines: &[&str]) -> String {
        let mut writer = Writer::begin(Vec::new(), format, step, 0, 3_600_000).unwrap();
        let mut all: Option<Totals> = None;
        for line in lines {
            match parse(line).unwrap() {
                Line::Row(row) => writer.row(&row).unwrap(),
                Line::Totals(totals) => match &mut all {
                    Some(all) => all.add(&totals),
                    None => all = Some(totals),
                },
            }
        }
        String::from_utf8(writer.end(&all.unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn writes_rows_in_each_format() {
        let lines = [HOUR, HOUR, TOTALS];
        assert_eq!(written(Format::Ndjson, Step::Hour, &lines), format!("{HOUR}\n{HOUR}\n{TOTALS}\n"));
        let totals = TOTALS.strip_prefix('{').unwrap();
        let json = format!(r#"{{"from":0,"to":3600000,"step":"hour","rows":[{HOUR},{HOUR}],{totals}"#);
        assert_eq!(written(Format::Json, Step::Hour, &lines), format!("{json}\n"));
        let row = "1970-01-01T00Z,0,1,2,3,exact,archive,false\n";
        let header = "hour,timestamp,unique_users,clicks,impressions,exactness,tier,stale\n";
        assert_eq!(written(Format::Csv, Step::Hour, &lines), format!("{header}{row}{row}"));
        let day = "day,timestamp,hours,clicks,impressions,stale\n1970-01-01,0,24,2,3,true\n";
        assert_eq!(written(Format::Csv, Step::Day, &[DAY, TOTALS]), day);
    }

    #[test]
    fn totals_of_pieces_add_up() {
        let sum = written(Format::Ndjson, Step::Hour, &[TOTALS, TOTALS]);
        assert!(sum.contains(r#""hours":2,"#) && sum.contains(r#""clicks":4,"impressions":6"#), "{sum}");
        assert!(parse("{}").is_err() && parse("<html>").is_err());
    }
}
