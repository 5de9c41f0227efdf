//! The newest segment of a journal and its index, open to be written.

use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;

use millrace_contracts::{JournalRecord, ProjectionPosition};
use millrace_log::sabotaged;

use super::directory::{HeldDirectory, open_writable};
use super::error::{At as _, JournalError};
use super::format::{Encoder, Format};
use super::index::{self, IndexEntry};
use super::sidecar::Position;

/// Most bytes between two entries of the index, but for the last record.
const INDEX_SPACING: u64 = 1 << 20;

/// A segment with what was added but not written.
#[derive(Debug)]
pub(super) struct Segment {
    number: u64,
    log: File,
    index: File,
    encoder: Encoder,
    /// Bytes of both files that are written.
    length: u64,
    index_length: u64,
    /// Bytes to be written.
    added: Vec<u8>,
    index_added: Vec<u8>,
    /// Where the last entry of the index points to.
    entry_byte: u64,
    /// Checksum of the bytes from there up to `summed` bytes of those added.
    checksum: u32,
    summed: usize,
    next_record: u64,
    time_us: i64,
    first_time_us: i64,
}

impl Segment {
    /// Creates the segment that begins with a record.
    pub(super) fn create(
        held: &HeldDirectory,
        format: Format,
        number: u64,
        time_us: i64,
    ) -> Result<Self, JournalError> {
        let (log_path, index_path) = (held.directory.segment(number), held.directory.index(number));
        let (log, index) = (open_writable(&log_path)?, open_writable(&index_path)?);
        log.set_len(0).at(&log_path)?;
        index.set_len(0).at(&index_path)?;
        held.sync()?;
        let first = IndexEntry { record: number, time_us, byte: 0, checksum: 0 };
        Ok(Self {
            number,
            log,
            index,
            encoder: Encoder::new(format),
            length: 0,
            index_length: 0,
            added: Vec::new(),
            index_added: [&index::header(format)[..], &first.encode()].concat(),
            entry_byte: 0,
            checksum: 0,
            summed: 0,
            next_record: number,
            time_us,
            first_time_us: time_us,
        })
    }

    /// Opens the segment of a position, and cuts off what was written behind it.
    pub(super) fn recover(held: &HeldDirectory, position: &Position) -> Result<Self, JournalError> {
        let (log_path, index_path) = (held.directory.segment(position.segment), held.directory.index(position.segment));
        let (log, index) = (open_writable(&log_path)?, open_writable(&index_path)?);
        for (file, path, length) in [(&log, &log_path, position.length), (&index, &index_path, position.index_length)] {
            let found = file.metadata().at(path)?.len();
            if found < length {
                let why = format!("{found} bytes where {length} were durable: bytes of the journal are lost");
                return Err(JournalError::damaged(path, why));
            }
            let length = if sabotaged("sabotage::cut-journal-short") { length.saturating_sub(1) } else { length };
            if found > length {
                tracing::info!(path = %path.display(), bytes = found - length, "cutting what was not durable");
                file.set_len(length).at(path)?;
                file.sync_all().at(path)?;
            }
        }
        let (format, entries) = index::read(&mut BufReader::new(&index), position.index_length).at(&index_path)?;
        let (first, last) = (entries.first().copied(), entries.last().copied());
        let (first, last) = first.zip(last).ok_or_else(|| JournalError::damaged(&index_path, "no entries"))?;
        let mut tail = Vec::new();
        (&log).seek(SeekFrom::Start(last.byte)).at(&log_path)?;
        (&log).take(position.length.saturating_sub(last.byte)).read_to_end(&mut tail).at(&log_path)?;
        if crc32c::crc32c(&tail) != position.checksum {
            let why = format!("the bytes from byte {} do not match the sidecar", last.byte);
            return Err(JournalError::damaged(&log_path, why));
        }
        Ok(Self {
            number: position.segment,
            log,
            index,
            encoder: Encoder::new(format),
            length: position.length,
            index_length: position.index_length,
            added: Vec::new(),
            index_added: Vec::new(),
            entry_byte: last.byte,
            checksum: position.checksum,
            summed: 0,
            next_record: position.next_record,
            time_us: position.time_us,
            first_time_us: first.time_us,
        })
    }

    pub(super) fn format(&self) -> Format {
        self.encoder.format()
    }

    pub(super) fn time_us(&self) -> i64 {
        self.time_us
    }

    /// When its first record was received.
    pub(super) fn first_time_us(&self) -> i64 {
        self.first_time_us
    }

    /// Bytes with those that are not written.
    pub(super) fn end(&self) -> u64 {
        self.length + self.added.len() as u64
    }

    /// Adds a record. Numbers rise.
    pub(super) fn add(&mut self, number: u64, record: &JournalRecord<'_>) {
        self.time_us = self.time_us.max(record.received_at_us);
        let byte = self.end();
        // The numbers of all records follow from the entries.
        if byte > 0 && (number != self.next_record || byte - self.entry_byte >= INDEX_SPACING) {
            self.add_entry(number);
        }
        self.encoder.encode(record, &mut self.added);
        self.next_record = number + 1;
    }

    /// Adds the last entry of the index: no record follows.
    pub(super) fn seal(&mut self) {
        self.add_entry(self.next_record);
    }

    fn add_entry(&mut self, record: u64) {
        let checksum = crc32c::crc32c_append(self.checksum, &self.added[self.summed..]);
        let entry = IndexEntry { record, time_us: self.time_us, byte: self.end(), checksum };
        self.index_added.extend_from_slice(&entry.encode());
        (self.entry_byte, self.checksum, self.summed) = (entry.byte, 0, self.added.len());
    }

    /// Writes what was added and makes it durable.
    pub(super) fn flush(&mut self, held: &HeldDirectory) -> Result<(), JournalError> {
        let sync = !sabotaged("sabotage::skip-sync");
        if !self.added.is_empty() {
            let path = held.directory.segment(self.number);
            self.log.write_all_at(&self.added, self.length).at(&path)?;
            if sync {
                self.log.sync_data().at(&path)?;
            }
        }
        if !self.index_added.is_empty() {
            let path = held.directory.index(self.number);
            self.index.write_all_at(&self.index_added, self.index_length).at(&path)?;
            if sync {
                self.index.sync_data().at(&path)?;
            }
        }
        self.checksum = crc32c::crc32c_append(self.checksum, &self.added[self.summed..]);
        self.summed = 0;
        self.length += self.added.len() as u64;
        self.index_length += self.index_added.len() as u64;
        self.added.clear();
        self.index_added.clear();
        Ok(())
    }

    /// The position once the sidecar has it.
    pub(super) fn position(&self, before: &Position, next: ProjectionPosition) -> Position {
        Position {
            generation: before.generation + 1,
            journal_id: before.journal_id,
            segment: self.number,
            next_offset: next.next_offset,
            next_record: self.next_record,
            length: self.length,
            index_length: self.index_length,
            time_us: self.time_us,
            checksum: self.checksum,
            last_record: next.last_record,
        }
    }
}
