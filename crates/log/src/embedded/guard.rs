//! Refuses to open a directory that lost synced data.
//!
//! fjall's recovery silently truncates a journal at the first bad byte. So this module reads the journals before fjall
//! opens them: a sealed one must be intact, the active one must reach the highest synced commit. The sync mark records
//! that commit: a file of two checksummed slots, written in turn after each commit. It also checks what fjall does not: the
//! manifests of keyspaces, and that no keyspace is missing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_128;

use super::journal::{self, JournalScan};
use super::layout::VIEW;
use crate::LogError;

/// How far a power loss may set the sync mark back; the records themselves are synced.
const SYNC_INTERVAL: Duration = Duration::from_millis(100);
/// The slots are in different blocks, so that a torn write damages only one.
const SLOT_BYTES: u64 = 4_096;
const KEYSPACES: &str = "keyspaces.list";

/// The sync mark: the file that records the highest synced commit.
pub(super) struct SyncMark {
    file: File,
    last_sync: Instant,
}

impl SyncMark {
    /// Opens the sync mark and reads the commit; creates it with 0 in a new directory.
    fn open(directory: &Path) -> Result<(Self, u64), LogError> {
        let path = directory.join("synced");
        let failed = |error: io::Error| LogError::damaged(format!("{}: {error}", path.display())).because(error);
        let new = !path.exists();
        if new && directory.join("version").exists() {
            return Err(LogError::damaged(format!("{} is missing", path.display())));
        }
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        let mut mark = Self { file, last_sync: Instant::now() };
        if new {
            mark.put(0).and_then(|()| mark.sync()).map_err(failed)?;
            File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
        }
        let highest = (0..2).filter_map(|slot| mark.slot(slot)).max();
        let highest = highest.ok_or_else(|| LogError::damaged(format!("{}: no slot is intact", path.display())))?;
        Ok((mark, highest))
    }

    /// Records a synced commit.
    pub(super) fn record(&mut self, commit: u64) -> io::Result<()> {
        self.put(commit)?;
        if self.last_sync.elapsed() >= SYNC_INTERVAL { self.sync() } else { Ok(()) }
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

/// A directory that passed the check.
pub(super) struct Inspection {
    pub(super) sync_mark: SyncMark,
    /// The commit in the sync mark; 0 if nothing was ever committed.
    pub(super) highest: u64,
    /// The active journal and a copy of it as it was, if its end was truncated.
    truncated: Option<(PathBuf, PathBuf)>,
}

/// Checks the directory before fjall opens it. Changes nothing if it refuses.
pub(super) fn check(directory: &Path) -> Result<Inspection, LogError> {
    let failed = |error: io::Error| LogError::damaged(format!("{}: {error}", directory.display())).because(error);
    let version = directory.join("version");
    if !version.exists() && holds_commits(directory)? {
        return Err(LogError::damaged(format!("{} is missing, and there are records", version.display())));
    }
    let (sync_mark, highest) = SyncMark::open(directory)?;
    let mut inspection = Inspection { sync_mark, highest, truncated: None };
    if !version.exists() {
        if highest > 0 {
            return Err(LogError::damaged(format!("{} is missing", version.display())));
        }
        // The first opening was interrupted: fjall would fail on its own leftovers.
        for leftover in ["lock", "0.jnl"] {
            let _ = std::fs::remove_file(directory.join(leftover));
        }
        let _ = std::fs::remove_dir_all(directory.join("keyspaces"));
        return Ok(inspection);
    }
    check_keyspaces(directory, highest)?;
    let journals = journals(directory)?;
    let Some(((_, active), sealed)) = journals.split_last() else {
        return Err(LogError::damaged(format!("no journal in {}", directory.display())));
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
        inspection.truncate(directory, active, scan.valid).map_err(failed)?;
    }
    Ok(inspection)
}

impl Inspection {
    /// Checks the opened log: it must reach the sync mark.
    pub(super) fn confirm(&self, commits: u64) -> Result<(), LogError> {
        if commits < self.highest {
            let mut shown = "the journals".to_owned();
            if let Some((active, copy)) = &self.truncated {
                shown = active.display().to_string();
                std::fs::copy(copy, active)
                    .map_err(|error| LogError::damaged(format!("{shown}: {error}")).because(error))?;
            }
            let lost = self.highest - commits;
            return Err(LogError::damaged(format!("{shown}: {lost} commits that were synced are lost")));
        }
        if let Some(copies) = self.truncated.as_ref().and_then(|(_, copy)| copy.parent()) {
            let _ = std::fs::remove_dir_all(copies);
        }
        Ok(())
    }

    /// Truncates the end that was never synced. Retains a copy until the opened log is confirmed to be complete.
    fn truncate(&mut self, directory: &Path, active: &Path, valid: u64) -> io::Result<()> {
        let copies = (0..u32::MAX).map(|n| directory.join(format!("recovery-{n}"))).find(|copies| !copies.exists());
        let copies = copies.expect("there are more numbers than folders");
        std::fs::create_dir(&copies)?;
        let copy = copies.join(active.file_name().unwrap_or_default());
        std::fs::copy(active, &copy)?;
        File::open(&copy)?.sync_all()?;
        let journal = File::options().write(true).open(active)?;
        journal.set_len(valid)?;
        journal.sync_all()?;
        tracing::info!(journal = %active.display(), valid, "truncated the end of the journal, which was never synced");
        self.truncated = Some((active.to_owned(), copy));
        Ok(())
    }
}

fn lost(path: &Path, scan: &JournalScan, why: &str) -> LogError {
    LogError::damaged(format!("{} is whole up to byte {} of {}: {why}", path.display(), scan.valid, scan.length))
}

/// Whether a journal has commits, or a keyspace tables: a first opening that was interrupted leaves neither.
fn holds_commits(directory: &Path) -> Result<bool, LogError> {
    let failed = |error: io::Error| LogError::damaged(format!("{}: {error}", directory.display())).because(error);
    for (_, path) in journals(directory)? {
        if journal::scan(&path).map_err(failed)?.commits.is_some() {
            return Ok(true);
        }
    }
    let Ok(keyspaces) = std::fs::read_dir(directory.join("keyspaces")) else { return Ok(false) };
    for keyspace in keyspaces {
        let tables = keyspace.map_err(failed)?.path().join("tables");
        if std::fs::read_dir(tables).is_ok_and(|mut tables| tables.next().is_some()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The journals, by number. Refuses a gap.
fn journals(directory: &Path) -> Result<Vec<(u64, PathBuf)>, LogError> {
    let failed = |error: io::Error| LogError::damaged(format!("{}: {error}", directory.display())).because(error);
    let mut journals = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            let number = number.ok_or_else(|| LogError::refused(format!("{} is not a journal", path.display())))?;
            journals.push((number, path));
        }
    }
    journals.sort();
    for pair in journals.windows(2) {
        if pair[0].0 + 1 != pair[1].0 {
            let missing = directory.join(format!("{}.jnl", pair[0].0 + 1));
            return Err(LogError::damaged(format!("{} is missing", missing.display())));
        }
    }
    Ok(journals)
}

/// Checks that every keyspace of the log is present, and its manifest intact. fjall deletes a keyspace without its `current` file, and
/// all of them without their list; it does not verify a manifest, and some damage there aborts the process.
fn check_keyspaces(directory: &Path, highest: u64) -> Result<(), LogError> {
    let path = directory.join(KEYSPACES);
    let Ok(list) = std::fs::read_to_string(&path) else {
        // The first opening was interrupted before it wrote the list.
        if highest == 0 {
            return Ok(());
        }
        return Err(LogError::damaged(format!("{} is missing", path.display())));
    };
    let (crc, list) = list.split_once('\n').unwrap_or_default();
    if crc != format!("{:08x}", crc32fast::hash(list.as_bytes())) {
        return Err(LogError::damaged(format!("{} is not what was written", path.display())));
    }
    for (id, name) in std::iter::once(("0", "")).chain(list.lines().filter_map(|line| line.split_once(' '))) {
        let keyspace = directory.join("keyspaces").join(id);
        // The log has everything that a read model had, which notices the loss itself.
        if name.starts_with(VIEW) && !keyspace.join("current").exists() {
            tracing::warn!(name, folder = %keyspace.display(), "a read model is lost: it is built again from the log");
            continue;
        }
        check_manifest(&keyspace)?;
    }
    Ok(())
}

/// Checks a keyspace's manifest `v{id}` against its `current` file: the id (u64) and the xxh3 of the manifest (u128), both
/// little-endian, in the pinned version.
fn check_manifest(keyspace: &Path) -> Result<(), LogError> {
    let unreadable = |path: &Path, error| LogError::damaged(format!("{}: {error}", path.display()));
    let current = keyspace.join("current");
    let bytes = std::fs::read(&current).map_err(|error| unreadable(&current, error))?;
    let parts = bytes.split_first_chunk::<8>().and_then(|(id, rest)| Some((id, rest.first_chunk::<16>()?)));
    let Some((id, sum)) = parts else {
        return Err(LogError::damaged(format!("{} is too short", current.display())));
    };
    let manifest = keyspace.join(format!("v{}", u64::from_le_bytes(*id)));
    let bytes = std::fs::read(&manifest).map_err(|error| unreadable(&manifest, error))?;
    if xxh3_128(&bytes).to_le_bytes() != *sum {
        return Err(LogError::damaged(format!("{} is not what was written", manifest.display())));
    }
    Ok(())
}

/// Records the keyspaces that must be present from now on, as (folder, name).
pub(super) fn record_keyspaces(directory: &Path, keyspaces: Vec<(u64, String)>) -> io::Result<()> {
    let lines: Vec<String> = keyspaces.into_iter().map(|(id, name)| format!("{id} {name}")).collect();
    let list = lines.join("\n");
    let path = directory.join(KEYSPACES);
    let new = directory.join(format!("{KEYSPACES}.new"));
    std::fs::write(&new, format!("{:08x}\n{list}", crc32fast::hash(list.as_bytes())))?;
    File::open(&new)?.sync_all()?;
    std::fs::rename(&new, &path)?;
    File::open(directory)?.sync_all()
}
