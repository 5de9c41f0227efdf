//! Why an import cannot go on. What was settled until then stays settled.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// The reason; each says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stop {
    /// A file cannot be opened, read or written.
    #[error("{path}: {why}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        why: std::io::Error,
    },
    /// Something that cannot be read a second time.
    #[error("{0}: not a file; `-` imports what comes in on the standard input")]
    NotAFile(PathBuf),
    /// The extension says nothing, and nothing else did.
    #[error("{0}: neither .csv nor .ndjson; say --format csv or --format ndjson")]
    Format(PathBuf),
    /// The first line is no header.
    #[error("the header line: {0}")]
    Header(String),
    /// What follows cannot be told apart into records.
    #[error("line {0}: a quoted field begins here and has no end within 64 KiB; what follows cannot be told apart")]
    Unclosed(u64),
    /// The file is not the one it was.
    #[error("{0}: changed while it was read")]
    ChangedNow(PathBuf),
    /// A checkpoint that this program did not write.
    #[error("{path}: not a checkpoint of this version of millrace: {why}")]
    Checkpoint {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The checkpoint is of other content.
    #[error(
        "{file}: not the file that {checkpoint} was written for. Put back the file to go on, or remove the checkpoint to \
         import all of this one: lines that were in the other too count again"
    )]
    Changed {
        /// What is to be imported.
        file: PathBuf,
        /// The checkpoint beside it.
        checkpoint: PathBuf,
    },
    /// The checkpoint is of the same content read in another way.
    #[error("{checkpoint}: the import began as {format}; --format must stay the same")]
    OtherFormat {
        /// The checkpoint.
        checkpoint: PathBuf,
        /// As what it began.
        format: super::Format,
    },
    /// All of it was imported before.
    #[error("{file}: imported already, says {checkpoint}; --again imports it once more, and every event counts again")]
    Completed {
        /// What is to be imported.
        file: PathBuf,
        /// The checkpoint beside it.
        checkpoint: PathBuf,
    },
    /// The service could not take a batch for too long.
    #[error("gave up after {0:?}: {1}")]
    GaveUp(Duration, String),
    /// The service takes no batch like this, and would not take it later either.
    #[error("the command service refused a whole batch: {0}")]
    Refused(String),
    /// A part of this program failed.
    #[error("a part of the import failed: {0}")]
    Broken(String),
}

impl Stop {
    /// For `map_err` on a file.
    pub(super) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |why| Self::File { path, why }
    }
}
