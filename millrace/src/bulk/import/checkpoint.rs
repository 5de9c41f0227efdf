//! The position of an import, in a file beside the imported one: every line before the mark has a final outcome.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::identity::Identity;
use super::lines::Mark;
use super::{Format, Stop};

const VERSION: u32 = 1;

/// The outcomes so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Counts {
    /// Events in the log.
    pub(super) accepted: u64,
    /// Events that the service refused, by code.
    pub(super) refused: BTreeMap<String, u64>,
    /// Invalid lines.
    pub(super) bad: u64,
}

/// Where events go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Destination {
    /// The id of the log.
    pub(super) log: String,
    /// The command service, for people: it may have other addresses.
    pub(super) service: String,
}

/// The content of the checkpoint file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Checkpoint {
    version: u32,
    content: String,
    size: u64,
    pub(super) format: Format,
    /// Makes the event ids of a repeated import differ from those of the first.
    pub(super) salt: u64,
    pub(super) mark: Mark,
    pub(super) counts: Counts,
    /// Bytes of the file of rejects that belong to lines before the mark.
    pub(super) rejects_bytes: u64,
    pub(super) completed: bool,
    /// `None` in a checkpoint of an earlier version.
    #[serde(default)]
    pub(super) destination: Option<Destination>,
    /// Other logs into which the file was imported completely before.
    #[serde(default)]
    pub(super) elsewhere: Vec<Destination>,
}

impl Checkpoint {
    /// Nothing imported yet.
    pub(super) fn new(identity: Identity, format: Format, salt: u64) -> Self {
        Self {
            version: VERSION,
            content: hex(identity),
            size: identity.size,
            format,
            salt,
            mark: Mark::default(),
            counts: Counts::default(),
            rejects_bytes: 0,
            completed: false,
            destination: None,
            elsewhere: Vec::new(),
        }
    }

    /// With the log that it is of, and those into which the file was imported before.
    pub(super) fn into_log(self, destination: Destination, elsewhere: Vec<Destination>) -> Self {
        Self { destination: Some(destination), elsewhere, ..self }
    }

    /// Whether it is of this log; one of an earlier version may be of any.
    pub(super) fn is_into(&self, destination: &Destination) -> bool {
        self.destination.as_ref().is_none_or(|own| own.log == destination.log)
    }

    /// Every log into which the file was imported completely.
    pub(super) fn done(&self) -> impl Iterator<Item = &Destination> {
        self.elsewhere.iter().chain(self.destination.iter().filter(move |_| self.completed))
    }

    /// Whether it belongs to this content.
    pub(super) fn is_of(&self, identity: Identity) -> bool {
        self.content == hex(identity) && self.size == identity.size
    }
}

fn hex(identity: Identity) -> String {
    format!("{:032x}", identity.hash)
}

/// Paths of the checkpoint and of the rejects.
#[derive(Debug, Clone)]
pub(super) struct CheckpointFiles {
    pub(super) checkpoint: PathBuf,
    pub(super) rejects: PathBuf,
}

impl CheckpointFiles {
    /// Beside the file, or in `folder`.
    pub(super) fn of(file: &Path, folder: Option<&Path>) -> Self {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let folder = folder.or_else(|| file.parent()).unwrap_or_else(|| Path::new(""));
        let at = |kind: &str| folder.join(format!("{name}.millrace-{kind}"));
        Self { checkpoint: at("import"), rejects: at("rejects") }
    }

    /// The checkpoint, if there is one.
    pub(super) fn load(&self) -> Result<Option<Checkpoint>, Stop> {
        let text = match fs::read(&self.checkpoint) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Stop::file(&self.checkpoint)(e)),
        };
        let broken = |why| Stop::Checkpoint { path: self.checkpoint.clone(), why };
        let checkpoint: Checkpoint = serde_json::from_slice(&text).map_err(|e| broken(e.to_string()))?;
        match checkpoint.version {
            VERSION => Ok(Some(checkpoint)),
            other => Err(broken(format!("version {other}"))),
        }
    }

    /// Replaces the checkpoint atomically: a kill or a power failure leaves the old one or the new one.
    pub(super) fn save(&self, checkpoint: &Checkpoint) -> Result<(), Stop> {
        let mut next = self.checkpoint.clone().into_os_string();
        next.push(".new");
        let next = PathBuf::from(next);
        let write = || {
            let mut file = File::create(&next)?;
            serde_json::to_writer_pretty(&mut file, checkpoint)?;
            file.write_all(b"\n")?;
            file.sync_data()?;
            fs::rename(&next, &self.checkpoint)
        };
        write().map_err(Stop::file(&self.checkpoint))
    }

    /// Opens the file of rejects and truncates it to the `bytes` of the checkpoint, since a resumed import writes later rejects
    /// again. Returns its length, which is less if the file was removed.
    pub(super) fn rejects(&self, bytes: u64) -> Result<(File, u64), Stop> {
        let open = || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(&self.rejects)?;
            file.set_len(bytes.min(file.metadata()?.len()))?;
            let bytes = file.seek(SeekFrom::End(0))?;
            Ok((file, bytes))
        };
        open().map_err(Stop::file(&self.rejects))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_the_saved_checkpoint_and_leaves_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let files = CheckpointFiles::of(Path::new("somewhere/events.csv"), Some(folder.path()));
        assert!(files.load().unwrap().is_none());
        let identity = Identity { hash: u128::MAX / 3, size: 9 };
        let mut checkpoint = Checkpoint::new(identity, Format::Csv, u64::MAX);
        files.save(&checkpoint).unwrap();
        checkpoint.counts.refused.insert("outside-window".into(), 2);
        checkpoint.mark = Mark { offset: 5, line: 1 };
        files.save(&checkpoint).unwrap();
        assert_eq!(files.load().unwrap(), Some(checkpoint.clone()));
        // Of an earlier version, without logs.
        let text = fs::read_to_string(&files.checkpoint).unwrap();
        let mut earlier: serde_json::Value = serde_json::from_str(&text).unwrap();
        earlier.as_object_mut().unwrap().retain(|name, _| name != "destination" && name != "elsewhere");
        fs::write(&files.checkpoint, earlier.to_string()).unwrap();
        assert_eq!(files.load().unwrap(), Some(checkpoint.clone()));
        assert!(checkpoint.is_of(identity));
        assert!(!checkpoint.is_of(Identity { hash: 1, size: 9 }));
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["events.csv.millrace-import"]);
    }

    #[test]
    fn does_not_overwrite_another_file() {
        let folder = tempfile::tempdir().unwrap();
        let files = CheckpointFiles::of(&folder.path().join("e.ndjson"), None);
        for bad in ["", "{}", "precious"] {
            fs::write(&files.checkpoint, bad).unwrap();
            assert!(matches!(files.load(), Err(Stop::Checkpoint { .. })), "{bad}");
        }
    }
}
