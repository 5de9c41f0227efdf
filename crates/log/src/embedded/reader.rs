//! Reads partitions by offset. Below its tail a compacted one is read as the newest record of each key.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use fjall::{Readable, Snapshot, UserKey};
use millrace_contracts::{ProjectionPosition, Topic};

use super::partition::Partition;
use super::{Shared, codec, damaged};
use crate::{Batch, Limits, LogError, PollOutcome, Record, resume};

/// See [`crate::Reader`].
pub struct Reader {
    shared: Arc<Shared>,
    topic: Topic,
    cursors: Vec<ReadCursor>,
    /// The index of the cursor to read next: round robin.
    turn: usize,
}

/// The position in one partition.
struct ReadCursor {
    /// Index in the layout.
    partition: usize,
    number: u32,
    position: u64,
    /// The position of the last reported "caught up".
    reported: Option<u64>,
    compacted: Option<CompactedRead>,
}

/// A read of the newest record of each key below the tail, by offset. After it, reading goes on in the tail, which has
/// the tombstones too.
struct CompactedRead {
    snapshot: Snapshot,
    newest: std::iter::Peekable<std::vec::IntoIter<(u64, UserKey)>>,
    until: u64,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let positions: Vec<_> = self.cursors.iter().map(|cursor| (cursor.number, cursor.position)).collect();
        f.debug_struct("Reader").field("positions", &positions).finish_non_exhaustive()
    }
}

/// See [`crate::Log::check_positions`].
pub(super) fn check_positions(
    shared: &Arc<Shared>,
    topic: Topic,
    positions: &[(u32, ProjectionPosition)],
) -> Result<(), LogError> {
    let bounds = |number| {
        let partition = shared.layout.get(topic, number)?;
        let start = if partition.latest.is_some() { 0 } else { partition.start() };
        Ok((start, partition.end()))
    };
    resume::check_positions(topic, positions, bounds, |from| {
        Reader::open(shared, topic, from).map(crate::Reader::Embedded)
    })
}

impl Reader {
    pub(super) fn open(shared: &Arc<Shared>, topic: Topic, from: &[(u32, u64)]) -> Result<Self, LogError> {
        // Refuses a topic that does not exist, also if it is to read no partition yet.
        shared.layout.get(topic, 0)?;
        let mut reader = Self { shared: shared.clone(), topic, cursors: Vec::new(), turn: 0 };
        for &(number, position) in from {
            reader.assign(number, position)?;
        }
        Ok(reader)
    }

    /// Reads a partition from a position.
    pub(super) fn assign(&mut self, number: u32, position: u64) -> Result<(), LogError> {
        let partition = self.shared.layout.get(self.topic, number)?;
        let index = self.shared.layout.index(self.topic, number).expect("the layout has the partition");
        let cursor = ReadCursor { partition: index, number, position, reported: None, compacted: None };
        cursor.check(partition)?;
        self.unassign(number);
        self.cursors.push(cursor);
        self.turn = 0;
        Ok(())
    }

    pub(crate) fn unassign(&mut self, number: u32) {
        self.cursors.retain(|cursor| cursor.number != number);
    }

    /// The position in a partition.
    pub(super) fn position(&self, number: u32) -> Option<u64> {
        self.cursors.iter().find(|cursor| cursor.number == number).map(|cursor| cursor.position)
    }

    /// The number of records in each partition that were not returned yet.
    pub(super) fn lags(&self) -> BTreeMap<u32, u64> {
        let all = self.shared.layout.all();
        let lag = |cursor: &ReadCursor| (cursor.number, all[cursor.partition].end().saturating_sub(cursor.position));
        self.cursors.iter().map(lag).collect()
    }

    /// Whether every readable record of a partition has been returned.
    pub(super) fn at_end(&self, number: u32) -> bool {
        let cursor = self.cursors.iter().find(|cursor| cursor.number == number);
        cursor.is_some_and(|cursor| cursor.position == self.shared.layout.all()[cursor.partition].end())
    }

    pub(crate) fn poll(&mut self, batch: &mut Batch, limits: Limits) -> Result<PollOutcome, LogError> {
        batch.clear();
        let deadline = Instant::now() + limits.wait;
        let ends = &self.shared.layout.topic(self.topic).expect("the layout has the topic of a reader").ends;
        loop {
            let moves = ends.moves();
            for _ in 0..self.cursors.len() {
                let turn = self.turn % self.cursors.len();
                self.turn = turn + 1;
                let cursor = &mut self.cursors[turn];
                let partition = &self.shared.layout.all()[cursor.partition];
                let end = partition.end();
                if cursor.position < end || cursor.compacted.is_some() {
                    *batch = Batch::new(cursor.number);
                    cursor.read(&self.shared, partition, end, batch, limits)?;
                    if !batch.is_empty() {
                        return Ok(PollOutcome::Records);
                    }
                }
                if cursor.position == partition.end() && cursor.reported != Some(cursor.position) {
                    cursor.reported = Some(cursor.position);
                    return Ok(PollOutcome::CaughtUp { partition: cursor.number, position: cursor.position });
                }
            }
            if !ends.wait(moves, deadline) {
                return Ok(PollOutcome::Nothing);
            }
        }
    }
}

impl ReadCursor {
    /// Refuses a position that the partition does not hold.
    fn check(&self, partition: &Partition) -> Result<(), LogError> {
        let (start, end, position) = (partition.start(), partition.end(), self.position);
        let below = position < start && partition.latest.is_none();
        if below || position > end {
            let shown = partition.shown();
            return Err(LogError::refused(format!("{shown} holds {start} to {end}; position {position} is not there")));
        }
        Ok(())
    }

    fn read(
        &mut self,
        shared: &Shared,
        partition: &Partition,
        end: u64,
        batch: &mut Batch,
        limits: Limits,
    ) -> Result<(), LogError> {
        self.check(partition)?;
        if self.compacted.is_none() && self.position < partition.start() {
            self.compacted = Some(CompactedRead::begin(shared, partition, self.position)?);
        }
        if let Some(compacted) = &mut self.compacted {
            if compacted.read(partition, batch, limits)? {
                self.position = compacted.until;
                self.compacted = None;
            } else if let Some(next) = batch.next_offset() {
                self.position = next;
            }
            return Ok(());
        }
        self.read_log(partition, end, batch, limits)
    }

    /// Reads the log itself; every offset must be present.
    fn read_log(&mut self, partition: &Partition, end: u64, batch: &mut Batch, limits: Limits) -> Result<(), LogError> {
        let begin = self.position;
        for guard in partition.log.range(begin.to_be_bytes()..end.to_be_bytes()) {
            let (key, value) = guard.into_inner().map_err(|error| unreadable(partition, self.position, error))?;
            if codec::number(&key) != Some(self.position) {
                break;
            }
            let record =
                codec::decode(self.position, &value).ok_or_else(|| partition.broken("the record", self.position))?;
            if is_full(batch, &record, limits) {
                return Ok(());
            }
            batch.push(record);
            self.position += 1;
        }
        if self.position == end {
            return Ok(());
        }
        // A missing offset: retention may just have dropped it; otherwise data is lost.
        if self.position >= partition.start() {
            return Err(partition.broken("the record", self.position));
        }
        if batch.is_empty() { self.check(partition) } else { Ok(()) }
    }
}

impl CompactedRead {
    fn begin(shared: &Shared, partition: &Partition, from: u64) -> Result<Self, LogError> {
        let latest = partition.latest.as_ref().expect("only a compacted topic is read from below its start");
        // The begin of the tail first: whatever is replaced or deleted after this is in the tail.
        let until = partition.start();
        let snapshot = shared.database.snapshot();
        let mut newest = Vec::new();
        for guard in snapshot.iter(latest) {
            let (key, value) = guard.into_inner().map_err(|error| unreadable(partition, from, error))?;
            let offset = value.get(..8).and_then(codec::number);
            let offset = offset.ok_or_else(|| partition.broken("the newest record of a key", from))?;
            if (from..until).contains(&offset) {
                newest.push((offset, key));
            }
        }
        newest.sort_unstable_by_key(|&(offset, _)| offset);
        Ok(Self { snapshot, newest: newest.into_iter().peekable(), until })
    }

    /// Fills the batch; true if nothing is left.
    fn read(&mut self, partition: &Partition, batch: &mut Batch, limits: Limits) -> Result<bool, LogError> {
        let latest = partition.latest.as_ref().expect("only a compacted topic has a compacted read");
        while let Some((offset, key)) = self.newest.peek() {
            let value = self.snapshot.get(latest, key).map_err(|error| unreadable(partition, *offset, error))?;
            let record = value.as_ref().and_then(|value| codec::decode(*offset, value.get(8..)?));
            let record = record.ok_or_else(|| partition.broken("the record", *offset))?;
            if is_full(batch, &record, limits) {
                return Ok(false);
            }
            batch.push(record);
            self.newest.next();
        }
        Ok(true)
    }
}

fn is_full(batch: &Batch, record: &Record<'_>, limits: Limits) -> bool {
    let bytes = batch.bytes() + record.key.len() + record.value.map_or(0, <[u8]>::len);
    !batch.is_empty() && (batch.len() >= limits.records || bytes > limits.bytes)
}

fn unreadable(partition: &Partition, offset: u64, error: fjall::Error) -> LogError {
    damaged(partition.log.path(), &format!("{}@{offset}", partition.shown()), error)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use millrace_contracts::Names;

    use super::super::{EmbeddedConfig, EmbeddedLog};
    use super::*;
    use crate::{NewRecord, Outcome};

    #[tokio::test]
    async fn a_waiting_reader_wakes_for_its_own_topic_alone() {
        let directory = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig { directory: directory.path().join("data"), ..EmbeddedConfig::default() };
        let log = EmbeddedLog::open(config, Names::default()).unwrap();
        let moves = |topic| log.0.shared.layout.topic(topic).unwrap().ends.moves();
        let append = async |topic| {
            let record = NewRecord { topic, partition: 0, key: b"k", value: b"v" };
            assert_eq!(log.append(&[record]).await, [Outcome::Acknowledged(0)]);
        };
        append(Topic::LATE).await;
        assert_eq!((moves(Topic::LATE), moves(Topic::EVENTS)), (1, 0));

        let mut reader = log.reader(Topic::EVENTS, &[(0, 0)]).unwrap();
        let limits = Limits { wait: Duration::from_secs(20), ..Limits::default() };
        let polled = reader.poll(&mut Batch::default(), limits).unwrap();
        assert_eq!(polled, PollOutcome::CaughtUp { partition: 0, position: 0 });
        // A poll that nothing wakes ends with nothing.
        let waiting = tokio::task::spawn_blocking(move || reader.poll(&mut Batch::default(), limits).unwrap());
        append(Topic::EVENTS).await;
        assert_eq!(waiting.await.unwrap(), PollOutcome::Records);
    }
}
