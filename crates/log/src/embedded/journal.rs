//! Reads a journal of fjall 3.1 without changing it: its intact length, and the highest of our commits in it.
//!
//! The format is that of the pinned version: a start (tag 1, count, sequence number), items (tag 2) or clears (tag 4),
//! an end (tag 3, xxh3 of the items as written, `FJL` 3), little-endian; then zeros, since files are preallocated.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use xxhash_rust::xxh3::Xxh3;

use super::codec;
use super::layout::COMMITS;

const MAGIC: [u8; 4] = [b'F', b'J', b'L', 3];
/// Of an item: tag, kind, compression, keyspace, key length, value length, length as written.
const ITEM_HEADER: usize = 21;

/// The result of reading a journal.
pub(super) struct JournalScan {
    /// Bytes up to the end of the last intact batch.
    pub(super) valid: u64,
    /// The size of the file in bytes.
    pub(super) length: u64,
    /// Whether anything but zeros follows the last intact batch.
    pub(super) torn: bool,
    /// The highest commit counter found.
    pub(super) commits: Option<u64>,
}

pub(super) fn scan(path: &Path) -> io::Result<JournalScan> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut journal = Journal {
        reader: BufReader::with_capacity(256 << 10, file),
        length,
        position: 0,
        item: Vec::new(),
        commits: None,
    };
    let mut scan = JournalScan { valid: 0, length, torn: false, commits: None };
    while journal.batch()? {
        scan.valid = journal.position;
        scan.commits = journal.commits;
    }
    let mut reader = journal.reader;
    reader.seek(SeekFrom::Start(scan.valid))?;
    let mut rest = vec![0; 256 << 10];
    loop {
        let read = reader.read(&mut rest)?;
        if read == 0 {
            return Ok(scan);
        }
        if rest[..read].iter().any(|&byte| byte != 0) {
            scan.torn = true;
            return Ok(scan);
        }
    }
}

struct Journal {
    reader: BufReader<File>,
    length: u64,
    position: u64,
    item: Vec<u8>,
    /// The highest commit counter in the intact batches and in the current one.
    commits: Option<u64>,
}

impl Journal {
    /// Reads the next batch; false if no intact one follows.
    fn batch(&mut self) -> io::Result<bool> {
        let Some(start) = self.take::<13>()? else { return Ok(false) };
        if start[0] != 1 {
            return Ok(false);
        }
        let count = u32::from_le_bytes([start[1], start[2], start[3], start[4]]);
        let mut sum = Xxh3::new();
        for _ in 0..count {
            let Some(tag) = self.take::<1>()? else { return Ok(false) };
            let whole = match tag[0] {
                2 => self.rest_of_item(tag[0])?,
                4 => self.rest_of_clear(tag[0])?,
                _ => false,
            };
            if !whole {
                return Ok(false);
            }
            sum.update(&self.item);
            if tag[0] == 2 {
                self.commits = self.commits.max(self.counter());
            }
        }
        let Some(end) = self.take::<13>()? else { return Ok(false) };
        let whole = end[0] == 3 && end[1..9] == sum.digest().to_le_bytes() && end[9..] == MAGIC;
        Ok(whole)
    }

    fn rest_of_item(&mut self, tag: u8) -> io::Result<bool> {
        let Some(header) = self.take::<{ ITEM_HEADER - 1 }>()? else { return Ok(false) };
        let key = u16::from_le_bytes([header[10], header[11]]);
        let written = u32::from_le_bytes([header[16], header[17], header[18], header[19]]);
        let payload = u64::from(key) + u64::from(written);
        if payload > self.length - self.position {
            return Ok(false);
        }
        self.item.clear();
        self.item.push(tag);
        self.item.extend_from_slice(&header);
        self.reader.by_ref().take(payload).read_to_end(&mut self.item)?;
        self.position += payload;
        Ok(true)
    }

    fn rest_of_clear(&mut self, tag: u8) -> io::Result<bool> {
        let Some(keyspace) = self.take::<8>()? else { return Ok(false) };
        self.item.clear();
        self.item.push(tag);
        self.item.extend_from_slice(&keyspace);
        Ok(true)
    }

    fn counter(&self) -> Option<u64> {
        let value = self.item.get(ITEM_HEADER..)?.strip_prefix(COMMITS)?;
        let key = u16::from_le_bytes([self.item[11], self.item[12]]);
        if usize::from(key) == COMMITS.len() { codec::number(value) } else { None }
    }

    fn take<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        let mut bytes = [0; N];
        if self.length - self.position < N as u64 {
            return Ok(None);
        }
        self.reader.read_exact(&mut bytes)?;
        self.position += N as u64;
        Ok(Some(bytes))
    }
}
