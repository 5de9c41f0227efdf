//! Bodies with many items: NDJSON or a JSON array, split into items that are not parsed yet.

use std::fmt;

use millrace_contracts::{Code, Refusal};
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::MediaTypes;

/// The format of a batch, by its media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchFormat {
    /// `application/x-ndjson`: one item a line; blank lines are skipped.
    Lines,
    /// `application/json`: an array.
    Array,
}

impl BatchFormat {
    /// Its media types.
    pub const TYPES: MediaTypes<Self> =
        MediaTypes::new(&[("application/x-ndjson", Self::Lines), ("application/json", Self::Array)]);

    /// Splits a body into items, at most `max_items`. An item that is not UTF-8 is refused alone.
    ///
    /// # Errors
    /// When the body is not in this format, begins with a byte order mark, or has more items.
    pub fn split(self, body: &[u8], max_items: usize) -> Result<Vec<Result<&str, Refusal>>, Refusal> {
        refuse_mark(body)?;
        match self {
            Self::Lines => lines(body, max_items),
            Self::Array => array(body, max_items),
        }
    }
}

/// A body of JSON as text.
///
/// # Errors
/// When it is not UTF-8, or begins with a byte order mark (RFC 8259, 8.1).
pub fn json_text(body: &[u8]) -> Result<&str, Refusal> {
    refuse_mark(body)?;
    std::str::from_utf8(body).map_err(|_| not_utf8())
}

fn refuse_mark(body: &[u8]) -> Result<(), Refusal> {
    if body.starts_with(b"\xef\xbb\xbf") {
        return Err(Refusal::new(Code::MalformedBody, "the body begins with a byte order mark"));
    }
    Ok(())
}

fn not_utf8() -> Refusal {
    Refusal::new(Code::InvalidEncoding, "not valid UTF-8")
}

/// The refusal of a batch with more than `max_items`.
pub fn too_many_items(max_items: usize) -> Refusal {
    Refusal::new(Code::TooManyItems, format!("more than {max_items} items"))
}

/// The refusal of JSON that does not parse: where, without the input that the parser may quote.
pub fn malformed_json(error: &serde_json::Error) -> Refusal {
    let problem = if error.is_eof() { "the JSON ends early" } else { "not the expected JSON" };
    Refusal::new(Code::MalformedBody, format!("{problem} (line {}, column {})", error.line(), error.column()))
}

fn lines(body: &[u8], max_items: usize) -> Result<Vec<Result<&str, Refusal>>, Refusal> {
    let lines = body.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let items = lines.take(max_items + 1).map(|line| std::str::from_utf8(line).map_err(|_| not_utf8()));
    let items: Vec<_> = items.collect();
    if items.len() > max_items { Err(too_many_items(max_items)) } else { Ok(items) }
}

fn array(body: &[u8], max_items: usize) -> Result<Vec<Result<&str, Refusal>>, Refusal> {
    let text = std::str::from_utf8(body).map_err(|_| not_utf8())?;
    let mut parser = serde_json::Deserializer::from_str(text);
    let (items, more) = Elements { max: max_items }.deserialize(&mut parser).map_err(|error| malformed_json(&error))?;
    if more {
        return Err(too_many_items(max_items));
    }
    parser.end().map_err(|error| malformed_json(&error))?;
    Ok(items.into_iter().map(|raw| Ok(raw.get())).collect())
}

/// Reads at most `max` elements, and whether there are more.
struct Elements {
    max: usize,
}

impl<'de> DeserializeSeed<'de> for Elements {
    type Value = (Vec<&'de RawValue>, bool);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Elements {
    type Value = (Vec<&'de RawValue>, bool);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        let mut more = false;
        // Past the bound elements are skipped, so that the array is still read to its end.
        while let Some(item) = elements.next_element::<&RawValue>()? {
            if items.len() < self.max {
                items.push(item);
            } else {
                more = true;
            }
        }
        Ok((items, more))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_within_the_bound() {
        let items = BatchFormat::Lines.split(b"{}\n\n \xff\r\n1", 3).unwrap();
        assert_eq!(items, [Ok("{}"), Err(not_utf8()), Ok("1")]);
        assert_eq!(BatchFormat::Array.split(b" [1, {\"a\":2}]\n", 2).unwrap(), [Ok("1"), Ok("{\"a\":2}")]);
        for (format, body, code) in [
            (BatchFormat::Lines, &b"1\n2\n3"[..], Code::TooManyItems),
            (BatchFormat::Array, b"[1,2,3]", Code::TooManyItems),
            (BatchFormat::Array, b"[1,2,3", Code::MalformedBody),
            (BatchFormat::Array, b"[1]x", Code::MalformedBody),
            (BatchFormat::Array, b"\xef\xbb\xbf[]", Code::MalformedBody),
            (BatchFormat::Array, b"[\"\xff\"]", Code::InvalidEncoding),
        ] {
            assert_eq!(format.split(body, 2).unwrap_err().code, code, "{body:?}");
        }
    }
}
