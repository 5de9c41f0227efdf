//! A journal, open to be written: batch by batch, each durable with its position.

use std::fs::File;

use fail::fail_point;
use millrace_contracts::{JournalRecord, ProjectionPosition};
use millrace_log::sabotaged;

use super::config::JournalConfig;
use super::directory::{Directory, HeldDirectory, open_writable};
use super::error::{At as _, JournalError};
use super::segment::Segment;
use super::sidecar::{self, Position};

/// A journal that this process writes.
#[derive(Debug)]
pub struct Journal {
    config: JournalConfig,
    held: HeldDirectory,
    sidecar: File,
    durable: Position,
    /// `None` if there is no segment yet.
    segment: Option<Segment>,
    /// The files may be ahead of the position: a write failed.
    dirty: bool,
}

impl Journal {
    /// Opens a journal; creates it if the directory has none. What was not durable is cut off.
    pub fn open(config: JournalConfig) -> Result<Self, JournalError> {
        let held = Directory::new(&config.directory).hold()?;
        if !held.directory.sidecar().exists() {
            create(&held, 0)?;
        }
        let path = held.directory.sidecar();
        let sidecar = open_writable(&path)?;
        let durable = held.directory.read_sidecar()?;
        let mut journal = Self { config, held, sidecar, durable, segment: None, dirty: true };
        journal.recover()?;
        Ok(journal)
    }

    /// Creates a journal that goes on from an offset of the topic. The directory must have none.
    pub fn adopt(config: &JournalConfig, next_offset: u64) -> Result<Position, JournalError> {
        let held = Directory::new(&config.directory).hold()?;
        if held.directory.sidecar().exists() {
            return Err(JournalError::damaged(&config.directory, "the directory has a journal already"));
        }
        create(&held, next_offset)
    }

    /// How far it is durable.
    pub fn position(&self) -> &Position {
        &self.durable
    }

    /// Brings the files back to the position.
    fn recover(&mut self) -> Result<(), JournalError> {
        if !self.dirty {
            return Ok(());
        }
        self.segment = None;
        self.durable = self.held.directory.read_sidecar()?;
        let empty = self.durable.index_length == 0;
        for number in self.held.directory.segments()? {
            if empty || number > self.durable.segment {
                self.held.remove(number)?;
            }
        }
        if !empty {
            self.segment = Some(Segment::recover(&self.held, &self.durable)?);
            self.held.link_current(self.durable.segment)?;
        }
        self.held.sync()?;
        self.dirty = false;
        Ok(())
    }

    /// Adds records by rising number, and moves the position to `next`: durable, together, when it returns.
    /// After an error nothing is added, and the next call begins by bringing the files back to the position.
    pub fn append<'r>(
        &mut self,
        records: impl IntoIterator<Item = (u64, JournalRecord<'r>)>,
        next: ProjectionPosition,
    ) -> Result<(), JournalError> {
        self.recover()?;
        self.dirty = true;
        let mut segment = self.segment.take();
        let mut begun = false;
        for (number, record) in records {
            let time_us = segment.as_ref().map_or(i64::MIN, Segment::time_us).max(record.received_at_us);
            if segment.as_ref().is_none_or(|segment| self.is_full(segment, time_us)) {
                // The segment before is durable as a whole before the position leaves it.
                if let Some(full) = &mut segment {
                    full.seal();
                    full.flush(&self.held)?;
                }
                begun = true;
                segment = Some(Segment::create(&self.held, self.config.format, number, time_us)?);
                fail_point!("journal::segment");
            }
            if let Some(segment) = &mut segment {
                segment.add(number, &record);
            }
        }
        let position = if let Some(segment) = &mut segment {
            segment.flush(&self.held)?;
            segment.position(&self.durable, next)
        } else {
            let ProjectionPosition { next_offset, last_record } = next;
            Position { generation: self.durable.generation + 1, next_offset, last_record, ..self.durable }
        };
        fail_point!("journal::written");
        let path = self.held.directory.sidecar();
        sidecar::write(&self.sidecar, &position).at(&path)?;
        if !sabotaged("sabotage::skip-sync") {
            self.sidecar.sync_data().at(&path)?;
        }
        fail_point!("journal::moved");
        (self.durable, self.segment, self.dirty) = (position, segment, false);
        if begun {
            self.held.link_current(position.segment)?;
            self.remove_old()?;
        }
        Ok(())
    }

    /// Whether the next record begins another segment.
    fn is_full(&self, segment: &Segment, time_us: i64) -> bool {
        let every = i64::try_from(self.config.rotate_every.0.as_micros()).unwrap_or(i64::MAX);
        let period = |time_us: i64| time_us.div_euclid(every.max(1));
        let newer = every > 0 && period(time_us) > period(segment.first_time_us());
        newer || segment.end() >= self.config.segment_size.0 || segment.format() != self.config.format
    }

    fn remove_old(&self) -> Result<(), JournalError> {
        if self.config.keep == 0 {
            return Ok(());
        }
        let numbers = self.held.directory.segments()?;
        let old = numbers.len().saturating_sub(self.config.keep as usize + 1);
        for number in &numbers[..old] {
            tracing::info!(
                segment = number,
                "removing a segment: journal.keep allows {} besides the newest",
                self.config.keep
            );
            self.held.remove(*number)?;
        }
        Ok(())
    }
}

fn create(held: &HeldDirectory, next_offset: u64) -> Result<Position, JournalError> {
    if !held.directory.segments()?.is_empty() {
        return Err(JournalError::damaged(
            held.directory.path(),
            "segments without a sidecar: no journal is created here",
        ));
    }
    let position = Position { generation: 1, journal_id: fastrand::u64(..), next_offset, ..Position::default() };
    // Under another name first: a sidecar is there whole or not at all.
    let (path, new) = (held.directory.sidecar(), held.directory.path().join("journal.position.new"));
    let file = open_writable(&new)?;
    file.set_len(0).at(&new)?;
    file.set_len(sidecar::LENGTH).at(&new)?;
    sidecar::write(&file, &position).at(&new)?;
    file.sync_all().at(&new)?;
    std::fs::rename(&new, &path).at(&path)?;
    held.sync()?;
    Ok(position)
}
