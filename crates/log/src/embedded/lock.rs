//! Locks the directory for one process. The file `holder` contains its process id.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::LogError;

/// The lock of the directory, until it is dropped. The operating system releases it even after a kill.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    pub(super) fn acquire(directory: &Path) -> Result<Self, LogError> {
        let path = directory.join("holder");
        let failed = |error: std::io::Error| LogError::refused(format!("{}: {error}", path.display())).because(error);
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.take(512).read_to_string(&mut holder);
                let directory = directory.display();
                return Err(LogError::refused(format!("{directory} is held by another process: {}", holder.trim())));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let program = std::env::args().next().unwrap_or_default();
        let text = format!("pid {} ({program})\n", std::process::id());
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes())).map_err(failed)?;
        Ok(Self { _file: file })
    }
}
