//! One process holds the directory; who it is stands in the `holder` file.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::LogError;

/// The directory is ours for as long as this lives; the operating system lets go of it even after a kill.
#[derive(Debug)]
pub(super) struct Holder {
    _file: File,
}

impl Holder {
    pub(super) fn take(directory: &Path) -> Result<Self, LogError> {
        let path = directory.join("holder");
        let failed = |error: std::io::Error| LogError::Refused(format!("{}: {error}", path.display()));
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.take(512).read_to_string(&mut holder);
                let directory = directory.display();
                return Err(LogError::Refused(format!("{directory} is held by another process: {}", holder.trim())));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let program = std::env::args().next().unwrap_or_default();
        let text = format!("pid {} ({program})\n", std::process::id());
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes())).map_err(failed)?;
        Ok(Self { _file: file })
    }
}
