//! What a partition keeps aside on this machine to save memory: one temporary file without a name, in pieces that are
//! given back and used again. It goes with the process; the log restores what was in it.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use millrace_log::StageError;

/// What a piece begins at a multiple of, in bytes.
pub(crate) const PAGE: usize = 4096;

/// A piece of the file. Not to be copied: it is given back once.
#[derive(Debug)]
pub(crate) struct Extent {
    offset: u64,
    len: u64,
}

/// The file of one partition. It is made when something is first put there.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// Where it is made; empty for the system's temporary directory.
    directory: PathBuf,
    file: Option<File>,
    /// Pieces that were given back: offset and length. No two touch.
    free: BTreeMap<u64, u64>,
    end: u64,
    written: u64,
}

impl Scratch {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory, file: None, free: BTreeMap::new(), end: 0, written: 0 }
    }

    /// Bytes ever written.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// A piece of at least `len` bytes: the first that was given back and is large enough, else new.
    pub(crate) fn take(&mut self, len: usize) -> Result<Extent, StageError> {
        if self.file.is_none() {
            self.file = Some(self.make().map_err(|error| self.unavailable(&error))?);
        }
        let len = len.next_multiple_of(PAGE) as u64;
        let found = self.free.iter().find(|&(_, &free)| free >= len).map(|(&offset, &free)| (offset, free));
        let Some((offset, free)) = found else {
            let offset = self.end;
            self.end += len;
            return Ok(Extent { offset, len });
        };
        self.free.remove(&offset);
        if free > len {
            self.free.insert(offset + len, free - len);
        }
        Ok(Extent { offset, len })
    }

    /// Gives a piece back.
    pub(crate) fn give_back(&mut self, Extent { mut offset, mut len }: Extent) {
        if let Some((&before, &free)) = self.free.range(..offset).next_back()
            && before + free == offset
        {
            self.free.remove(&before);
            (offset, len) = (before, free + len);
        }
        if let Some(free) = self.free.remove(&(offset + len)) {
            len += free;
        }
        if offset + len == self.end {
            self.end = offset;
        } else {
            self.free.insert(offset, len);
        }
    }

    /// Writes into a piece, `at` bytes from its beginning.
    pub(crate) fn write(&mut self, extent: &Extent, at: usize, bytes: &[u8]) -> Result<(), StageError> {
        debug_assert!((at + bytes.len()) as u64 <= extent.len);
        self.written += bytes.len() as u64;
        self.file().write_all_at(bytes, extent.offset + at as u64).map_err(|error| self.unavailable(&error))
    }

    /// Fills `bytes` from a piece, `at` bytes from its beginning.
    pub(crate) fn read(&self, extent: &Extent, at: usize, bytes: &mut [u8]) -> Result<(), StageError> {
        self.file().read_exact_at(bytes, extent.offset + at as u64).map_err(|error| self.unavailable(&error))
    }

    fn file(&self) -> &File {
        self.file.as_ref().expect("a piece was taken, so the file is there")
    }

    fn make(&self) -> std::io::Result<File> {
        if self.directory.as_os_str().is_empty() {
            return tempfile::tempfile();
        }
        std::fs::create_dir_all(&self.directory)?;
        tempfile::tempfile_in(&self.directory)
    }

    fn unavailable(&self, error: &std::io::Error) -> StageError {
        let directory = self.directory.display();
        StageError::Unavailable(format!("scratch file in \"{directory}\" (processor.scratch_directory): {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_used_again_and_grow_together() {
        let mut scratch = Scratch::new(PathBuf::new());
        let take = |scratch: &mut Scratch, pages: usize| scratch.take(pages * PAGE - 1).unwrap();
        let (first, second, third) = (take(&mut scratch, 1), take(&mut scratch, 2), take(&mut scratch, 1));
        scratch.write(&second, PAGE, b"kept").unwrap();
        scratch.give_back(first);
        let fourth = take(&mut scratch, 2);
        assert_eq!(fourth.offset, 4 * PAGE as u64, "one page is too small");
        let mut read = [0; 4];
        scratch.read(&second, PAGE, &mut read).unwrap();
        assert_eq!(&read, b"kept");
        scratch.give_back(third);
        scratch.give_back(second);
        assert_eq!(scratch.free, BTreeMap::from([(0, 4 * PAGE as u64)]), "one hole, not three");
        let fifth = take(&mut scratch, 3);
        assert_eq!((fifth.offset, scratch.end), (0, 6 * PAGE as u64));
        scratch.give_back(fourth);
        scratch.give_back(fifth);
        assert_eq!((scratch.end, scratch.free.len()), (0, 0));
    }

    #[test]
    fn a_directory_that_cannot_be_used_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Scratch::new(file.path().into()).take(1).unwrap_err();
        assert!(error.to_string().contains("processor.scratch_directory"), "{error}");
    }
}
