//! The Confluent wire format (magic byte 0, schema id as 4 bytes big-endian, Avro datum) and the few Avro primitives
//! that our fixed schemas need.
//!
//! Hand-written because it stands on the hot path of every event; property tests in each type's module hold it equal to
//! apache-avro, byte for byte. Every length is checked against what is left before anything is taken, so no input can
//! make a reader allocate (`Avro specification 1.12, Binary Encoding`).

/// The longest string or byte field any schema here accepts, in bytes. A log record is capped at 1.25 MiB.
pub const MAX_FIELD_BYTES: usize = 1 << 20;

/// Why bytes are not the record they should be. What happens next is always the same: the record is skipped and kept
/// aside, never retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No value at all.
    #[error("the record has no value")]
    Empty,
    /// The first byte is not the Confluent magic byte 0.
    #[error("not in the Confluent wire format: no magic byte")]
    Magic,
    /// A schema other than the one the topic holds.
    #[error("schema id {found} where {expected} was expected")]
    SchemaId {
        /// The id in the record.
        found: u32,
        /// The id of the type that was asked for.
        expected: u32,
    },
    /// The bytes end inside a field, or a length points past the end.
    #[error("truncated at field {0}")]
    Truncated(&'static str),
    /// A field has a value outside its type.
    #[error("field {0} is out of range")]
    Range(&'static str),
    /// A string is not UTF-8.
    #[error("field {0} is not valid UTF-8")]
    Utf8(&'static str),
    /// Bytes are left after the last field.
    #[error("bytes are left after the last field")]
    Trailing,
}

/// Appends the framing of `schema_id`.
pub(crate) fn begin(out: &mut Vec<u8>, schema_id: u32) {
    out.push(0);
    out.extend_from_slice(&schema_id.to_be_bytes());
}

/// Appends an Avro int or long: zig-zag, then base 128, least significant group first.
#[expect(clippy::cast_possible_truncation, reason = "seven bits are taken at a time")]
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

/// Takes fields off a framed datum, in the order of its schema.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Checks the framing of a record value.
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
            // The tenth byte holds the last bit of 64; anything more does not fit a long.
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

    /// A long that must lie in `0..=i64::MAX`.
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
