//! Records batches in the order of the file, whatever the order of their completion, and saves the position.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;

use super::Stop;
use super::checkpoint::{Checkpoint, CheckpointFiles, Counts};
use super::reject::{MAX_PRINTED, Reject};
use super::sender::Settlement;

/// The state of one import.
pub(super) struct Ledger {
    checkpoint: Checkpoint,
    /// The files; none for the standard input.
    files: Option<CheckpointFiles>,
    rejects: Option<File>,
    /// Settlement, but something before them is not.
    ahead: BTreeMap<u64, Settlement>,
    next: u64,
}

impl Ledger {
    /// Resumes from a checkpoint.
    pub(super) fn new(checkpoint: Checkpoint, files: Option<CheckpointFiles>) -> Self {
        Self { checkpoint, files, rejects: None, ahead: BTreeMap::new(), next: 0 }
    }

    /// Saves the checkpoint that the import starts or resumes from.
    pub(super) fn open(&mut self) -> Result<(), Stop> {
        if self.files.as_ref().is_some_and(|files| files.rejects.exists()) {
            self.open_rejects()?;
        }
        self.save()
    }

    /// Adds a complete batch.
    pub(super) fn add(&mut self, settled: Settlement) {
        self.ahead.insert(settled.batch.sequence, settled);
    }

    /// Saves the complete batches without a gap. Rejects first: a checkpoint never counts rejects that are not in their file.
    pub(super) fn advance(&mut self) -> Result<(), Stop> {
        let before = self.next;
        let mut rejects = Vec::new();
        while let Some(settled) = self.ahead.remove(&self.next) {
            self.next += 1;
            self.checkpoint.mark = settled.batch.end;
            self.checkpoint.counts.accepted += settled.accepted;
            rejects.extend(settled.rejects);
        }
        if self.next == before {
            return Ok(());
        }
        self.record(&rejects)?;
        self.save()
    }

    /// Every line has a final outcome.
    pub(super) fn complete(&mut self) -> Result<(), Stop> {
        self.checkpoint.completed = true;
        self.save()
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.checkpoint.counts
    }

    /// The current checkpoint.
    pub(super) fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    fn record(&mut self, rejects: &[Reject]) -> Result<(), Stop> {
        let mut text = Vec::new();
        for reject in rejects {
            let counts = &mut self.checkpoint.counts;
            if reject.sent {
                *counts.refused.entry(reject.code.to_owned()).or_default() += 1;
            } else {
                counts.bad += 1;
            }
            if self.files.is_none() && counts.not_accepted() <= MAX_PRINTED {
                eprintln!("{reject}");
            }
            serde_json::to_writer(&mut text, reject).expect("writing to memory does not fail");
            text.push(b'\n');
        }
        if !text.is_empty() && self.rejects.is_none() {
            self.open_rejects()?;
        }
        if let (Some(file), Some(files)) = (&mut self.rejects, &self.files) {
            file.write_all(&text).and_then(|()| file.sync_data()).map_err(Stop::file(&files.rejects))?;
            self.checkpoint.rejects_bytes += text.len() as u64;
        }
        Ok(())
    }

    fn open_rejects(&mut self) -> Result<(), Stop> {
        if let Some(files) = &self.files {
            let (file, bytes) = files.rejects(self.checkpoint.rejects_bytes)?;
            (self.rejects, self.checkpoint.rejects_bytes) = (Some(file), bytes);
        }
        Ok(())
    }

    fn save(&self) -> Result<(), Stop> {
        self.files.as_ref().map_or(Ok(()), |files| files.save(&self.checkpoint))
    }
}
