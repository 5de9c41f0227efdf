//! Why an import stops. Recorded outcomes stay recorded.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// The reason, and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stop {
    /// A file cannot be opened, read or written.
    #[error("{path}: {why}")]
    File {
        /// Its path.
        path: PathBuf,
        /// The error of the operating system.
        why: std::io::Error,
    },
    /// The path is not a file, so that it cannot be read a second time.
    #[error("{0}: not a file; `-` imports the standard input")]
    NotAFile(PathBuf),
    /// The extension is unknown, and no format was given.
    #[error("{0}: neither .csv nor .ndjson; add --format csv or --format ndjson")]
    Format(PathBuf),
    /// The first line is not a header.
    #[error("invalid header line: {0}")]
    Header(String),
    /// The rest cannot be split into records.
    #[error(
        "line {0}: a quoted field starts here and does not end within 64 KiB; the rest cannot be split into records"
    )]
    Unclosed(u64),
    /// A line of CSV that is not read as a whole.
    #[error(
        "line {0}: longer than 64 KiB; a quote in it may include the next lines, so the rest cannot be split into records"
    )]
    LongLine(u64),
    /// The file changed during the import.
    #[error("{0}: changed during the import")]
    ChangedNow(PathBuf),
    /// The checkpoint file is not a checkpoint of this version.
    #[error("{path}: not a checkpoint of this version of millrace: {why}")]
    Checkpoint {
        /// Its path.
        path: PathBuf,
        /// The problem.
        why: String,
    },
    /// The checkpoint belongs to other content.
    #[error(
        "{file}: not the file that {checkpoint} belongs to. Restore that file to resume, or remove the checkpoint to import all \
         of this one: lines that both have count again"
    )]
    Changed {
        /// The file to import.
        file: PathBuf,
        /// The checkpoint.
        checkpoint: PathBuf,
    },
    /// The checkpoint belongs to the same content in another format.
    #[error("{checkpoint}: the import started as {format}; --format must stay the same")]
    OtherFormat {
        /// The checkpoint.
        checkpoint: PathBuf,
        /// The format of the checkpoint.
        format: super::Format,
    },
    /// Another import of the file runs.
    #[error("{0}: another import of this file is running; when it ends, the same command resumes or finds it imported")]
    Busy(PathBuf),
    /// The checkpoint belongs to an incomplete import into another log.
    #[error(
        "{file}: its import into the log of {service} is not complete, according to {checkpoint}. Resume it there first, or add \
         --state with another folder for this log"
    )]
    OtherLog {
        /// The file to import.
        file: PathBuf,
        /// The checkpoint.
        checkpoint: PathBuf,
        /// The command service of the other log.
        service: String,
    },
    /// The file was imported completely before.
    #[error(
        "{file}: already imported into the log of {service}, according to {checkpoint}; --again imports it once more, and every \
         event counts again"
    )]
    Completed {
        /// The file to import.
        file: PathBuf,
        /// The command service.
        service: String,
        /// The checkpoint.
        checkpoint: PathBuf,
    },
    /// The service accepted a batch too late or never.
    #[error("gave up after {0:?}: {1}")]
    GaveUp(Duration, String),
    /// The service refused a whole batch; a resend would fail, too.
    #[error("the command service refused a whole batch: {0}")]
    Refused(String),
    /// A task of the import failed.
    #[error("a task of the import failed: {0}")]
    Broken(String),
}

impl Stop {
    /// For `map_err` on a file.
    pub(super) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |why| Self::File { path, why }
    }
}
