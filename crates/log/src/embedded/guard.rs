//! What stands between damaged journals and a log served short.
//!
//! fjall's recovery cuts a journal at the first bad byte and says nothing. So the journals are read before it opens them:
//! a sealed one must be whole, the active one must reach the highest commit that was noted as synced. The note is a file
//! of two checksummed slots, written in turn after each commit.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::journal::{self, Scan};
use crate::LogError;

/// How long a power cut may set the note back; the records themselves are synced.
const SYNC_EVERY: Duration = Duration::from_millis(100);
/// The slots stand in different blocks, so that one torn write leaves the other.
const SLOT_BYTES: u64 = 4_096;
const KEYSPACES: &str = "keyspaces.list";

/// The note of the highest synced commit.
pub(super) struct Synced {
    file: File,
    last_sync: Instant,
}

impl Synced {
    /// Opens the note, and makes it with 0 in a new directory.
    fn open(directory: &Path) -> Result<(Self, u64), LogError> {
        let path = directory.join("synced");
        let failed = |error: io::Error| LogError::Damaged(format!("{}: {error}", path.display()));
        let new = !path.exists();
        if new && directory.join("version").exists() {
            return Err(LogError::Damaged(format!("{} is missing", path.display())));
        }
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        let mut synced = Self { file, last_sync: Instant::now() };
        if new {
            synced.put(0).and_then(|()| synced.sync()).map_err(failed)?;
            File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
        }
        let highest = (0..2).filter_map(|slot| synced.slot(slot)).max();
        let highest = highest.ok_or_else(|| LogError::Damaged(format!("{}: no slot is whole", path.display())))?;
        Ok((synced, highest))
    }

    /// Notes a synced commit.
    pub(super) fn note(&mut self, commit: u64) -> io::Result<()> {
        self.put(commit)?;
        if self.last_sync.elapsed() >= SYNC_EVERY { self.sync() } else { Ok(()) }
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.last_sync = Instant::now();
        self.file.sync_data()
    }

    fn put(&self, commit: u64) -> io::Result<()> {
        let mut slot = [0; 12];
        slot[..8].copy_from_slice(&commit.to_be_bytes());
        slot[8..].copy_from_slice(&crc32fast::hash(&commit.to_be_bytes()).to_be_bytes());
        self.file.write_all_at(&slot, commit % 2 * SLOT_BYTES)
    }

    fn slot(&self, slot: u64) -> Option<u64> {
        let mut bytes = [0; 12];
        self.file.read_exact_at(&mut bytes, slot * SLOT_BYTES).ok()?;
        let (commit, crc) = bytes.split_first_chunk::<8>()?;
        (crc == crc32fast::hash(commit).to_be_bytes()).then(|| u64::from_be_bytes(*commit))
    }
}

/// A directory that may be opened.
pub(super) struct Checked {
    pub(super) synced: Synced,
    /// The highest commit noted; 0 when nothing was ever committed.
    pub(super) highest: u64,
    /// The active journal as it was, when its end was cut off.
    aside: Option<(PathBuf, PathBuf)>,
}

/// Looks at the directory before fjall does. Nothing is changed when it is refused.
pub(super) fn check(directory: &Path) -> Result<Checked, LogError> {
    let failed = |error: io::Error| LogError::Damaged(format!("{}: {error}", directory.display()));
    let (synced, highest) = Synced::open(directory)?;
    let mut checked = Checked { synced, highest, aside: None };
    if !directory.join("version").exists() {
        if highest > 0 {
            return Err(LogError::Damaged(format!("{} is missing", directory.join("version").display())));
        }
        // The first opening was interrupted: fjall would stumble over its own leftovers.
        for leftover in ["lock", "0.jnl"] {
            let _ = std::fs::remove_file(directory.join(leftover));
        }
        let _ = std::fs::remove_dir_all(directory.join("keyspaces"));
        return Ok(checked);
    }
    check_keyspaces(directory, highest)?;
    let journals = journals(directory)?;
    let Some(((_, active), sealed)) = journals.split_last() else {
        return Err(LogError::Damaged(format!("no journal in {}", directory.display())));
    };
    let mut commits = None;
    for (_, path) in sealed {
        let scan = journal::scan(path).map_err(failed)?;
        commits = commits.max(scan.commits);
        if scan.torn {
            return Err(lost(path, &scan, "the rest of a sealed journal is damaged"));
        }
    }
    let scan = journal::scan(active).map_err(failed)?;
    commits = commits.max(scan.commits);
    if let Some(commits) = commits
        && commits < highest
    {
        let why = format!("{} commits that were synced are lost", highest - commits);
        return Err(lost(active, &scan, &why));
    }
    if scan.torn {
        checked.set_aside(directory, active, scan.valid).map_err(failed)?;
    }
    Ok(checked)
}

impl Checked {
    /// After opening: what came back must reach the note.
    pub(super) fn confirm(&self, commits: u64) -> Result<(), LogError> {
        if commits < self.highest {
            let mut shown = "the journals".to_owned();
            if let Some((active, copy)) = &self.aside {
                shown = active.display().to_string();
                std::fs::copy(copy, active).map_err(|error| LogError::Damaged(format!("{shown}: {error}")))?;
            }
            let lost = self.highest - commits;
            return Err(LogError::Damaged(format!("{shown}: {lost} commits that were synced are lost")));
        }
        if let Some(copies) = self.aside.as_ref().and_then(|(_, copy)| copy.parent()) {
            let _ = std::fs::remove_dir_all(copies);
        }
        Ok(())
    }

    /// Cuts off what was never synced, and keeps a copy until the opened log is known to be complete.
    fn set_aside(&mut self, directory: &Path, active: &Path, valid: u64) -> io::Result<()> {
        let copies = (0..u32::MAX).map(|n| directory.join(format!("recovery-{n}"))).find(|copies| !copies.exists());
        let copies = copies.expect("there are more numbers than folders");
        std::fs::create_dir(&copies)?;
        let copy = copies.join(active.file_name().unwrap_or_default());
        std::fs::copy(active, &copy)?;
        File::open(&copy)?.sync_all()?;
        let journal = File::options().write(true).open(active)?;
        journal.set_len(valid)?;
        journal.sync_all()?;
        tracing::info!(journal = %active.display(), valid, "the end of the journal was never synced: cut off");
        self.aside = Some((active.to_owned(), copy));
        Ok(())
    }
}

fn lost(path: &Path, scan: &Scan, why: &str) -> LogError {
    LogError::Damaged(format!("{} is whole up to byte {} of {}: {why}", path.display(), scan.valid, scan.length))
}

/// The journals by number, without a gap.
fn journals(directory: &Path) -> Result<Vec<(u64, PathBuf)>, LogError> {
    let failed = |error: io::Error| LogError::Damaged(format!("{}: {error}", directory.display()));
    let mut journals = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            let number = number.ok_or_else(|| LogError::Refused(format!("{} is no journal", path.display())))?;
            journals.push((number, path));
        }
    }
    journals.sort();
    for pair in journals.windows(2) {
        if pair[0].0 + 1 != pair[1].0 {
            let missing = directory.join(format!("{}.jnl", pair[0].0 + 1));
            return Err(LogError::Damaged(format!("{} is missing", missing.display())));
        }
    }
    Ok(journals)
}

/// fjall deletes a keyspace that has lost its `current` file, and all of them when the list of names is gone: ours are
/// looked at before it opens.
fn check_keyspaces(directory: &Path, highest: u64) -> Result<(), LogError> {
    let path = directory.join(KEYSPACES);
    let Ok(list) = std::fs::read_to_string(&path) else {
        // The first opening was interrupted before the list was written.
        if highest == 0 {
            return Ok(());
        }
        return Err(LogError::Damaged(format!("{} is missing", path.display())));
    };
    let (crc, list) = list.split_once('\n').unwrap_or_default();
    if crc != format!("{:08x}", crc32fast::hash(list.as_bytes())) {
        return Err(LogError::Damaged(format!("{} is not what was written", path.display())));
    }
    for id in std::iter::once("0").chain(list.lines().filter_map(|line| line.split(' ').next())) {
        let current = directory.join("keyspaces").join(id).join("current");
        if !current.exists() {
            return Err(LogError::Damaged(format!("{} is missing", current.display())));
        }
    }
    Ok(())
}

/// Notes which keyspaces must be there from now on, as (folder, name).
pub(super) fn note_keyspaces(directory: &Path, keyspaces: impl Iterator<Item = (u64, String)>) -> io::Result<()> {
    let lines: Vec<String> = keyspaces.map(|(id, name)| format!("{id} {name}")).collect();
    let list = lines.join("\n");
    let path = directory.join(KEYSPACES);
    let new = directory.join(format!("{KEYSPACES}.new"));
    std::fs::write(&new, format!("{:08x}\n{list}", crc32fast::hash(list.as_bytes())))?;
    File::open(&new)?.sync_all()?;
    std::fs::rename(&new, &path)?;
    File::open(directory)?.sync_all()
}
