//! The scratch file of a partition: a temporary file without a name, with an extent allocator. It saves memory and
//! disappears with the process; a restore from the log rebuilds its content.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use millrace_log::StageError;

/// Bytes of one read of a run.
pub(crate) const PAGE: usize = 4096;
/// The alignment and granularity of extents, in bytes: hours may be many and small.
const GRANULE: usize = 256;

/// An allocated range of the file. Not `Clone`: it is released once.
#[derive(Debug)]
pub(crate) struct Extent {
    offset: u64,
    len: u64,
}

/// The file of one partition. The first allocation creates it.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// The directory of the file; empty for the system's temporary directory.
    directory: PathBuf,
    file: Option<File>,
    /// Free ranges, offset to length. No two are adjacent.
    free: BTreeMap<u64, u64>,
    /// The same ranges as (length, offset).
    free_by_len: BTreeSet<(u64, u64)>,
    end: u64,
    written: u64,
}

impl Scratch {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory, file: None, free: BTreeMap::new(), free_by_len: BTreeSet::new(), end: 0, written: 0 }
    }

    /// Bytes written in total.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Allocates at least `len` bytes: the smallest free range that is large enough, else the end of the file.
    pub(crate) fn allocate(&mut self, len: usize) -> Result<Extent, StageError> {
        if self.file.is_none() {
            self.file = Some(self.create().map_err(|error| self.unavailable(error))?);
        }
        let len = len.next_multiple_of(GRANULE) as u64;
        let Some(&(free, offset)) = self.free_by_len.range((len, 0)..).next() else {
            let offset = self.end;
            self.end += len;
            return Ok(Extent { offset, len });
        };
        self.take_free(offset);
        if free > len {
            self.add_free(offset + len, free - len);
        }
        Ok(Extent { offset, len })
    }

    /// Frees an extent and merges it with adjacent free ranges.
    pub(crate) fn release(&mut self, Extent { mut offset, mut len }: Extent) {
        if let Some((&before, &free)) = self.free.range(..offset).next_back()
            && before + free == offset
        {
            self.take_free(before);
            (offset, len) = (before, free + len);
        }
        len += self.take_free(offset + len);
        if offset + len == self.end {
            self.end = offset;
        } else {
            self.add_free(offset, len);
        }
    }

    fn add_free(&mut self, offset: u64, len: u64) {
        self.free.insert(offset, len);
        self.free_by_len.insert((len, offset));
    }

    /// Removes the free range at an offset. Returns its length; 0 if there is none.
    fn take_free(&mut self, offset: u64) -> u64 {
        let len = self.free.remove(&offset).unwrap_or(0);
        self.free_by_len.remove(&(len, offset));
        len
    }

    /// Writes into an extent, `at` bytes from its beginning.
    pub(crate) fn write(&mut self, extent: &Extent, at: usize, bytes: &[u8]) -> Result<(), StageError> {
        debug_assert!((at + bytes.len()) as u64 <= extent.len);
        self.written += bytes.len() as u64;
        self.file().write_all_at(bytes, extent.offset + at as u64).map_err(|error| self.unavailable(error))
    }

    /// Fills `bytes` from an extent, `at` bytes from its beginning.
    pub(crate) fn read(&self, extent: &Extent, at: usize, bytes: &mut [u8]) -> Result<(), StageError> {
        self.file().read_exact_at(bytes, extent.offset + at as u64).map_err(|error| self.unavailable(error))
    }

    fn file(&self) -> &File {
        self.file.as_ref().expect("an extent exists, so the file does")
    }

    fn create(&self) -> std::io::Result<File> {
        if self.directory.as_os_str().is_empty() {
            return tempfile::tempfile();
        }
        std::fs::create_dir_all(&self.directory)?;
        tempfile::tempfile_in(&self.directory)
    }

    fn unavailable(&self, error: std::io::Error) -> StageError {
        let directory = self.directory.display();
        let detail = format!("scratch file in \"{directory}\" (processor.scratch_directory): {error}");
        StageError::unavailable(detail).because(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_are_reused_and_merged() {
        let mut scratch = Scratch::new(PathBuf::new());
        let allocate = |scratch: &mut Scratch, pages: usize| scratch.allocate(pages * PAGE - 1).unwrap();
        let (first, second, third) = (allocate(&mut scratch, 1), allocate(&mut scratch, 2), allocate(&mut scratch, 1));
        scratch.write(&second, PAGE, b"kept").unwrap();
        scratch.release(first);
        let fourth = allocate(&mut scratch, 2);
        assert_eq!(fourth.offset, 4 * PAGE as u64, "one page is too small");
        let mut read = [0; 4];
        scratch.read(&second, PAGE, &mut read).unwrap();
        assert_eq!(&read, b"kept");
        scratch.release(third);
        scratch.release(second);
        assert_eq!(scratch.free, BTreeMap::from([(0, 4 * PAGE as u64)]), "one free range, not three");
        let fifth = allocate(&mut scratch, 3);
        assert_eq!((fifth.offset, scratch.end), (0, 6 * PAGE as u64));
        scratch.release(fourth);
        scratch.release(fifth);
        assert_eq!((scratch.end, scratch.free.len(), scratch.free_by_len.len()), (0, 0, 0));
        let small = [100, 300].map(|bytes| scratch.allocate(bytes).unwrap().offset);
        assert_eq!((small, scratch.end), ([0, 256], 768), "small extents share a page");
    }

    #[test]
    fn an_unusable_directory_is_named_in_the_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Scratch::new(file.path().into()).allocate(1).unwrap_err();
        assert!(error.to_string().contains("processor.scratch_directory"), "{error}");
    }
}
