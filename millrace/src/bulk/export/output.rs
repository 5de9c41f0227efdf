//! The output of an export: standard output, or a file that is replaced once everything is written.

use std::fs::{self, File};
use std::io::{self, BufWriter, Stdout, Write, stdout};
use std::path::{Path, PathBuf};

use super::Stop;

/// A buffered output.
pub(super) struct Output {
    sink: BufWriter<Sink>,
    path: Option<PathBuf>,
}

enum Sink {
    Standard(Stdout),
    File(File),
}

impl Output {
    /// Opens the output; a file under a temporary name.
    pub(super) fn new(path: Option<PathBuf>) -> Result<Self, Stop> {
        let sink = match &path {
            None => Sink::Standard(stdout()),
            Some(path) => Sink::File(File::create(part(path)).map_err(failed(Some(path)))?),
        };
        Ok(Self { sink: BufWriter::new(sink), path })
    }

    /// Flushes and gives a file its name.
    pub(super) fn finish(mut self) -> Result<(), Stop> {
        let path = self.path.take();
        let flushed = self.sink.flush();
        let ended = flushed.and_then(|()| match (self.sink.get_ref(), &path) {
            (Sink::File(file), Some(path)) => file.sync_data().and_then(|()| fs::rename(part(path), path)),
            _ => Ok(()),
        });
        ended.map_err(failed(path.as_deref()))
    }

    /// Removes an incomplete file.
    pub(super) fn discard(path: Option<&Path>) {
        if let Some(path) = path {
            // It may not exist.
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
        self.sink.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

impl Write for Sink {
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
