//! Books batches in the order of the file, whatever order they are settled in, and writes down how far that goes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;

use super::Stop;
use super::checkpoint::{Checkpoint, Counts, Place};
use super::reject::{MOST_SHOWN, Reject};
use super::sender::Settled;

/// The books of one import.
pub(super) struct Ledger {
    checkpoint: Checkpoint,
    /// Where they are kept; nowhere for the standard input.
    place: Option<Place>,
    rejects: Option<File>,
    /// Settled, but something before them is not.
    ahead: BTreeMap<u64, Settled>,
    next: u64,
}

impl Ledger {
    /// Goes on from a checkpoint.
    pub(super) fn new(checkpoint: Checkpoint, place: Option<Place>) -> Self {
        Self { checkpoint, place, rejects: None, ahead: BTreeMap::new(), next: 0 }
    }

    /// Writes down that it begins, or goes on, from here.
    pub(super) fn open(&mut self) -> Result<(), Stop> {
        if self.place.as_ref().is_some_and(|place| place.rejects.exists()) {
            self.open_rejects()?;
        }
        self.save()
    }

    /// Takes a settled batch.
    pub(super) fn take(&mut self, settled: Settled) {
        self.ahead.insert(settled.batch.sequence, settled);
    }

    /// Writes down what is settled without a gap. Rejects first: a checkpoint never speaks of lines that are not written.
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
        self.book(&rejects)?;
        self.save()
    }

    /// Everything is settled.
    pub(super) fn complete(&mut self) -> Result<(), Stop> {
        self.checkpoint.completed = true;
        self.save()
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.checkpoint.counts
    }

    /// Bytes and lines that are settled.
    pub(super) fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    fn book(&mut self, rejects: &[Reject]) -> Result<(), Stop> {
        let mut text = Vec::new();
        for reject in rejects {
            let counts = &mut self.checkpoint.counts;
            if reject.sent {
                *counts.refused.entry(reject.code.to_owned()).or_default() += 1;
            } else {
                counts.bad += 1;
            }
            if self.place.is_none() && counts.not_accepted() <= MOST_SHOWN {
                eprintln!("{reject}");
            }
            serde_json::to_writer(&mut text, reject).expect("memory takes every write");
            text.push(b'\n');
        }
        if !text.is_empty() && self.rejects.is_none() {
            self.open_rejects()?;
        }
        if let (Some(file), Some(place)) = (&mut self.rejects, &self.place) {
            file.write_all(&text).and_then(|()| file.sync_data()).map_err(Stop::file(&place.rejects))?;
            self.checkpoint.rejects_bytes += text.len() as u64;
        }
        Ok(())
    }

    fn open_rejects(&mut self) -> Result<(), Stop> {
        if let Some(place) = &self.place {
            let (file, bytes) = place.rejects(self.checkpoint.rejects_bytes)?;
            (self.rejects, self.checkpoint.rejects_bytes) = (Some(file), bytes);
        }
        Ok(())
    }

    fn save(&self) -> Result<(), Stop> {
        self.place.as_ref().map_or(Ok(()), |place| place.save(&self.checkpoint))
    }
}
