//! The Confluent wire format (magic byte 0, schema id as 4 bytes big-endian, Avro datum) and the Avro primitives that the
//! fixed schemas need.
//!
//! Hand-written because it is on the hot path of every event. Property tests in each type's module compare it with
//! apache-avro, byte for byte. The decoder checks every length against the remaining bytes and never allocates (Avro
//! specification 1.12, Binary Encoding).

/// Maximum length of a string or bytes field in every schema. A log record has at most 1.25 MiB.
pub const MAX_FIELD_BYTES: usize = 1 << 20;

/// Why bytes are not a valid record. A retry does not help: the consumer quarantines or skips the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The record has no value.
    #[error("the record has no value")]
    Empty,
    /// The first byte is not the Confluent magic byte 0.
    #[error("not in the Confluent wire format: no magic byte")]
    Magic,
    /// The schema is not the one of the topic.
    #[error("schema id {found}, expected {expected}")]
    SchemaId {
        /// The id in the record.
        found: u32,
        /// The id of the expected type.
        expected: u32,
    },
    /// The bytes end inside a field, or a length exceeds the remaining bytes.
    #[error("truncated at field {0}")]
    Truncated(&'static str),
    /// A field has a value outside its range.
    #[error("field {0} is out of range")]
    Range(&'static str),
    /// A string is not UTF-8.
    #[error("field {0} is not valid UTF-8")]
    Utf8(&'static str),
    /// Bytes follow the last field.
    #[error("bytes follow the last field")]
    Trailing,
}

/// Appends the header with `schema_id`.
pub(crate) fn begin(out: &mut Vec<u8>, schema_id: u32) {
    out.push(0);
    out.extend_from_slice(&schema_id.to_be_bytes());
}

/// Appends an Avro int or long: zig-zag, then base 128, least significant group first.
#[expect(clippy::cast_possible_truncation, reason = "each byte takes seven bits")]
pub(crate) fn put_long(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Appends an Avro string or bytes field.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_long(out, i64::try_from(bytes.len()).unwrap_or(i64::MAX));
    out.extend_from_slice(bytes);
}

/// Decodes the fields of a framed datum, in the order of its schema.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Checks the header of a record value.
    pub(crate) fn open(value: &'a [u8], expected: u32) -> Result<Self, DecodeError> {
        match value {
            [] => Err(DecodeError::Empty),
            [0, a, b, c, d, rest @ ..] => {
                let found = u32::from_be_bytes([*a, *b, *c, *d]);
                if found == expected { Ok(Self { rest }) } else { Err(DecodeError::SchemaId { found, expected }) }
            }
            [0, ..] => Err(DecodeError::Truncated("schema id")),
            _ => Err(DecodeError::Magic),
        }
    }

    pub(crate) fn long(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        let mut value = 0_u64;
        for (i, &byte) in self.rest.iter().enumerate() {
            // The tenth byte carries the last of 64 bits; more do not fit a long.
            if i == 9 && byte > 1 {
                return Err(DecodeError::Range(field));
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.rest = &self.rest[i + 1..];
                return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        Err(DecodeError::Truncated(field))
    }

    /// A long in `0..=i64::MAX`.
    pub(crate) fn count(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        u64::try_from(self.long(field)?).map_err(|_| DecodeError::Range(field))
    }

    pub(crate) fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = usize::try_from(self.long(field)?).map_err(|_| DecodeError::Range(field))?;
        if len > MAX_FIELD_BYTES {
            return Err(DecodeError::Range(field));
        }
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Truncated(field))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn string(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes(field)?).map_err(|_| DecodeError::Utf8(field))
    }

    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
    }
}
