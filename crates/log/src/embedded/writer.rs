//! The one thread that writes: what waits becomes one atomic, synced batch; then it is visible; then it is answered.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fail::fail_point;
use fjall::{OwnedWriteBatch, PersistMode};

use super::Shared;
use super::codec;
use super::guard::Synced;
use super::layout::{COMMITS, latest_key};
use crate::fault::sabotaged;
use crate::outcome::Ticket;
use crate::{LogError, NewRecord, Outcome, Receipts, RefusalCause};

/// Most bytes of one group: a batch is in memory twice until it is written.
const GROUP_BYTES: usize = 16 << 20;
const DISK_CHECK: Duration = Duration::from_millis(100);
/// fjall takes keys of 16 bits; a `latest` key has a byte more.
const MAX_KEY_BYTES: usize = 65_534;

/// Encoded records in one buffer.
#[derive(Default)]
pub(super) struct Records {
    pub(super) bytes: Vec<u8>,
    pub(super) entries: Vec<Entry>,
}

/// Records, and numbers for `meta`, that become durable together.
pub(super) struct Write {
    pub(super) records: Records,
    pub(super) numbers: Vec<(String, u64)>,
    pub(super) done: Done,
}

pub(super) struct Entry {
    /// Index in the layout.
    pub(super) partition: usize,
    /// Where the record ends in the bytes.
    pub(super) end: usize,
}

pub(super) enum Done {
    /// An append: a ticket for each record.
    Append(Vec<Ticket>),
    /// A step of a stage, or a new start of a partition.
    Step { reply: SyncSender<Result<(), LogError>>, needs_space: bool },
}

pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Shared {
    pub(super) fn append(&self, records: &[NewRecord<'_>]) -> Receipts {
        let (receipts, tickets) = Receipts::new(records.len());
        let size: usize = records.iter().map(|record| codec::HEADER + record.key.len() + record.value.len()).sum();
        let mut bytes = Vec::with_capacity(size.min(self.config.max_queue_bytes.as_usize()));
        let mut entries = Vec::with_capacity(records.len());
        let mut kept = Vec::with_capacity(records.len());
        let failed = self.failure().is_some();
        let now = now_ms();
        for (record, ticket) in records.iter().zip(tickets) {
            let length = record.key.len() + record.value.len();
            if length > self.config.max_record_bytes.as_usize() || record.key.len() > MAX_KEY_BYTES {
                ticket.resolve(Outcome::Refused(RefusalCause::TooLarge));
                continue;
            }
            // A partition that does not exist can never be had: the same as a log that is not there.
            let Some(partition) = self.layout.index(record.topic, record.partition).filter(|_| !failed) else {
                ticket.resolve(Outcome::Refused(RefusalCause::Unavailable));
                continue;
            };
            codec::encode(now, record.key, Some(record.value), &mut bytes);
            entries.push(Entry { partition, end: bytes.len() });
            kept.push(ticket);
        }
        if !entries.is_empty() {
            let write = Write { records: Records { bytes, entries }, numbers: Vec::new(), done: Done::Append(kept) };
            if let Err((write, why)) = self.queue.offer(write) {
                write.done.refuse(why);
            }
        }
        fail_point!("embedded::append::enqueued");
        receipts
    }

    /// Writes numbers and records as one atomic step, and waits for it.
    pub(super) fn step(
        &self,
        records: Records,
        numbers: Vec<(String, u64)>,
        needs_space: bool,
    ) -> Result<(), LogError> {
        let (reply, answer) = std::sync::mpsc::sync_channel(1);
        let write = Write { records, numbers, done: Done::Step { reply, needs_space } };
        self.queue.insist(write).map_err(|_| LogError::Unavailable("the log is closed".into()))?;
        answer.recv().unwrap_or_else(|_| Err(LogError::Unavailable("the log's writer has ended".into())))
    }
}

impl Done {
    fn refuse(self, why: RefusalCause) {
        match self {
            Self::Append(tickets) => tickets.into_iter().for_each(|ticket| ticket.resolve(Outcome::Refused(why))),
            Self::Step { reply, .. } => {
                let why = match why {
                    RefusalCause::DiskFull => "the disk is at its reserve",
                    _ => "the log's writer has failed",
                };
                let _ = reply.send(Err(LogError::Unavailable(why.into())));
            }
        }
    }

    fn needs_space(&self) -> bool {
        !matches!(self, Self::Step { needs_space: false, .. })
    }
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    synced: Synced,
    commits: u64,
    /// The end of each partition, before it is visible.
    ends: Vec<u64>,
    disk_checked: Option<(Instant, bool)>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, synced: Synced) -> Self {
        let ends = shared.layout.all().iter().map(super::layout::Partition::end).collect();
        let commits = shared.layout.commits;
        Self { shared, synced, commits, ends, disk_checked: None }
    }

    /// Until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let mut group = Vec::new();
        while self.shared.queue.take(&mut group, GROUP_BYTES) {
            self.write(&mut group);
            group.clear();
        }
        if let Err(error) = self.synced.sync() {
            tracing::warn!(%error, "the file of the highest synced position could not be synced");
        }
    }

    fn write(&mut self, group: &mut Vec<Write>) {
        if self.shared.failure().is_some() {
            return group.drain(..).for_each(|write| write.done.refuse(RefusalCause::Unavailable));
        }
        if !self.has_space() {
            for refused in group.extract_if(.., |write| write.done.needs_space()) {
                refused.done.refuse(RefusalCause::DiskFull);
            }
        }
        if group.is_empty() {
            return;
        }
        let before = self.ends.clone();
        let batch = self.batch(group);
        match self.commit(batch) {
            Ok(()) => {
                fail_point!("embedded::append::synced");
                self.publish(group.drain(..), &before);
            }
            Err(why) => {
                tracing::error!(why, "a commit failed: nothing is taken any more until a restart");
                self.shared.fail(format!("a commit failed: {why}"));
                for write in group.drain(..) {
                    match write.done {
                        // Dropped without a word: unknown.
                        Done::Append(tickets) => drop(tickets),
                        Done::Step { reply, .. } => {
                            let _ = reply.send(Err(LogError::Unavailable(format!("a commit failed: {why}"))));
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
        let unsynced = sabotaged("sabotage::skip-sync");
        batch = batch.durability(Some(if unsynced { PersistMode::Buffer } else { PersistMode::SyncData }));
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
                    let record = codec::own(encoded);
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

    fn commit(&mut self, batch: OwnedWriteBatch) -> Result<(), String> {
        fail_point!("embedded::commit", |_| Err("injected before the commit".to_owned()));
        batch.commit().map_err(|error| error.to_string())?;
        fail_point!("embedded::sync", |_| Err("injected at the sync".to_owned()));
        self.commits += 1;
        // A failed note is no failed commit: the note only makes a later loss visible.
        if let Err(error) = self.synced.note(self.commits) {
            return Err(format!("the file of the highest synced position: {error}"));
        }
        Ok(())
    }

    fn publish(&mut self, group: impl Iterator<Item = Write>, before: &[u64]) {
        for (partition, &end) in self.shared.layout.all().iter().zip(&self.ends) {
            partition.set_end(end);
        }
        self.shared.ends.notify();
        let mut next = before.to_vec();
        for write in group {
            match write.done {
                Done::Append(tickets) => {
                    for (entry, ticket) in write.records.entries.iter().zip(tickets) {
                        ticket.resolve(Outcome::Acknowledged(next[entry.partition]));
                        next[entry.partition] += 1;
                    }
                }
                Done::Step { reply, .. } => {
                    write.records.entries.iter().for_each(|entry| next[entry.partition] += 1);
                    let _ = reply.send(Ok(()));
                }
            }
        }
    }

    fn has_space(&mut self) -> bool {
        if let Some((at, enough)) = self.disk_checked
            && at.elapsed() < DISK_CHECK
        {
            return enough;
        }
        let reserve = self.shared.config.min_free_disk.0;
        let enough = match rustix::fs::statvfs(&self.shared.config.directory) {
            Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize) >= reserve,
            Err(error) => {
                tracing::warn!(%error, "the free space of the disk is not known");
                true
            }
        };
        self.disk_checked = Some((Instant::now(), enough));
        self.shared.set_disk_full(!enough);
        enough
    }
}
