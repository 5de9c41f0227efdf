//! Reads the segments of a journal as one stream, up to what is durable, without holding the directory.

use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _, SeekFrom, Take};
use std::path::Path;

use super::directory::Directory;
use super::error::{At as _, JournalError};
use super::format::{Entry, Format, read_entry};
use super::index::{self, IndexEntry};
use super::sidecar::Position;

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// With the first record there is.
    Start,
    /// With the record of this number, or the next one there is.
    Record(u64),
    /// With the first record received at this time or later, µs since the epoch.
    Time(i64),
}

/// A stream of records.
#[derive(Debug)]
pub struct JournalReader {
    directory: Directory,
    end: Position,
    /// The segments, rising.
    segments: Vec<u64>,
    open: Option<OpenSegment>,
    /// Records before are skipped.
    from: From,
}

#[derive(Debug)]
struct OpenSegment {
    number: u64,
    format: Format,
    input: BufReader<Take<File>>,
    /// The byte of the next record.
    byte: u64,
    /// Number of the next record.
    record: u64,
    index: Vec<IndexEntry>,
    /// The next entry of the index.
    next_entry: usize,
}

/// The index of a segment, as far as it is durable, and the segment's durable length.
pub(super) fn read_index(
    directory: &Directory,
    end: &Position,
    number: u64,
) -> Result<(Format, Vec<IndexEntry>, u64), JournalError> {
    let (log, path) = (directory.segment(number), directory.index(number));
    let file = File::open(&path).at(&path)?;
    let (length, index_length) = if number == end.segment {
        (end.length, end.index_length)
    } else {
        (std::fs::metadata(&log).at(&log)?.len(), file.metadata().at(&path)?.len())
    };
    let (format, entries) = index::read(&mut BufReader::new(file), index_length).at(&path)?;
    if entries.is_empty() {
        return Err(JournalError::damaged(&path, "no entries"));
    }
    Ok((format, entries, length))
}

/// The durable end and the segments of a directory.
pub(super) fn survey(directory: &Directory) -> Result<(Position, Vec<u64>), JournalError> {
    let end = directory.read_sidecar()?;
    let mut segments = directory.segments()?;
    segments.retain(|number| end.index_length > 0 && *number <= end.segment);
    Ok((end, segments))
}

impl JournalReader {
    /// Opens the journal of a directory.
    pub fn open(directory: &Path, from: From) -> Result<Self, JournalError> {
        let directory = Directory::new(directory);
        let (end, segments) = survey(&directory)?;
        let mut reader = Self { directory, end, segments, open: None, from };
        reader.open = reader.seek()?;
        Ok(reader)
    }

    /// The durable end that the reader goes up to.
    pub fn end(&self) -> &Position {
        &self.end
    }

    /// Looks for what became durable since; true if there is more to read.
    pub fn refresh(&mut self) -> Result<bool, JournalError> {
        let (end, segments) = survey(&self.directory)?;
        let more = end.generation != self.end.generation;
        (self.end, self.segments) = (end, segments);
        if more && let Some(open) = self.open.take() {
            self.open = Some(self.open_at(open.number, open.byte)?);
        } else if self.open.is_none() {
            self.open = self.seek()?;
        }
        Ok(more)
    }

    /// The segment where reading begins, opened at the last entry of its index before that.
    fn seek(&self) -> Result<Option<OpenSegment>, JournalError> {
        let mut found = None;
        for &number in self.segments.iter().rev() {
            let (_, entries, _) = read_index(&self.directory, &self.end, number)?;
            let before = |entry: &IndexEntry| match self.from {
                From::Start => false,
                From::Record(record) => entry.record <= record,
                From::Time(time_us) => entry.time_us < time_us,
            };
            found = Some((number, entries.iter().rev().find(|entry| before(entry)).map_or(0, |entry| entry.byte)));
            if entries.first().is_some_and(before) {
                break;
            }
        }
        found.map(|(number, byte)| self.open_at(number, byte)).transpose()
    }

    fn open_at(&self, number: u64, byte: u64) -> Result<OpenSegment, JournalError> {
        let (format, index, length) = read_index(&self.directory, &self.end, number)?;
        let path = self.directory.segment(number);
        let mut file = File::open(&path).at(&path)?;
        let from = index.iter().rposition(|entry| entry.byte <= byte).unwrap_or(0);
        file.seek(SeekFrom::Start(index[from].byte)).at(&path)?;
        let input = BufReader::with_capacity(256 << 10, file.take(length.saturating_sub(index[from].byte)));
        let (start, record) = (index[from].byte, index[from].record);
        let mut open = OpenSegment { number, format, input, byte: start, record, index, next_entry: from + 1 };
        let mut entry = Entry::default();
        while open.byte < byte && open.next(&mut entry).at(&path)?.is_some() {}
        Ok(open)
    }

    /// Reads the next record and returns its number; `None` at the durable end.
    pub fn next(&mut self, entry: &mut Entry) -> Result<Option<u64>, JournalError> {
        while let Some(open) = &mut self.open {
            let path = self.directory.segment(open.number);
            let Some(number) = open.next(entry).at(&path)? else {
                let Some(&following) = self.segments.iter().find(|number| **number > open.number) else {
                    return Ok(None);
                };
                self.open = Some(self.open_at(following, 0)?);
                continue;
            };
            let begins = match self.from {
                From::Start => true,
                From::Record(from) => number >= from,
                From::Time(from) => entry.time_us().is_some_and(|time_us| time_us >= from),
            };
            if begins {
                self.from = From::Start;
                return Ok(Some(number));
            }
        }
        Ok(None)
    }
}

impl OpenSegment {
    fn next(&mut self, entry: &mut Entry) -> std::io::Result<Option<u64>> {
        if let Some(known) = self.index.get(self.next_entry).filter(|known| known.byte == self.byte) {
            self.record = known.record;
            self.next_entry += 1;
        }
        if !read_entry(self.format, &mut self.input, entry)? {
            return Ok(None);
        }
        self.byte += entry.bytes;
        self.record += 1;
        Ok(Some(self.record - 1))
    }
}
