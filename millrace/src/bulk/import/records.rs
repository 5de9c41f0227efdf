//! Records of the input in either format, each with its line.

use std::fmt;

use clap::ValueEnum;
use millrace_contracts::Code;
use millrace_service::csv::{CsvReader, Fed};
use serde::{Deserialize, Serialize};

use super::Stop;
use super::event::{Event, FIELDS, Fault};
use super::lines::{Line, Lines, MAX_LINE_BYTES, Mark};
use super::ndjson;

/// Format of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// One JSON object per line
    Ndjson,
    /// A header line, then one record per line
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

/// A parser, after the header.
pub(super) enum Parser {
    Ndjson,
    Csv(Box<CsvReader<4>>),
}

impl Parser {
    /// Reads the header, if the format has one.
    pub(super) fn read(format: Format, lines: &mut Lines) -> Result<Self, Failure> {
        match format {
            Format::Ndjson => Ok(Self::Ndjson),
            Format::Csv => match lines.next()? {
                None => Err(Stop::Header("the input is empty".into()).into()),
                Some(Line::TooLong) => Err(Stop::Header(too_long().detail).into()),
                Some(Line::Whole) => match CsvReader::new(lines.text(), FIELDS, 3, MAX_LINE_BYTES) {
                    Ok(csv) => Ok(Self::Csv(Box::new(csv))),
                    Err(refusal) => Err(Stop::Header(refusal.detail.into_owned()).into()),
                },
            },
        }
    }
}

/// A record and its first line.
pub(super) struct Record<'a> {
    pub(super) line: u64,
    pub(super) event: Result<Event<'a>, Fault>,
}

/// Why reading failed. The caller adds the name of the file.
#[derive(Debug)]
pub(super) enum Failure {
    Io(std::io::Error),
    Stop(Stop),
}

/// Reads records.
pub(super) struct Records {
    lines: Lines,
    parser: Parser,
}

impl Records {
    pub(super) fn new(lines: Lines, parser: Parser) -> Self {
        Self { lines, parser }
    }

    /// The next record; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Record<'_>>, Failure> {
        let line = loop {
            match self.lines.next()? {
                None => return Ok(None),
                Some(Line::Whole) if self.lines.text().trim_ascii().is_empty() => {}
                Some(line) => break line,
            }
        };
        let number = self.lines.mark().line;
        let event = match (line, &mut self.parser) {
            // A quote in it would make the next lines a part of its record.
            (Line::TooLong, Parser::Csv(_)) => return Err(Stop::LongLine(number).into()),
            (Line::TooLong, Parser::Ndjson) => Err(too_long()),
            (Line::Whole, Parser::Ndjson) => ndjson::parse(self.lines.text()),
            (Line::Whole, Parser::Csv(csv)) => {
                csv.begin();
                loop {
                    match csv.feed(self.lines.text()) {
                        Fed::Record => break csv.fields().map_err(Fault::from).and_then(Event::of_columns),
                        Fed::TooLong => break Err(record_too_long()),
                        Fed::More if self.lines.next()? == Some(Line::Whole) => {}
                        Fed::More | Fed::Full => return Err(Stop::Unclosed(number).into()),
                    }
                }
            }
        };
        Ok(Some(Record { line: number, event }))
    }

    /// The position after the last record.
    pub(super) fn mark(&self) -> Mark {
        self.lines.mark()
    }
}

fn too_long() -> Fault {
    Fault::new(Code::TooLarge, None, format!("the line is longer than {MAX_LINE_BYTES} bytes"))
}

/// A stray quote makes the lines up to the next one a part of the record.
fn record_too_long() -> Fault {
    let detail = format!("the record is longer than {MAX_LINE_BYTES} bytes; a stray quote may include the next lines");
    Fault::new(Code::TooLarge, None, detail)
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

    /// The line of every record, whether it is valid, and how reading ended.
    fn read(format: Format, text: &str) -> (Vec<(u64, bool)>, Option<Stop>) {
        let mut lines = Lines::new(Box::new(std::io::Cursor::new(text.to_owned().into_bytes())), Mark::default());
        let parser = match Parser::read(format, &mut lines) {
            Ok(parser) => parser,
            Err(Failure::Stop(stop)) => return (Vec::new(), Some(stop)),
            Err(Failure::Io(e)) => panic!("{e}"),
        };
        let mut records = Records::new(lines, parser);
        let mut all = Vec::new();
        loop {
            match records.next() {
                Ok(Some(record)) => all.push((record.line, record.event.is_ok())),
                Ok(None) => return (all, None),
                Err(Failure::Stop(stop)) => return (all, Some(stop)),
                Err(Failure::Io(e)) => panic!("{e}"),
            }
        }
    }

    #[test]
    fn records_have_their_lines() {
        let event = r#"{"timestamp":1,"user":"u","event":"click"}"#;
        let long = "x".repeat(MAX_LINE_BYTES + 1);
        let (all, stop) = read(Format::Ndjson, &format!("\u{feff}{event}\r\n\r\n{long}\nx\n{event}"));
        assert_eq!(all, [(1, true), (3, false), (4, false), (5, true)]);
        assert!(stop.is_none());
        let csv =
            "\u{feff}timestamp,user,event\r\n\r\n1,a,click\r\n2,\"a\r\n2,x,click\r\n\",click\r\n3,c,impression\r\n";
        assert_eq!(read(Format::Csv, csv).0, [(3, true), (4, false), (7, true)]);
    }

    #[test]
    fn a_record_that_is_too_long_and_ends_is_invalid_alone() {
        let part = "x".repeat(MAX_LINE_BYTES * 2 / 3);
        let (all, stop) = read(Format::Csv, &format!("timestamp,user,event\n1,\"{part}\n{part}\",click\n2,b,click\n"));
        assert_eq!(all, [(2, false), (4, true)]);
        assert!(stop.is_none(), "{stop:?}");
    }

    /// A quote in a skipped line would let the next lines, which are a field's content, become records.
    #[test]
    fn stops_at_a_line_of_csv_that_is_too_long() {
        let part = "x".repeat(MAX_LINE_BYTES);
        let text = format!("timestamp,user,event\n1,a,click\n1,\"{part}\n2,victim,click\n\",click\n");
        let (all, stop) = read(Format::Csv, &text);
        assert_eq!(all, [(2, true)]);
        assert!(matches!(stop, Some(Stop::LongLine(3))), "{stop:?}");
    }

    #[test]
    fn stops_at_a_quote_without_an_end() {
        let (all, stop) = read(Format::Csv, "timestamp,user,event\n1,a,click\n2,\"b,click\n3,c,click\n");
        assert_eq!(all, [(2, true)]);
        assert!(matches!(stop, Some(Stop::Unclosed(3))), "{stop:?}");
        let many = format!("timestamp,user,event\n2,\"b,click\n{}", "3,c,click\n".repeat(MAX_LINE_BYTES / 8));
        assert!(matches!(read(Format::Csv, &many), (all, Some(Stop::Unclosed(2))) if all.is_empty()));
        assert!(matches!(read(Format::Csv, ""), (_, Some(Stop::Header(_)))));
    }
}
