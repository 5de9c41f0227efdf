//! Checks every byte of a journal that is durable.

use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::Path;

use super::directory::Directory;
use super::error::{At as _, JournalError};
use super::format::{Entry, read_entry};
use super::reader::{read_index, survey};

/// Most gaps and problems that a report lists; all are counted.
const LISTED: usize = 20;

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Verification {
    /// Segments read.
    pub segments: u64,
    /// Records read.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Numbers of the first and the last record.
    pub first_and_last: Option<(u64, u64)>,
    /// Numbers without a record, as (first, last); the log gave them to no message, or a segment was removed.
    pub gaps: Vec<(u64, u64)>,
    /// Number of gaps, with those that are not listed.
    pub gap_count: u64,
    /// What is wrong.
    pub problems: Vec<String>,
    /// Number of problems, with those that are not listed.
    pub problem_count: u64,
}

impl Verification {
    fn problem(&mut self, problem: impl FnOnce() -> String) {
        self.problem_count += 1;
        if self.problems.len() < LISTED {
            self.problems.push(problem());
        }
    }

    fn gap(&mut self, first: u64, last: u64) {
        self.gap_count += 1;
        if self.gaps.len() < LISTED {
            self.gaps.push((first, last));
        }
    }

    /// Goes on with the record of a number.
    fn reach(&mut self, number: u64, path: &Path) {
        let Some((_, last)) = self.first_and_last else { return };
        if number > last + 1 {
            self.gap(last + 1, number - 1);
        } else if number <= last {
            self.problem(|| format!("{}: record {number} stands behind record {last}", path.display()));
        }
    }
}

/// Checks the checksum of every record and of every entry of the indexes, and that numbers rise.
pub fn verify(directory: &Path) -> Result<Verification, JournalError> {
    let directory = Directory::new(directory);
    let (end, segments) = survey(&directory)?;
    let mut found = Verification::default();
    for number in segments {
        found.segments += 1;
        let path = directory.segment(number);
        let (format, index, length) = match read_index(&directory, &end, number) {
            Ok(read) => read,
            Err(error @ JournalError::Damaged { .. }) => {
                found.problem(|| error.to_string());
                continue;
            }
            Err(error) => return Err(error),
        };
        let mut input = BufReader::with_capacity(256 << 10, File::open(&path).at(&path)?.take(length));
        let mut entry = Entry::default();
        for (at, from) in index.iter().enumerate() {
            let next = index.get(at + 1);
            let until = next.map_or(length, |next| next.byte);
            let mut bytes = vec![0; usize::try_from(until.saturating_sub(from.byte)).unwrap_or(usize::MAX)];
            if let Err(error) = input.read_exact(&mut bytes) {
                found.problem(|| format!("{}: {} bytes from byte {}: {error}", path.display(), bytes.len(), from.byte));
                break;
            }
            // A segment before the newest ends with an entry.
            let expected = next.map_or(if number == end.segment { end.checksum } else { 0 }, |next| next.checksum);
            if crc32c::crc32c(&bytes) != expected {
                found.problem(|| format!("{}: bytes {} to {until} do not match the index", path.display(), from.byte));
            }
            found.reach(from.record, &path);
            let (mut rest, mut record) = (&bytes[..], from.record);
            loop {
                match read_entry(format, &mut rest, &mut entry) {
                    Ok(false) => break,
                    Ok(true) if entry.is_intact() => {}
                    Ok(true) => {
                        found.problem(|| format!("{}: record {record} does not match its checksum", path.display()));
                    }
                    Err(error) => {
                        found.problem(|| format!("{}: record {record}: {error}", path.display()));
                        break;
                    }
                }
                found.records += 1;
                found.first_and_last = Some((found.first_and_last.map_or(record, |(first, _)| first), record));
                record += 1;
            }
            found.bytes += until - from.byte;
        }
    }
    if end.index_length > 0 && found.first_and_last.is_none_or(|(_, last)| last + 1 != end.next_record) {
        found.problem(|| format!("the sidecar has record {} as the last", end.next_record.saturating_sub(1)));
    }
    Ok(found)
}
