//! Where events come from: a file, which can be read again from any place, or the standard input, which cannot.

use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom, stdin};
use std::path::{Path, PathBuf};

use super::identity::Identity;
use super::lines::{Lines, Mark};
use super::records::{Failure, Form, Records};
use super::{Format, Stop};

/// What is to be read, as it was asked for.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    /// `-`.
    Standard(Format),
    /// A file.
    File(PathBuf, Format),
}

/// A file that was opened.
pub(super) struct Opened {
    file: File,
    pub(super) path: PathBuf,
    pub(super) identity: Identity,
}

impl Input {
    /// Which of the two it is, and how it is read.
    pub(crate) fn new(path: &Path, format: Option<Format>) -> Result<Self, Stop> {
        if path == Path::new("-") {
            return Ok(Self::Standard(format.unwrap_or(Format::Ndjson)));
        }
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
        let told = match extension.as_deref() {
            Some("csv") => Some(Format::Csv),
            Some("ndjson" | "jsonl") => Some(Format::Ndjson),
            _ => None,
        };
        let format = format.or(told).ok_or_else(|| Stop::Format(path.to_owned()))?;
        Ok(Self::File(path.to_owned(), format))
    }

    /// How it is read.
    pub(super) fn format(&self) -> Format {
        match self {
            Self::Standard(format) | Self::File(_, format) => *format,
        }
    }

    /// What it is called in messages.
    pub(super) fn name(&self) -> &Path {
        match self {
            Self::Standard(_) => Path::new("standard input"),
            Self::File(path, _) => path,
        }
    }

    /// Opens and reads a file to know what it is. The standard input is not a file.
    pub(super) fn open(&self) -> Result<Option<Opened>, Stop> {
        let Self::File(path, _) = self else { return Ok(None) };
        let mut file = File::open(path).map_err(Stop::file(path))?;
        if !file.metadata().map_err(Stop::file(path))?.is_file() {
            return Err(Stop::NotAFile(path.clone()));
        }
        let identity = Identity::of(&mut file).map_err(Stop::file(path))?;
        Ok(Some(Opened { file, path: path.clone(), identity }))
    }

    /// Records from `from` on: of the file as it was when it was opened, or of the standard input.
    pub(super) fn records(&self, opened: Option<Opened>, from: Mark) -> Result<Records, Stop> {
        let name = self.name();
        let named = |failure| match failure {
            Failure::Io(why) => Stop::file(name)(why),
            Failure::Stop(stop) => stop,
        };
        let Some(Opened { mut file, identity, .. }) = opened else {
            let mut lines = Lines::new(Box::new(stdin()), Mark::default());
            let form = Form::read(self.format(), &mut lines).map_err(named)?;
            return Ok(Records::new(lines, form));
        };
        // A line that is appended meanwhile belongs to another file: this one ends where it was measured.
        let part = |file: &File, left| Ok::<_, std::io::Error>(Box::new(file.try_clone()?.take(left)));
        let mut lines = Lines::new(part(&file, identity.size).map_err(Stop::file(name))?, Mark::default());
        let form = Form::read(self.format(), &mut lines).map_err(named)?;
        let from = if from.offset == 0 { lines.mark() } else { from };
        file.seek(SeekFrom::Start(from.offset)).map_err(Stop::file(name))?;
        let rest = part(&file, identity.size - from.offset).map_err(Stop::file(name))?;
        Ok(Records::new(Lines::new(rest, from), form))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_says_the_format_unless_told() {
        let format = |path: &str, told| Input::new(Path::new(path), told).map(|input| input.format()).ok();
        assert_eq!(format("a/b.csv", None), Some(Format::Csv));
        assert_eq!(format("b.NDJSON", None), Some(Format::Ndjson));
        assert_eq!(format("b.jsonl", None), Some(Format::Ndjson));
        assert_eq!(format("b.csv", Some(Format::Ndjson)), Some(Format::Ndjson));
        assert_eq!(format("-", None), Some(Format::Ndjson));
        assert_eq!(format("-", Some(Format::Csv)), Some(Format::Csv));
        assert_eq!(format("b.json", None), None);
    }
}
