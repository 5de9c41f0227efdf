//! CSV (RFC 4180) with a header line that names the fields, in any order.
//!
//! A quoted field may contain line breaks. The lines it spans are one record, not several; otherwise the author of a field
//! could inject records.

use csv_core::{ReadRecordResult, Reader, ReaderBuilder, Terminator};
use millrace_contracts::{Code, Refusal};

use crate::shown;

/// Columns beyond this number are not stored.
const MAX_COLUMNS: usize = 8;

/// The result of feeding a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fed {
    /// The record ends with this line.
    Record,
    /// A quoted field continues on the next line.
    More,
    /// The record exceeds the buffer already, and a quoted field continues on the next line.
    Full,
    /// The record ends with this line, and exceeds the buffer: its fields are not known.
    TooLong,
}

/// Reads records with up to `N` fields, at most 8.
pub struct CsvReader<const N: usize> {
    reader: Reader,
    text: Box<[u8]>,
    length: usize,
    /// Whether the record exceeds the buffer.
    full: bool,
    ends: [usize; MAX_COLUMNS],
    columns: usize,
    fields: [&'static str; N],
    /// The column of each field.
    order: [Option<usize>; N],
    width: usize,
}

impl<const N: usize> CsvReader<N> {
    /// Reads the header line. The first `required` of the fields must be in it. A record has at most `max_bytes`, without its
    /// quotes.
    ///
    /// # Errors
    /// Names a column that is unknown, given twice or missing.
    pub fn new(header: &[u8], fields: [&'static str; N], required: usize, max_bytes: usize) -> Result<Self, Refusal> {
        let malformed = |detail| Refusal::new(Code::MalformedBody, detail);
        if header.trim_ascii().is_empty() {
            return Err(malformed("the header line is missing".into()));
        }
        let reader = ReaderBuilder::new().terminator(Terminator::Any(b'\n')).build();
        // One more, for the end of the last field.
        let text = vec![0; max_bytes + 1].into_boxed_slice();
        let (ends, order) = ([0; MAX_COLUMNS], [None; N]);
        let mut csv = Self { reader, text, length: 0, full: false, ends, columns: 0, fields, order, width: 0 };
        csv.begin();
        if csv.feed(header) != Fed::Record {
            return Err(malformed("a name in the header line is too long, or its quotes do not end".into()));
        }
        if csv.columns > MAX_COLUMNS {
            return Err(malformed(format!("more than {MAX_COLUMNS} columns; valid are {}", fields.join(", "))));
        }
        for column in 0..csv.columns {
            let name = String::from_utf8_lossy(csv.column(column)).trim().to_owned();
            let Some(field) = fields.iter().position(|field| *field == name) else {
                let name = shown(&name);
                let detail = format!("unknown column \"{name}\"; valid are {}", fields.join(", "));
                return Err(Refusal::new(Code::UnknownField, detail).field(name));
            };
            if csv.order[field].replace(column).is_some() {
                let detail = format!("column {name} is given twice");
                return Err(Refusal::new(Code::DuplicateField, detail).field(fields[field]));
            }
        }
        if let Some(field) = (0..required).find(|&field| csv.order[field].is_none()) {
            let name = fields[field];
            return Err(Refusal::new(Code::MissingField, format!("column {name} is missing")).field(name));
        }
        csv.width = csv.columns;
        Ok(csv)
    }

    /// Resets for the next record.
    pub fn begin(&mut self) {
        (self.length, self.full, self.columns) = (0, false, 0);
    }

    /// Feeds the next line of the record, without its end.
    pub fn feed(&mut self, line: &[u8]) -> Fed {
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
                    ReadRecordResult::Record => return if self.full { Fed::TooLong } else { Fed::Record },
                    // The rest is read for its quotes alone: the record ends at a line break outside of them.
                    ReadRecordResult::OutputFull => (self.length, self.full) = (0, true),
                    ReadRecordResult::InputEmpty | ReadRecordResult::OutputEndsFull | ReadRecordResult::End => {}
                }
            }
        }
        if self.full { Fed::Full } else { Fed::More }
    }

    /// The fields of the complete record; empty where the header has no such column.
    ///
    /// # Errors
    /// The record has more or fewer columns than the header, or a field is not UTF-8.
    pub fn fields(&self) -> Result<[&str; N], Refusal> {
        if self.columns != self.width {
            let detail = if self.columns > MAX_COLUMNS {
                format!("more than {MAX_COLUMNS} columns; the header has {}", self.width)
            } else {
                format!("{} columns; the header has {}", self.columns, self.width)
            };
            return Err(Refusal::new(Code::MalformedBody, detail));
        }
        let mut fields = [""; N];
        for ((field, column), name) in fields.iter_mut().zip(self.order).zip(self.fields) {
            let Some(column) = column else { continue };
            *field = std::str::from_utf8(self.column(column))
                .map_err(|_| Refusal::new(Code::InvalidEncoding, format!("{name} is not valid UTF-8")).field(name))?;
        }
        Ok(fields)
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

    const MAX: usize = 1_024;

    fn reader(header: &[u8]) -> Result<CsvReader<3>, Refusal> {
        CsvReader::new(header, ["time", "user", "id"], 2, MAX)
    }

    fn read<'a>(csv: &'a mut CsvReader<3>, lines: &[&str]) -> Result<[&'a str; 3], Refusal> {
        csv.begin();
        let (last, first) = lines.split_last().unwrap();
        for line in first {
            assert_eq!(csv.feed(line.as_bytes()), Fed::More, "{line}");
        }
        assert_eq!(csv.feed(last.as_bytes()), Fed::Record, "{last}");
        csv.fields()
    }

    #[test]
    fn reads_columns_in_any_order() {
        let mut csv = reader(b"id, user,\"time\"").unwrap();
        for (line, fields) in [
            ("i,kek,5", ["5", "kek", "i"]),
            ("\"i,\",\"k\"\"e\",\"5\"", ["5", "k\"e", "i,"]),
            (",kek,5", ["5", "kek", ""]),
            (",k\"e,5", ["5", "k\"e", ""]),
        ] {
            assert_eq!(read(&mut csv, &[line]), Ok(fields), "{line}");
        }
    }

    #[test]
    fn a_quoted_line_break_does_not_split_a_record() {
        let mut csv = reader(b"time,user").unwrap();
        assert_eq!(read(&mut csv, &["1,\"a", "2,b", "\""]), Ok(["1", "a\n2,b\n", ""]));
        assert_eq!(read(&mut csv, &["3,c"]), Ok(["3", "c", ""]));
    }

    #[test]
    fn a_bad_record_does_not_affect_the_next() {
        let mut csv = reader(b"time,user").unwrap();
        for line in ["1", "1,u,x", "1,u,,,,,,,,,,,,"] {
            assert_eq!(read(&mut csv, &[line]).unwrap_err().code, Code::MalformedBody, "{line}");
            assert!(read(&mut csv, &["3,c"]).is_ok(), "after {line}");
        }
        csv.begin();
        assert_eq!(csv.feed(b"1,\xff"), Fed::Record);
        let refusal = csv.fields().unwrap_err();
        assert_eq!((refusal.code, refusal.field.as_deref()), (Code::InvalidEncoding, Some("user")));
    }

    #[test]
    fn headers_are_strict() {
        let long = "u".repeat(MAX + 1);
        for (header, code, field) in [
            ("", Code::MalformedBody, None),
            ("\"time,user", Code::MalformedBody, None),
            ("a,b,c,d,e,f,g,h,i,j", Code::MalformedBody, None),
            (&*long, Code::MalformedBody, None),
            ("user", Code::MissingField, Some("time")),
            ("time,user,more", Code::UnknownField, Some("more")),
            ("time,user,user", Code::DuplicateField, Some("user")),
        ] {
            let refusal = reader(header.as_bytes()).err().unwrap();
            assert_eq!((refusal.code, refusal.field.as_deref()), (code, field), "{header}");
        }
    }

    #[test]
    fn detects_a_field_without_an_end_in_bounded_space() {
        let mut csv = reader(b"time,user").unwrap();
        csv.begin();
        let rest = "x".repeat(MAX / 2);
        assert_eq!(csv.feed(format!("1,\"{rest}").as_bytes()), Fed::More);
        assert_eq!([csv.feed(rest.as_bytes()), csv.feed(rest.as_bytes())], [Fed::Full, Fed::Full]);
    }

    #[test]
    fn a_record_that_is_too_long_ends_at_a_line_break_outside_quotes() {
        let mut csv = reader(b"time,user").unwrap();
        let x = "x".repeat(3 * MAX);
        for record in [format!("1,{x}"), x.clone(), format!("1,\"{x}\n2,b\n\"\"\","), format!("1,\"a\n{x}\n\"")] {
            csv.begin();
            let fed: Vec<Fed> = record.split('\n').map(|line| csv.feed(line.as_bytes())).collect();
            let (last, first) = fed.split_last().unwrap();
            assert!(first.iter().all(|fed| matches!(fed, Fed::More | Fed::Full)), "{fed:?}");
            assert_eq!(*last, Fed::TooLong);
            assert_eq!(read(&mut csv, &["3,c"]), Ok(["3", "c", ""]));
        }
        let most = "u".repeat(MAX - 1);
        assert_eq!(read(&mut csv, &[&format!("1,{most}")]), Ok(["1", &*most, ""]));
    }

    proptest! {
        #[test]
        fn unquotes_fields(user in "[^\\p{Cc}]{1,60}", id in "[^\\p{Cc}]{0,30}") {
            let mut csv = reader(b"time,user,id").unwrap();
            let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
            let line = format!("5,{},{}", quoted(&user), quoted(&id));
            prop_assert_eq!(read(&mut csv, &[&line]), Ok(["5", &*user, &*id]));
        }

        #[test]
        fn does_not_panic_on_any_line(header: Vec<u8>, lines: Vec<Vec<u8>>) {
            let mut csv = reader(&header).unwrap_or_else(|_| reader(b"time,user").unwrap());
            for line in lines {
                if csv.feed(&line) == Fed::Record {
                    let _ = csv.fields();
                    csv.begin();
                }
            }
        }
    }
}
