//! The files of a journal's directory.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::error::{At as _, JournalError};
use super::sidecar;

/// Links to the newest segment.
const CURRENT: &str = "current.log";
const SIDECAR: &str = "journal.position";

/// The directory of a journal.
#[derive(Debug, Clone)]
pub(super) struct Directory(PathBuf);

/// The directory, held by this process until it is dropped.
#[derive(Debug)]
pub(super) struct HeldDirectory {
    pub(super) directory: Directory,
    file: File,
}

impl Directory {
    pub(super) fn new(path: &Path) -> Self {
        Self(path.into())
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Creates the directory if it is missing, and holds it.
    pub(super) fn hold(self) -> Result<HeldDirectory, JournalError> {
        std::fs::create_dir_all(&self.0).at(&self.0)?;
        let file = File::open(&self.0).at(&self.0)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(HeldDirectory { directory: self, file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(JournalError::Locked(self.0)),
            Err(error) => Err(error).at(&self.0),
        }
    }

    pub(super) fn segment(&self, number: u64) -> PathBuf {
        self.0.join(format!("{number:020}.log"))
    }

    pub(super) fn index(&self, number: u64) -> PathBuf {
        self.0.join(format!("{number:020}.idx"))
    }

    pub(super) fn sidecar(&self) -> PathBuf {
        self.0.join(SIDECAR)
    }

    /// The numbers of all segments, rising.
    pub(super) fn segments(&self) -> Result<Vec<u64>, JournalError> {
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&self.0).at(&self.0)? {
            let name = entry.at(&self.0)?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".log")).filter(|stem| stem.len() == 20);
            numbers.extend(number.and_then(|stem| stem.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Opens the sidecar to read it.
    pub(super) fn read_sidecar(&self) -> Result<sidecar::Position, JournalError> {
        let path = self.sidecar();
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(JournalError::Missing(self.0.clone())),
            opened => opened.at(&path)?,
        };
        sidecar::read(&file).at(&path)?.ok_or_else(|| JournalError::damaged(&path, "neither of its two slots is valid"))
    }
}

impl HeldDirectory {
    /// Makes created, renamed and removed files durable.
    pub(super) fn sync(&self) -> Result<(), JournalError> {
        self.file.sync_all().at(self.directory.path())
    }

    /// Links `current.log` to a segment.
    pub(super) fn link_current(&self, number: u64) -> Result<(), JournalError> {
        let (link, target) = (self.directory.0.join(CURRENT), format!("{number:020}.log"));
        if std::fs::read_link(&link).is_ok_and(|linked| linked == Path::new(&target)) {
            return Ok(());
        }
        let new = self.directory.0.join("current.log.new");
        let _ = std::fs::remove_file(&new);
        std::os::unix::fs::symlink(target, &new).at(&new)?;
        std::fs::rename(&new, &link).at(&link)
    }

    /// Removes a segment and its index.
    pub(super) fn remove(&self, number: u64) -> Result<(), JournalError> {
        for path in [self.directory.segment(number), self.directory.index(number)] {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.at(&path)?,
            }
        }
        Ok(())
    }
}

/// Opens a file to read and write it; creates it if it is missing.
pub(super) fn open_writable(path: &Path) -> Result<File, JournalError> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).at(path)
}
