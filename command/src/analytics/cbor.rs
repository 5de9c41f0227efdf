//! CBOR (RFC 8949): an array with a map for each event. Tags are skipped, lengths may be indefinite.
//!
//! A length counts only as its bytes arrive, so that no header reserves memory, and values of the wrong type are read without
//! being stored.

use std::borrow::Cow;

use ciborium_ll::{Decoder, Error, Header};
use millrace_contracts::{Code, Refusal};

use super::event_fields::{EventFields, NAMES};
use super::field::invalid;
use super::items::Items;
use super::json::{given_twice, unknown_field};

/// Deepest nesting. That of an event is two.
const MAX_DEPTH: usize = 16;

/// Reads the items of a body.
///
/// # Errors
/// The body is not a well-formed array, or nests too deep.
pub(super) fn read(body: &[u8], items: &mut Items<'_>) -> Result<(), Refusal> {
    let mut reader = Reader(Decoder::from(body));
    let Header::Array(mut left) = reader.header()? else { return Err(malformed("the body is not an array", 0)) };
    while let Some(header) = reader.next(&mut left)? {
        let fields = match header {
            Header::Map(left) => reader.fields(left)?,
            other => {
                reader.value(other, 2)?;
                Err(Refusal::new(Code::MalformedBody, "the item is not a map"))
            }
        };
        items.push(fields)?;
    }
    let end = reader.0.offset();
    if end == body.len() { Ok(()) } else { Err(malformed("bytes follow the array", end)) }
}

/// A value, as far as events need it.
enum Value {
    Unsigned(u64),
    Text(String),
    Other,
}

struct Reader<'a>(Decoder<&'a [u8]>);

impl Reader<'_> {
    /// The fields of an item. The outer error is that of the whole body.
    fn fields(&mut self, mut left: Option<usize>) -> Result<Result<EventFields<'static>, Refusal>, Refusal> {
        let mut values = NAMES.map(|_| None);
        let mut refusal = None;
        while let Some(header) = self.next(&mut left)? {
            let key = self.value(header, 2)?;
            let header = self.header()?;
            let value = self.value(header, 2)?;
            let Value::Text(key) = key else {
                refusal.get_or_insert_with(|| Refusal::new(Code::UnknownField, "a key of the item is not a text"));
                continue;
            };
            let Some(index) = NAMES.iter().position(|name| *name == key) else {
                refusal.get_or_insert_with(|| unknown_field(&key, &NAMES));
                continue;
            };
            if values[index].replace(value).is_some() {
                refusal.get_or_insert_with(|| given_twice(NAMES[index]));
            }
        }
        Ok(refusal.map_or_else(|| event_fields(values), Err))
    }

    /// The header of the next element; `None` at the end. `left` is the number of elements left, unless it is indefinite.
    fn next(&mut self, left: &mut Option<usize>) -> Result<Option<Header>, Refusal> {
        match left {
            Some(0) => return Ok(None),
            Some(left) => *left -= 1,
            None => {}
        }
        let header = self.header()?;
        Ok(Some(header).filter(|header| left.is_some() || *header != Header::Break))
    }

    /// The next header, without tags.
    fn header(&mut self) -> Result<Header, Refusal> {
        loop {
            match self.0.pull() {
                Ok(Header::Tag(_)) => {}
                Ok(header) => return Ok(header),
                Err(error) => return Err(self.failed(&error)),
            }
        }
    }

    /// The value behind a header.
    fn value(&mut self, header: Header, depth: usize) -> Result<Value, Refusal> {
        if depth > MAX_DEPTH {
            return Err(malformed("nested too deep", self.0.offset()));
        }
        match header {
            Header::Positive(number) => return Ok(Value::Unsigned(number)),
            Header::Text(length) => return self.text(length).map(Value::Text).map_err(|error| self.failed(&error)),
            Header::Bytes(length) => self.skip_bytes(length).map_err(|error| self.failed(&error))?,
            Header::Array(mut left) => {
                while let Some(header) = self.next(&mut left)? {
                    self.value(header, depth + 1)?;
                }
            }
            Header::Map(mut left) => {
                while let Some(key) = self.next(&mut left)? {
                    self.value(key, depth + 1)?;
                    let header = self.header()?;
                    self.value(header, depth + 1)?;
                }
            }
            Header::Negative(_) | Header::Float(_) | Header::Simple(_) => {}
            Header::Break | Header::Tag(_) => return Err(malformed("not the expected CBOR", self.0.offset())),
        }
        Ok(Value::Other)
    }

    fn text(&mut self, length: Option<usize>) -> Result<String, DecodeError> {
        let mut text = String::new();
        let mut piece = [0; 512];
        let mut segments = self.0.text(length);
        while let Some(mut segment) = segments.pull()? {
            while let Some(part) = segment.pull(&mut piece)? {
                text.push_str(part);
            }
        }
        Ok(text)
    }

    fn skip_bytes(&mut self, length: Option<usize>) -> Result<(), DecodeError> {
        let mut piece = [0; 512];
        let mut segments = self.0.bytes(length);
        while let Some(mut segment) = segments.pull()? {
            while segment.pull(&mut piece)?.is_some() {}
        }
        Ok(())
    }

    fn failed(&mut self, error: &DecodeError) -> Refusal {
        match error {
            Error::Io(_) => malformed("the CBOR ends early", self.0.offset()),
            Error::Syntax(at) => malformed("not well-formed CBOR", *at),
        }
    }
}

type DecodeError = Error<<&'static [u8] as ciborium_io::Read>::Error>;

fn event_fields(values: [Option<Value>; 4]) -> Result<EventFields<'static>, Refusal> {
    let [timestamp, user, event, event_id] = values;
    let timestamp = match timestamp {
        Some(Value::Unsigned(number)) => Some(number.to_string().into()),
        Some(_) => return Err(invalid("timestamp", "timestamp is not an unsigned integer".into())),
        None => None,
    };
    let text = |value: Option<Value>, name: &'static str| match value {
        Some(Value::Text(text)) => Ok(Some(Cow::Owned(text))),
        Some(_) => Err(invalid(name, format!("{name} is not a text"))),
        None => Ok(None),
    };
    Ok(EventFields {
        timestamp,
        user: text(user, "user")?,
        event: text(event, "event")?,
        event_id: text(event_id, "event_id")?,
        flag: None,
    })
}

fn malformed(problem: &str, at: usize) -> Refusal {
    Refusal::new(Code::MalformedBody, format!("{problem} (byte {at})"))
}
