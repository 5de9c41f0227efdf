//! Where an export goes: the standard output, or a file that is replaced once all of it is written.

use std::fs::{self, File};
use std::io::{self, BufWriter, Stdout, Write, stdout};
use std::path::{Path, PathBuf};

use super::Stop;

/// The place that is written to.
pub(super) struct Output {
    to: BufWriter<To>,
    path: Option<PathBuf>,
}

enum To {
    Standard(Stdout),
    File(File),
}

impl Output {
    /// Opens it.
    pub(super) fn new(path: Option<PathBuf>) -> Result<Self, Stop> {
        let to = match &path {
            None => To::Standard(stdout()),
            Some(path) => To::File(File::create(part(path)).map_err(failed(Some(path)))?),
        };
        Ok(Self { to: BufWriter::new(to), path })
    }

    /// Ends it: only now a file bears its name.
    pub(super) fn finish(mut self) -> Result<(), Stop> {
        let path = self.path.take();
        let flushed = self.to.flush();
        let ended = flushed.and_then(|()| match (self.to.get_ref(), &path) {
            (To::File(file), Some(path)) => file.sync_data().and_then(|()| fs::rename(part(path), path)),
            _ => Ok(()),
        });
        ended.map_err(failed(path.as_deref()))
    }

    /// Leaves no half of a file behind.
    pub(super) fn discard(path: Option<&Path>) {
        if let Some(path) = path {
            // It may not have come to be.
            let _ = fs::remove_file(part(path));
        }
    }
}

/// For `map_err` on the output.
pub(super) fn failed(path: Option<&Path>) -> impl FnOnce(io::Error) -> Stop {
    let path = path.unwrap_or(Path::new("standard output")).to_owned();
    move |why| Stop::Output { path, why }
}

fn part(path: &Path) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(".part");
    name.into()
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl Write for To {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Standard(out) => out.write(bytes),
            Self::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Standard(out) => out.flush(),
            Self::File(file) => file.flush(),
        }
    }
}
