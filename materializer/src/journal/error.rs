//! Why a journal cannot be opened, written or read.

use std::io;
use std::path::{Path, PathBuf};

use millrace_contracts::{Next, StoreError};

/// Why a journal cannot be opened, written or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system refused an operation on a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },
    /// Another process writes to the directory.
    #[error("{}: another process writes this journal", .0.display())]
    Locked(PathBuf),
    /// Files are not as they were written.
    #[error("{}: {why}", path.display())]
    Damaged {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The directory has no journal.
    #[error("{}: no journal here", .0.display())]
    Missing(PathBuf),
}

impl JournalError {
    pub(super) fn damaged(path: &Path, why: impl Into<String>) -> Self {
        Self::Damaged { path: path.into(), why: why.into() }
    }
}

/// Names the file in the error of an operation on it.
pub(super) trait At<T> {
    fn at(self, path: &Path) -> Result<T, JournalError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, JournalError> {
        self.map_err(|source| match source.kind() {
            io::ErrorKind::InvalidData => JournalError::damaged(path, source.to_string()),
            _ => JournalError::Io { path: path.into(), source },
        })
    }
}

impl<T> At<T> for Result<T, rustix::io::Errno> {
    fn at(self, path: &Path) -> Result<T, JournalError> {
        self.map_err(io::Error::from).at(path)
    }
}

impl From<JournalError> for StoreError {
    fn from(error: JournalError) -> Self {
        let next = match &error {
            // A full or failing disk may come back; a second process may end.
            JournalError::Io { .. } | JournalError::Locked(_) => Next::Retry,
            JournalError::Damaged { .. } | JournalError::Missing(_) => Next::Stop,
        };
        Self { next, detail: error.to_string(), source: None }
    }
}
