//! Records of the input, whatever its format, each with its line.

use std::fmt;

use clap::ValueEnum;
use millrace_contracts::Code;
use serde::{Deserialize, Serialize};

use super::Stop;
use super::csv::{Csv, Fed};
use super::event::{Event, Fault};
use super::lines::{Line, Lines, MOST_BYTES, Mark};
use super::ndjson;

/// How events are written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// One JSON object a line
    Ndjson,
    /// A header line, then a record a line
    Csv,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
        })
    }
}

/// What is known of a format before the first record.
pub(super) enum Form {
    Ndjson,
    Csv(Box<Csv>),
}

impl Form {
    /// Reads what stands before the first record.
    pub(super) fn read(format: Format, lines: &mut Lines) -> Result<Self, Failure> {
        match format {
            Format::Ndjson => Ok(Self::Ndjson),
            Format::Csv => match lines.next()? {
                None => Err(Stop::Header("there is none".into()).into()),
                Some(Line::TooLong) => Err(Stop::Header(too_long().detail).into()),
                Some(Line::Whole) => Ok(Self::Csv(Box::new(Csv::new(lines.text()).map_err(Stop::Header)?))),
            },
        }
    }
}

/// A record and where it begins.
pub(super) struct Record<'a> {
    pub(super) line: u64,
    pub(super) event: Result<Event<'a>, Fault>,
}

/// Reading failed; the file's name is not known here.
#[derive(Debug)]
pub(super) enum Failure {
    Io(std::io::Error),
    Stop(Stop),
}

/// Reads records.
pub(super) struct Records {
    lines: Lines,
    form: Form,
}

impl Records {
    pub(super) fn new(lines: Lines, form: Form) -> Self {
        Self { lines, form }
    }

    /// The next record, if there is one.
    pub(super) fn next(&mut self) -> Result<Option<Record<'_>>, Failure> {
        let got = loop {
            match self.lines.next()? {
                None => return Ok(None),
                Some(Line::Whole) if self.lines.text().trim_ascii().is_empty() => {}
                Some(got) => break got,
            }
        };
        let line = self.lines.mark().line;
        let event = match (got, &mut self.form) {
            (Line::TooLong, _) => Err(too_long()),
            (Line::Whole, Form::Ndjson) => ndjson::parse(self.lines.text()),
            (Line::Whole, Form::Csv(csv)) => {
                csv.begin();
                loop {
                    match csv.feed(self.lines.text()) {
                        Fed::Record => break csv.parse(),
                        Fed::More if self.lines.next()? == Some(Line::Whole) => {}
                        Fed::More | Fed::Unclosed => return Err(Stop::Unclosed(line).into()),
                    }
                }
            }
        };
        Ok(Some(Record { line, event }))
    }

    /// The place after the record that was read last.
    pub(super) fn mark(&self) -> Mark {
        self.lines.mark()
    }
}

fn too_long() -> Fault {
    Fault::new(Code::TooLarge, None, format!("the line is longer than {MOST_BYTES} bytes"))
}

impl From<std::io::Error> for Failure {
    fn from(why: std::io::Error) -> Self {
        Self::Io(why)
    }
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of all records, whether each is an event, and how reading ended.
    fn read(format: Format, text: &str) -> (Vec<(u64, bool)>, Option<Stop>) {
        let mut lines = Lines::new(Box::new(std::io::Cursor::new(text.to_owned().into_bytes())), Mark::default());
        let form = match Form::read(format, &mut lines) {
            Ok(form) => form,
            Err(Failure::Stop(stop)) => return (Vec::new(), Some(stop)),
            Err(Failure::Io(e)) => panic!("{e}"),
        };
        let mut records = Records::new(lines, form);
        let mut seen = Vec::new();
        loop {
            match records.next() {
                Ok(Some(record)) => seen.push((record.line, record.event.is_ok())),
                Ok(None) => return (seen, None),
                Err(Failure::Stop(stop)) => return (seen, Some(stop)),
                Err(Failure::Io(e)) => panic!("{e}"),
            }
        }
    }

    #[test]
    fn records_know_their_lines() {
        let event = r#"{"timestamp":1,"user":"u","event":"click"}"#;
        let long = "x".repeat(MOST_BYTES + 1);
        let (seen, stop) = read(Format::Ndjson, &format!("\u{feff}{event}\r\n\r\n{long}\nx\n{event}"));
        assert_eq!(seen, [(1, true), (3, false), (4, false), (5, true)]);
        assert!(stop.is_none());
        let csv =
            "\u{feff}timestamp,user,event\r\n\r\n1,a,click\r\n2,\"a\r\n2,x,click\r\n\",click\r\n3,c,impression\r\n";
        assert_eq!(read(Format::Csv, csv).0, [(3, true), (4, false), (7, true)]);
    }

    #[test]
    fn a_quote_without_an_end_stops_it() {
        let (seen, stop) = read(Format::Csv, "timestamp,user,event\n1,a,click\n2,\"b,click\n3,c,click\n");
        assert_eq!(seen, [(2, true)]);
        assert!(matches!(stop, Some(Stop::Unclosed(3))), "{stop:?}");
        let many = format!("timestamp,user,event\n2,\"b,click\n{}", "3,c,click\n".repeat(MOST_BYTES / 8));
        assert!(matches!(read(Format::Csv, &many), (seen, Some(Stop::Unclosed(2))) if seen.is_empty()));
        assert!(matches!(read(Format::Csv, ""), (_, Some(Stop::Header(_)))));
    }
}
