//! The index of a segment: where records with known numbers stand, and checksums of the bytes between.

use std::io::{self, Read};

use super::format::Format;

const MAGIC: &[u8; 8] = b"MRJIDX01";
/// Bytes of the header: the magic word and the format.
pub(super) const HEADER: usize = 16;
const ENTRY: usize = 32;

/// An entry: before `byte` stand records below `record`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct IndexEntry {
    /// Number of the record that begins at `byte`.
    pub(super) record: u64,
    /// When it was received, µs since the epoch: the latest so far.
    pub(super) time_us: i64,
    /// Where it begins.
    pub(super) byte: u64,
    /// CRC-32C of the segment's bytes from the entry before up to here.
    pub(super) checksum: u32,
}

/// The header of the index of a segment.
pub(super) fn header(format: Format) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8] = match format {
        Format::Text => b't',
        Format::Framed => b'f',
    };
    header
}

impl IndexEntry {
    pub(super) fn encode(&self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        bytes[..8].copy_from_slice(&self.record.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.time_us.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.byte.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.checksum.to_le_bytes());
        let own = crc32c::crc32c(&bytes[..28]);
        bytes[28..].copy_from_slice(&own.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; ENTRY]) -> Option<Self> {
        let (words, halves) = (bytes.as_chunks::<8>().0, bytes.as_chunks::<4>().0);
        (crc32c::crc32c(&bytes[..28]) == u32::from_le_bytes(halves[7])).then(|| Self {
            record: u64::from_le_bytes(words[0]),
            time_us: i64::from_le_bytes(words[1]),
            byte: u64::from_le_bytes(words[2]),
            checksum: u32::from_le_bytes(halves[6]),
        })
    }
}

/// Reads an index of `length` bytes.
pub(super) fn read(input: &mut impl Read, length: u64) -> io::Result<(Format, Vec<IndexEntry>)> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut found = [0; HEADER];
    input.read_exact(&mut found)?;
    let format = [Format::Text, Format::Framed].into_iter().find(|format| found == header(*format));
    let format = format.ok_or_else(|| invalid("not the index of a journal"))?;
    let (mut entries, mut bytes) = (Vec::new(), [0; ENTRY]);
    for _ in 0..length.saturating_sub(HEADER as u64) / ENTRY as u64 {
        input.read_exact(&mut bytes)?;
        entries.push(IndexEntry::decode(&bytes).ok_or_else(|| invalid("an entry of the index is damaged"))?);
    }
    Ok((format, entries))
}
