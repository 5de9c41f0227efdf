//! CSV: a header line with the names of the fields, then a record for each event.

use millrace_contracts::{Code, Refusal};
use millrace_service::csv::{CsvReader, Fed};

use super::event_fields::{EventFields, NAMES};
use super::items::Items;

/// Longest record, without its quotes. One with the longest valid fields takes a fiftieth of it.
const MAX_RECORD_BYTES: usize = 16 << 10;
/// What Excel begins its files with.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads the items of a body.
///
/// # Errors
/// The header is not valid, a quoted field does not end, or there are too many items.
pub(super) fn read(body: &[u8], items: &mut Items<'_>) -> Result<(), Refusal> {
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let mut lines = body.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut csv = CsvReader::new(lines.next().unwrap_or_default(), NAMES, 3, MAX_RECORD_BYTES)?;
    while let Some(mut line) = lines.next() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        csv.begin();
        let fields = loop {
            match csv.feed(line) {
                Fed::Record => break csv.fields(),
                Fed::TooLong => break Err(too_long()),
                Fed::More | Fed::Full => line = lines.next().ok_or_else(|| unclosed(items))?,
            }
        };
        items.push(fields.map(of_columns))?;
    }
    Ok(())
}

/// An empty cell is none.
fn of_columns(columns: [&str; 4]) -> EventFields<'_> {
    let [timestamp, user, event, event_id] = columns.map(|cell| (!cell.is_empty()).then(|| cell.into()));
    EventFields { timestamp, user, event, event_id, flag: None }
}

/// A stray quote makes the lines up to the next one a part of the record.
fn too_long() -> Refusal {
    let detail =
        format!("the record is longer than {MAX_RECORD_BYTES} bytes; a stray quote may include the next lines");
    Refusal::new(Code::TooLarge, detail)
}

/// What follows such a record cannot be distinguished from its fields.
fn unclosed(items: &Items<'_>) -> Refusal {
    Refusal::new(Code::MalformedBody, format!("record {} has a quoted field without an end", items.len() + 1))
}
