//! Feeds the journal from `intake.journal`.

use millrace_contracts::{JournalRecord, ProjectionPosition, ProjectionWrite, StoreError, Topic, WriteOutcome, metric};
use millrace_log::{Batch, GroupPosition, Sink};

use super::config::JournalConfig;
use super::error::JournalError;
use super::writer::Journal;

/// What to do if the log is not the one that the position of a journal is of.
pub const REMEDY: &str = "use the log that the journal is of, or keep this journal as it is, set `journal.directory` to an empty \
    directory, and run `millrace journal adopt --from earliest`";

/// Writes the journal of one directory. The topic has one partition, so there is one writer.
#[derive(Debug)]
pub(super) struct JournalSink {
    config: JournalConfig,
    /// The group's position when the sink began.
    group: Option<GroupPosition>,
    journal: Option<Journal>,
    /// Where reading goes on: past the journal's position only by what is no record of it.
    next: Option<ProjectionPosition>,
}

impl JournalSink {
    /// A sink that opens the journal when it is asked for its position.
    pub(super) fn new(config: JournalConfig, group: Option<GroupPosition>) -> Self {
        Self { config, group, journal: None, next: None }
    }

    fn open(&mut self) -> Result<&mut Journal, JournalError> {
        if self.journal.is_none() {
            let journal = Journal::open(self.config.clone())?;
            let own = journal.position();
            match self.group {
                // Records may have been written elsewhere that would be missing here.
                Some(group) if group.copy_id != 0 && group.copy_id != own.journal_id => {
                    let (name, next) = (&self.config.name, group.next_offset);
                    let why = if own.index_length == 0 { "is empty" } else { "has another journal" };
                    let why = format!(
                        "the directory {why}, and the journal {name} has records up to {next} elsewhere; \
                         `millrace journal adopt` goes on here"
                    );
                    return Err(JournalError::damaged(&self.config.directory, why));
                }
                Some(_) | None => self.journal = Some(journal),
            }
        }
        self.journal.as_mut().ok_or_else(|| JournalError::Missing(self.config.directory.clone()))
    }

    fn write_one(&mut self, write: &ProjectionWrite<'_, Batch>) -> Result<WriteOutcome, JournalError> {
        let stored = self.next.map(|next| next.next_offset);
        if write.expected != stored {
            return Ok(WriteOutcome::PositionMismatch(stored));
        }
        let next = ProjectionPosition { next_offset: write.next, last_record: write.last_record };
        let mut foreign = 0_u64;
        let records = write.items.iter().filter_map(|record| {
            let decoded = record.value.and_then(|value| JournalRecord::decode(value).ok());
            foreign += u64::from(decoded.is_none());
            Some((record.offset, decoded?))
        });
        let records: Vec<_> = records.collect();
        if foreign > 0 {
            tracing::error!(foreign, "records of intake.journal that are none of its messages were left out");
            metrics::counter!(metric::JOURNAL_FOREIGN.name).increment(foreign);
        }
        if !records.is_empty() {
            let (number, bytes) =
                (records.len() as u64, records.iter().map(|(_, record)| record.payload.len() as u64).sum());
            self.open()?.append(records, next)?;
            metrics::counter!(metric::JOURNAL_RECORDS.name).increment(number);
            metrics::counter!(metric::JOURNAL_BYTES.name).increment(bytes);
        }
        self.next = Some(next);
        Ok(WriteOutcome::Applied)
    }
}

impl Sink for JournalSink {
    fn topic(&self) -> Topic {
        Topic::INTAKE_JOURNAL
    }

    fn copy_id(&self) -> u64 {
        self.journal.as_ref().map_or(0, |journal| journal.position().journal_id)
    }

    async fn position(&mut self, _partition: u32) -> Result<Option<ProjectionPosition>, StoreError> {
        self.next = self.open()?.position().projected();
        Ok(self.next)
    }

    fn remedy(&self) -> String {
        REMEDY.into()
    }

    async fn write(&mut self, writes: &[ProjectionWrite<'_, Batch>]) -> Result<Vec<WriteOutcome>, StoreError> {
        writes.iter().map(|write| Ok(self.write_one(write)?)).collect()
    }
}
