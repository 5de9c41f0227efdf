//! CSV (RFC 4180) with a header line: the columns `timestamp`, `user`, `event` and, if wanted, `event_id`, in any order.
//!
//! A quoted field may contain line breaks. No valid event has one, but the lines it spans are one record, not several; otherwise
//! the author of a user's name could inject events.

use std::borrow::Cow;

use csv_core::{ReadRecordResult, Reader, ReaderBuilder, Terminator};
use millrace_contracts::Code;
use millrace_service::shown;

use super::event::{Event, FIELDS, Fault};
use super::lines::MAX_LINE_BYTES;

/// Columns beyond this number are not stored; only four are valid.
const MAX_COLUMNS: usize = 8;

/// The result of feeding a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fed {
    /// The record ends with this line.
    Record,
    /// A quoted field continues on the next line.
    More,
    /// A quoted field exceeds the buffer.
    Unclosed,
}

/// Reads records of one file.
pub(super) struct Csv {
    reader: Reader,
    text: Box<[u8]>,
    length: usize,
    ends: [usize; MAX_COLUMNS],
    columns: usize,
    /// The column of each of [`FIELDS`].
    order: [Option<usize>; 4],
    width: usize,
}

impl Csv {
    /// Reads the header line.
    pub(super) fn new(header: &[u8]) -> Result<Self, String> {
        let reader = ReaderBuilder::new().terminator(Terminator::Any(b'\n')).build();
        let text = vec![0; MAX_LINE_BYTES + 1].into_boxed_slice();
        let (ends, order) = ([0; MAX_COLUMNS], [None; 4]);
        let mut csv = Self { reader, text, length: 0, ends, columns: 0, order, width: 0 };
        csv.begin();
        if csv.feed(header) != Fed::Record {
            return Err("a quoted name does not end on its line".into());
        }
        if csv.columns > MAX_COLUMNS {
            return Err(format!("more than {MAX_COLUMNS} columns; valid are {}", FIELDS.join(", ")));
        }
        for column in 0..csv.columns {
            let name = String::from_utf8_lossy(csv.column(column)).trim().to_owned();
            let Some(field) = FIELDS.iter().position(|field| *field == name) else {
                return Err(format!("unknown column \"{}\"; valid are {}", shown(&name), FIELDS.join(", ")));
            };
            if csv.order[field].replace(column).is_some() {
                return Err(format!("column {name} is given twice"));
            }
        }
        if let Some(missing) = (0..3).find(|&field| csv.order[field].is_none()) {
            return Err(format!("column {} is missing", FIELDS[missing]));
        }
        csv.width = csv.columns;
        Ok(csv)
    }

    /// Resets for the next record.
    pub(super) fn begin(&mut self) {
        (self.length, self.columns) = (0, 0);
    }

    /// Feeds the next line of the record.
    pub(super) fn feed(&mut self, line: &[u8]) -> Fed {
        for mut input in [line, b"\n"] {
            while !input.is_empty() {
                // Columns past the last slot are only counted: they are too many, whatever their content.
                let slots = &mut self.ends[self.columns.min(MAX_COLUMNS - 1)..];
                let (result, read, written, ended) =
                    self.reader.read_record(input, &mut self.text[self.length..], slots);
                input = &input[read..];
                self.length += written;
                self.columns += ended;
                match result {
                    ReadRecordResult::Record => return Fed::Record,
                    ReadRecordResult::OutputFull => return Fed::Unclosed,
                    ReadRecordResult::InputEmpty | ReadRecordResult::OutputEndsFull | ReadRecordResult::End => {}
                }
            }
        }
        Fed::More
    }

    /// The event of the complete record.
    pub(super) fn parse(&self) -> Result<Event<'_>, Fault> {
        if self.columns != self.width {
            let detail = if self.columns > MAX_COLUMNS {
                format!("more than {MAX_COLUMNS} columns; the header has {}", self.width)
            } else {
                format!("{} columns; the header has {}", self.columns, self.width)
            };
            return Err(Fault::new(Code::MalformedBody, None, detail));
        }
        let text = |field: usize| {
            let Some(column) = self.order[field] else { return Ok("") };
            std::str::from_utf8(self.column(column)).map_err(|_| {
                let name = FIELDS[field];
                Fault::new(Code::InvalidEncoding, Some(name), format!("{name} is not valid UTF-8"))
            })
        };
        // An empty cell means no id.
        let event_id = Some(text(3)?).filter(|id| !id.is_empty()).map(Cow::Borrowed);
        Event::new(text(0)?, text(1)?.into(), text(2)?, event_id)
    }

    fn column(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[index]]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read<'a>(csv: &'a mut Csv, lines: &[&str]) -> Result<Event<'a>, Fault> {
        csv.begin();
        let (last, first) = lines.split_last().unwrap();
        for line in first {
            assert_eq!(csv.feed(line.as_bytes()), Fed::More, "{line}");
        }
        assert_eq!(csv.feed(last.as_bytes()), Fed::Record, "{last}");
        csv.parse()
    }

    #[test]
    fn reads_columns_in_any_order() {
        let mut csv = Csv::new(b"event_id, user,\"event\",timestamp").unwrap();
        for (line, user, kind, id) in [
            ("i,kek,click,5", "kek", "click", Some("i")),
            ("\"i,\",\"k\"\"e\",impression,\"5\"", "k\"e", "impression", Some("i,")),
            (",kek,click,5", "kek", "click", None),
            (",k\"e,click,5", "k\"e", "click", None),
        ] {
            let expected = Event::new("5", user.into(), kind, id.map(Cow::Borrowed));
            assert_eq!(read(&mut csv, &[line]), expected, "{line}");
        }
    }

    #[test]
    fn a_quoted_line_break_does_not_split_a_record() {
        let mut csv = Csv::new(b"timestamp,user,event").unwrap();
        let fault = read(&mut csv, &["1,\"a", "2,b,click", "\",click"]).unwrap_err();
        assert_eq!((fault.code, fault.field), (Code::InvalidField, Some("user")));
        assert!(read(&mut csv, &["3,c,click"]).is_ok());
    }

    #[test]
    fn reports_each_fault_with_its_field() {
        let mut csv = Csv::new(b"timestamp,user,event").unwrap();
        for (line, code, field) in [
            ("1,u", Code::MalformedBody, None),
            ("1,u,click,x", Code::MalformedBody, None),
            ("1,u,click,,,,,,,,,,,,", Code::MalformedBody, None),
            ("x,u,click", Code::InvalidField, Some("timestamp")),
            ("1,,click", Code::InvalidField, Some("user")),
            ("1,u, click", Code::InvalidField, Some("event")),
        ] {
            let fault = read(&mut csv, &[line]).unwrap_err();
            assert_eq!((fault.code, fault.field), (code, field), "{line}");
            assert!(read(&mut csv, &["3,c,click"]).is_ok(), "after {line}");
        }
        csv.begin();
        assert_eq!(csv.feed(b"1,\xff,click"), Fed::Record);
        assert_eq!(csv.parse().unwrap_err().code, Code::InvalidEncoding);
    }

    #[test]
    fn headers_are_strict() {
        for bad in
            ["", "user,event", "timestamp,user,event,more", "timestamp,user,user,event", "\"a", "a,b,c,d,e,f,g,h,i,j"]
        {
            assert!(Csv::new(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn detects_a_field_without_an_end_in_bounded_space() {
        let mut csv = Csv::new(b"timestamp,user,event").unwrap();
        csv.begin();
        let line = format!("1,\"{}", "x".repeat(MAX_LINE_BYTES / 2));
        assert_eq!([csv.feed(line.as_bytes()), csv.feed(line.as_bytes())], [Fed::More, Fed::Unclosed]);
    }

    proptest! {
        #[test]
        fn unquotes_fields(user in "[^\\p{Cc}]{1,60}", id in "[^\\p{Cc}]{0,30}") {
            let mut csv = Csv::new(b"timestamp,user,event,event_id").unwrap();
            let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
            let line = format!("5,{},click,{}", quoted(&user), quoted(&id));
            let expected = Event::new("5", user.as_str().into(), "click", Some(id.as_str().into()).filter(|_| !id.is_empty()));
            prop_assert_eq!(read(&mut csv, &[&line]), expected);
        }

        #[test]
        fn does_not_panic_on_any_line(header: Vec<u8>, lines: Vec<Vec<u8>>) {
            let mut csv = Csv::new(&header).unwrap_or_else(|_| Csv::new(b"timestamp,user,event").unwrap());
            for line in lines {
                if csv.feed(&line) == Fed::Record {
                    let _ = csv.parse();
                    csv.begin();
                }
            }
        }
    }
}
