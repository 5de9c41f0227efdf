//! The source of events: a file, which can be read again from any position, or the standard input, which cannot.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek as _, SeekFrom, stdin};
use std::path::{Path, PathBuf};

use super::identity::Identity;
use super::lines::{Lines, Mark};
use super::records::{Failure, Parser, Records};
use super::{Format, Stop};

/// The input of the command line.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    /// `-`.
    Standard(Format),
    /// A file.
    File(PathBuf, Format),
}

/// An open file.
pub(super) struct InputFile {
    file: File,
    pub(super) path: PathBuf,
    pub(super) identity: Identity,
}

impl InputFile {
    /// Locks the file against a second import at once, until the handle is dropped.
    pub(super) fn lock(&self) -> Result<File, Stop> {
        let handle = self.file.try_clone().map_err(Stop::file(&self.path))?;
        match handle.try_lock() {
            Err(TryLockError::WouldBlock) => Err(Stop::Busy(self.path.clone())),
            // A file system without locks has no imports that know of each other.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(handle),
        }
    }
}

impl Input {
    /// File or standard input, and its format: by the extension if not given.
    pub(crate) fn new(path: &Path, format: Option<Format>) -> Result<Self, Stop> {
        if path == Path::new("-") {
            return Ok(Self::Standard(format.unwrap_or(Format::Ndjson)));
        }
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
        let by_extension = match extension.as_deref() {
            Some("csv") => Some(Format::Csv),
            Some("ndjson" | "jsonl") => Some(Format::Ndjson),
            _ => None,
        };
        let format = format.or(by_extension).ok_or_else(|| Stop::Format(path.to_owned()))?;
        Ok(Self::File(path.to_owned(), format))
    }

    /// Its format.
    pub(super) fn format(&self) -> Format {
        match self {
            Self::Standard(format) | Self::File(_, format) => *format,
        }
    }

    /// Its name in messages.
    pub(super) fn name(&self) -> &Path {
        match self {
            Self::Standard(_) => Path::new("standard input"),
            Self::File(path, _) => path,
        }
    }

    /// Opens a file and reads it for its identity; `None` for the standard input.
    pub(super) fn open(&self) -> Result<Option<InputFile>, Stop> {
        let Self::File(path, _) = self else { return Ok(None) };
        let mut file = File::open(path).map_err(Stop::file(path))?;
        if !file.metadata().map_err(Stop::file(path))?.is_file() {
            return Err(Stop::NotAFile(path.clone()));
        }
        let identity = Identity::of(&mut file).map_err(Stop::file(path))?;
        Ok(Some(InputFile { file, path: path.clone(), identity }))
    }

    /// Records from `from` on: of the file as it was at its opening, or of the standard input.
    pub(super) fn records(&self, opened: Option<InputFile>, from: Mark) -> Result<Records, Stop> {
        let name = self.name();
        let with_name = |failure| match failure {
            Failure::Io(why) => Stop::file(name)(why),
            Failure::Stop(stop) => stop,
        };
        let Some(InputFile { mut file, identity, .. }) = opened else {
            let mut lines = Lines::new(Box::new(stdin()), Mark::default());
            let parser = Parser::read(self.format(), &mut lines).map_err(with_name)?;
            return Ok(Records::new(lines, parser));
        };
        // A line that is appended later belongs to another identity: this file ends at the measured size.
        let part = |file: &File, left| Ok::<_, std::io::Error>(Box::new(file.try_clone()?.take(left)));
        let mut lines = Lines::new(part(&file, identity.size).map_err(Stop::file(name))?, Mark::default());
        let parser = Parser::read(self.format(), &mut lines).map_err(with_name)?;
        let from = if from.offset == 0 { lines.mark() } else { from };
        file.seek(SeekFrom::Start(from.offset)).map_err(Stop::file(name))?;
        let rest = part(&file, identity.size - from.offset).map_err(Stop::file(name))?;
        Ok(Records::new(Lines::new(rest, from), parser))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_determines_the_format_unless_given() {
        let format = |path: &str, given| Input::new(Path::new(path), given).map(|input| input.format()).ok();
        assert_eq!(format("a/b.csv", None), Some(Format::Csv));
        assert_eq!(format("b.NDJSON", None), Some(Format::Ndjson));
        assert_eq!(format("b.jsonl", None), Some(Format::Ndjson));
        assert_eq!(format("b.csv", Some(Format::Ndjson)), Some(Format::Ndjson));
        assert_eq!(format("-", None), Some(Format::Ndjson));
        assert_eq!(format("-", Some(Format::Csv)), Some(Format::Csv));
        assert_eq!(format("b.json", None), None);
    }
}
