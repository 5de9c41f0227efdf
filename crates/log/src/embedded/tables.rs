//! Finds the damaged table of the database, since fjall's errors do not name the file. Runs only after such an error.
//!
//! The format is that of the pinned version: sections listed at the end of the file; in most of them blocks back to
//! back, each with a header (`LSM` 3, kind, xxh3 of the data as written, its length, its length uncompressed, xxh3 of
//! what came before), little-endian.

use std::fs;
use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_128;

const MAGIC: [u8; 4] = [b'L', b'S', b'M', 3];
/// Bytes of a block's header that its own checksum covers.
const COVERED: usize = 29;
const CHECKSUM: usize = 4;
/// Sections without blocks.
const PLAIN: [&[u8]; 2] = [b"linked_blob_files", b"table_version"];

/// Describes the first damaged table in a keyspace's folder, or in the whole directory, and the loss.
pub(super) fn find_damage(folder: &Path) -> Option<String> {
    let entries = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let below = entries(folder.join("keyspaces")).flat_map(|keyspace| entries(keyspace.join("tables")));
    let mut tables: Vec<_> = entries(folder.join("tables")).chain(below).collect();
    tables.sort();
    tables.iter().find_map(|table| damage(table).err())
}

fn damage(table: &Path) -> Result<(), String> {
    let file = table.display();
    let sections = sfa::Reader::new(table).map_err(|_| format!("{file}: its end is damaged: all of it is lost"))?;
    for section in sections.toc().iter().filter(|section| !PLAIN.contains(&section.name())) {
        let mut left = section.buf_reader(table).map_err(|error| format!("{file}: {error}"))?;
        let mut at = section.pos();
        while left.fill_buf().is_ok_and(|bytes| !bytes.is_empty()) {
            let name = section.name().escape_ascii();
            at += block(&mut left).map_err(|_| format!("{file}: the block of {name} at byte {at} is lost"))?;
        }
    }
    Ok(())
}

/// Reads a block; returns its length in bytes.
fn block(reader: &mut impl Read) -> io::Result<u64> {
    let mut header = [0; COVERED + CHECKSUM];
    reader.read_exact(&mut header)?;
    let sum = xxh3_128(&header[..COVERED]).to_le_bytes();
    let mut whole = header[..4] == MAGIC && header[COVERED..] == sum[..CHECKSUM];
    let length = u32::from_le_bytes([header[21], header[22], header[23], header[24]]);
    let mut data = Vec::new();
    if whole {
        reader.take(length.into()).read_to_end(&mut data)?;
        whole = header[5..21] == xxh3_128(&data).to_le_bytes();
    }
    if whole { Ok(header.len() as u64 + u64::from(length)) } else { Err(io::ErrorKind::InvalidData.into()) }
}
