//! A sorted run of user hashes on disk, with the first hash of each page in memory.

use millrace_contracts::UserHash;
use millrace_log::StageError;

use crate::scratch::{Extent, PAGE, Scratch};

const WORD: usize = size_of::<u64>();
const PER_PAGE: usize = PAGE / WORD;
/// Pages per read or write.
const PAGES: usize = 64;

/// A sorted run of distinct hashes.
#[derive(Debug)]
pub(crate) struct Run {
    extent: Extent,
    len: usize,
    /// The first hash of each page.
    first: Box<[u64]>,
}

impl Run {
    /// Writes `len` hashes, which must come in ascending order.
    pub(crate) fn write(
        scratch: &mut Scratch,
        len: usize,
        mut users: impl FnMut(&Scratch) -> Result<Option<u64>, StageError>,
    ) -> Result<Self, StageError> {
        let extent = scratch.allocate(len * WORD)?;
        let mut first = Vec::with_capacity(len.div_ceil(PER_PAGE));
        let mut buffer = Vec::with_capacity(PAGES * PAGE);
        let mut at = 0;
        while let Some(user) = users(scratch)? {
            if buffer.len().is_multiple_of(PAGE) {
                first.push(user);
            }
            buffer.extend_from_slice(&user.to_le_bytes());
            if buffer.len() == PAGES * PAGE {
                scratch.write(&extent, at, &buffer)?;
                at += buffer.len();
                buffer.clear();
            }
        }
        scratch.write(&extent, at, &buffer)?;
        debug_assert_eq!(at + buffer.len(), len * WORD);
        Ok(Self { extent, len, first: first.into() })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> usize {
        size_of_val(&*self.first)
    }

    /// Frees its extent.
    pub(crate) fn release(self, scratch: &mut Scratch) {
        scratch.release(self.extent);
    }

    /// Looks a user up. Reads one page at most.
    pub(crate) fn contains(&self, scratch: &Scratch, user: UserHash) -> Result<bool, StageError> {
        let user = user.get();
        let Some(page) = self.first.partition_point(|&first| first <= user).checked_sub(1) else { return Ok(false) };
        let mut buffer = [0; PAGE];
        let bytes = &mut buffer[..PAGE.min(self.len * WORD - page * PAGE)];
        scratch.read(&self.extent, page * PAGE, bytes)?;
        Ok(bytes.as_chunks::<WORD>().0.binary_search_by_key(&user, |word| u64::from_le_bytes(*word)).is_ok())
    }

    /// Reads every hash in ascending order.
    pub(crate) fn cursor(&self) -> Cursor<'_> {
        Cursor { run: self, buffer: Vec::new(), taken: 0, at: 0 }
    }
}

/// A sequential read of a run.
pub(crate) struct Cursor<'a> {
    run: &'a Run,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were returned.
    taken: usize,
    /// Bytes read from the run.
    at: usize,
}

impl Cursor<'_> {
    pub(crate) fn next(&mut self, scratch: &Scratch) -> Result<Option<u64>, StageError> {
        if self.taken == self.buffer.len() {
            let rest = self.run.len * WORD - self.at;
            if rest == 0 {
                return Ok(None);
            }
            self.buffer.resize(rest.min(PAGES * PAGE), 0);
            scratch.read(&self.run.extent, self.at, &mut self.buffer)?;
            self.at += self.buffer.len();
            self.taken = 0;
        }
        let word = self.buffer[self.taken..].first_chunk().expect("a run consists of whole words");
        self.taken += WORD;
        Ok(Some(u64::from_le_bytes(*word)))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_run_contains_what_was_written() {
        for len in [1, 511, 512, 513, 100_000] {
            let mut scratch = Scratch::new(PathBuf::new());
            let mut users = (0..len as u64).map(|user| user * 3 + 1);
            let run = Run::write(&mut scratch, len, |_| Ok(users.next())).unwrap();
            for user in (0..len as u64 * 3 + 3).step_by(if len > 1_000 { 101 } else { 1 }) {
                let there = user % 3 == 1 && user / 3 < len as u64;
                assert_eq!(run.contains(&scratch, UserHash::from_raw(user)).unwrap(), there, "{user} of {len}");
            }
            let mut cursor = run.cursor();
            for user in 0..len as u64 {
                assert_eq!(cursor.next(&scratch).unwrap(), Some(user * 3 + 1));
            }
            assert_eq!(cursor.next(&scratch).unwrap(), None);
            assert!(run.memory() <= len / 64 + WORD);
        }
    }
}
