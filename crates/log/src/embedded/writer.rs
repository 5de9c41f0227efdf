//! The writer thread: commits the backlog as one atomic, synced batch, makes it visible, then acknowledges it.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use fjall::OwnedWriteBatch;

use super::disk::DISK_FULL;
use super::guard::SyncMark;
use super::layout::COMMITS;
use super::partition::{Partition, latest_key};
use super::{Shared, codec};
use crate::outcome::Ticket;
use crate::{Failure, LogError, NewRecord, Outcome, Receipts, RefusalCause, fault};

/// Maximum bytes of one group: a batch is in memory twice until it is written.
const GROUP_BYTES: usize = 16 << 20;
/// fjall has 16 bits for the length of a key; a `latest` key has one more byte.
const MAX_KEY_BYTES: usize = 65_534;

/// Encoded records in one buffer.
#[derive(Default)]
pub(super) struct Records {
    pub(super) bytes: Vec<u8>,
    pub(super) entries: Vec<Entry>,
}

/// Records, and numbers for `meta`, that commit together.
pub(super) struct Write {
    pub(super) records: Records,
    pub(super) numbers: Vec<(String, u64)>,
    pub(super) completion: Completion,
}

/// One record.
pub(super) struct Entry {
    /// Index in the layout.
    pub(super) partition: usize,
    /// The end of the record in the bytes.
    pub(super) end: usize,
}

/// The recipient of a write's outcome.
pub(super) enum Completion {
    /// An append: a ticket for each record.
    Append(Vec<Ticket>),
    /// A step of a stage, or a new start of a partition.
    Step { reply: SyncSender<Result<(), LogError>>, needs_space: bool },
}

impl Shared {
    pub(super) fn append(&self, records: &[NewRecord<'_>]) -> Receipts {
        let (receipts, tickets) = Receipts::new(records.len());
        let size: usize = records.iter().map(|record| codec::HEADER + record.key.len() + record.value.len()).sum();
        let mut bytes = Vec::with_capacity(size.min(self.config.max_queue_bytes.as_usize()));
        let mut entries = Vec::with_capacity(records.len());
        let mut pending = Vec::with_capacity(records.len());
        let failed = self.failure().is_some();
        let now = self.clock.now_ms();
        for (record, ticket) in records.iter().zip(tickets) {
            let length = record.key.len() + record.value.len();
            if length > self.config.max_record_bytes.as_usize() || record.key.len() > MAX_KEY_BYTES {
                ticket.resolve(Outcome::Refused(RefusalCause::TooLarge));
                continue;
            }
            // A partition that does not exist is unavailable, like a failed log.
            let Some(partition) = self.layout.index(record.topic, record.partition).filter(|_| !failed) else {
                ticket.resolve(Outcome::Refused(RefusalCause::Unavailable));
                continue;
            };
            codec::encode(now, record.key, Some(record.value), &mut bytes);
            entries.push(Entry { partition, end: bytes.len() });
            pending.push(ticket);
        }
        if !entries.is_empty() {
            let write = Write {
                records: Records { bytes, entries },
                numbers: Vec::new(),
                completion: Completion::Append(pending),
            };
            if let Err((write, cause)) = self.queue.offer(write) {
                write.completion.refuse(cause);
            }
        }
        fault::point("embedded::append::enqueued");
        receipts
    }

    /// Writes numbers and records as one atomic step. Blocks until it is durable.
    pub(super) fn step(
        &self,
        records: Records,
        numbers: Vec<(String, u64)>,
        needs_space: bool,
    ) -> Result<(), LogError> {
        let (reply, answer) = std::sync::mpsc::sync_channel(1);
        let write = Write { records, numbers, completion: Completion::Step { reply, needs_space } };
        self.queue.push_unbounded(write).map_err(|_| LogError::unavailable("the log is closed"))?;
        answer.recv().unwrap_or_else(|_| Err(LogError::unavailable("the log's writer has ended")))
    }
}

impl Completion {
    fn refuse(self, cause: RefusalCause) {
        match self {
            Self::Append(tickets) => tickets.into_iter().for_each(|ticket| ticket.resolve(Outcome::Refused(cause))),
            Self::Step { reply, .. } => {
                let detail = match cause {
                    RefusalCause::DiskFull => DISK_FULL,
                    _ => "the log's writer has failed",
                };
                let _ = reply.send(Err(LogError::unavailable(detail)));
            }
        }
    }

    /// Whether it has to wait for free space; `steps` is whether there is enough for steps.
    fn needs_space(&self, steps: bool) -> bool {
        match self {
            Self::Append(_) => true,
            Self::Step { needs_space, .. } => *needs_space && !steps,
        }
    }
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    sync_mark: SyncMark,
    commits: u64,
    /// The end of each partition, before it is visible.
    ends: Vec<u64>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, sync_mark: SyncMark) -> Self {
        let ends = shared.layout.all().iter().map(Partition::end).collect();
        let commits = shared.layout.commits;
        Self { shared, sync_mark, commits, ends }
    }

    /// Runs until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let mut group = Vec::new();
        while self.shared.queue.take(&mut group, GROUP_BYTES) {
            self.write(&mut group);
            group.clear();
        }
        if let Err(error) = self.sync_mark.sync() {
            tracing::warn!(%error, "cannot sync the sync mark");
        }
    }

    fn write(&mut self, group: &mut Vec<Write>) {
        if self.shared.failure().is_some() {
            return group.drain(..).for_each(|write| write.completion.refuse(RefusalCause::Unavailable));
        }
        if !self.shared.disk.is_enough() {
            let steps = self.shared.disk.is_enough_for_steps();
            for refused in group.extract_if(.., |write| write.completion.needs_space(steps)) {
                refused.completion.refuse(RefusalCause::DiskFull);
            }
        }
        if group.is_empty() {
            return;
        }
        let before = self.ends.clone();
        let batch = self.batch(group);
        match self.commit(batch) {
            Ok(()) => {
                fault::point("embedded::append::synced");
                self.publish(group.drain(..), &before);
            }
            Err(error) => {
                tracing::error!(%error, "refusing all writes until a restart");
                self.shared.fail(LogError::Refused(error.clone()));
                for write in group.drain(..) {
                    match write.completion {
                        // Dropped unresolved: unknown.
                        Completion::Append(tickets) => drop(tickets),
                        Completion::Step { reply, .. } => {
                            let _ = reply.send(Err(LogError::Unavailable(error.clone())));
                        }
                    }
                }
            }
        }
    }

    fn batch(&mut self, group: &[Write]) -> OwnedWriteBatch {
        let shared = &self.shared;
        let records: usize = group.iter().map(|write| write.records.entries.len()).sum();
        let capacity = records * 2 + 8;
        let mut batch = OwnedWriteBatch::with_capacity(shared.database.clone(), capacity);
        batch = batch.durability(Some(fault::durability()));
        let mut touched = vec![false; self.ends.len()];
        for write in group {
            let mut begin = 0;
            for entry in &write.records.entries {
                let encoded = &write.records.bytes[begin..entry.end];
                begin = entry.end;
                let partition = &shared.layout.all()[entry.partition];
                let offset = self.ends[entry.partition].to_be_bytes();
                self.ends[entry.partition] += 1;
                touched[entry.partition] = true;
                batch.insert(&partition.log, offset, encoded);
                if let Some(latest) = &partition.latest {
                    let record = codec::decode_own(encoded);
                    match record.value {
                        Some(_) => batch.insert(latest, latest_key(record.key), [&offset, encoded].concat()),
                        None => batch.remove(latest, latest_key(record.key)),
                    }
                }
            }
            for (key, value) in &write.numbers {
                batch.insert(&shared.layout.meta, key.as_str(), value.to_be_bytes());
            }
        }
        for (partition, end) in
            shared.layout.all().iter().zip(&self.ends).zip(touched).filter_map(|(end, touched)| touched.then_some(end))
        {
            batch.insert(&shared.layout.meta, partition.end_key(), end.to_be_bytes());
        }
        batch.insert(&shared.layout.meta, COMMITS, (self.commits + 1).to_be_bytes());
        batch
    }

    fn commit(&mut self, batch: OwnedWriteBatch) -> Result<(), Failure> {
        fault::inject("embedded::commit")?;
        batch.commit().map_err(|error| Failure::new(format!("a commit failed: {error}")).because(error))?;
        fault::inject("embedded::sync")?;
        self.commits += 1;
        let recorded = self.sync_mark.record(self.commits);
        recorded.map_err(|error| Failure::new(format!("a commit failed: the sync mark: {error}")).because(error))
    }

    fn publish(&mut self, group: impl Iterator<Item = Write>, before: &[u64]) {
        for topic in self.shared.layout.topics() {
            let mut moved = false;
            for index in topic.indexes.clone().filter(|&index| self.ends[index] != before[index]) {
                self.shared.layout.all()[index].set_end(self.ends[index]);
                moved = true;
            }
            if moved {
                topic.ends.notify();
            }
        }
        let mut next = before.to_vec();
        for write in group {
            match write.completion {
                Completion::Append(tickets) => {
                    for (entry, ticket) in write.records.entries.iter().zip(tickets) {
                        ticket.resolve(Outcome::Acknowledged(next[entry.partition]));
                        next[entry.partition] += 1;
                    }
                }
                Completion::Step { reply, .. } => {
                    write.records.entries.iter().for_each(|entry| next[entry.partition] += 1);
                    let _ = reply.send(Ok(()));
                }
            }
        }
    }
}
