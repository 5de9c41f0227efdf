//! Reads partitions by offset; a compacted one from below its tail by the newest record of each key.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use fjall::{Readable, Snapshot, UserKey};
use millrace_contracts::Topic;

use super::layout::Partition;
use super::{Shared, codec, damaged};
use crate::{Batch, Limits, LogError, Polled, Record};

/// See [`crate::Reader`].
pub struct Reader {
    shared: Arc<Shared>,
    places: Vec<Place>,
    /// Whose turn it is.
    turn: usize,
}

struct Place {
    partition: usize,
    number: u32,
    position: u64,
    /// Where "caught up" was said last.
    told: Option<u64>,
    replay: Option<Replay>,
}

/// The newest records of the keys from before the tail, by offset; after them reading goes on in the tail, where also the
/// tombstones are.
struct Replay {
    snapshot: Snapshot,
    newest: std::iter::Peekable<std::vec::IntoIter<(u64, UserKey)>>,
    until: u64,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let positions: Vec<_> = self.places.iter().map(|place| (place.number, place.position)).collect();
        f.debug_struct("Reader").field("positions", &positions).finish_non_exhaustive()
    }
}

impl Reader {
    pub(super) fn open(shared: &Arc<Shared>, topic: Topic, from: &[(u32, u64)]) -> Result<Self, LogError> {
        let mut reader = Self { shared: shared.clone(), places: Vec::new(), turn: 0 };
        for &(number, position) in from {
            reader.place(topic, number, position)?;
        }
        Ok(reader)
    }

    /// Reads a partition from a position on, from now on.
    pub(super) fn place(&mut self, topic: Topic, number: u32, position: u64) -> Result<(), LogError> {
        let held = self.shared.layout.get(topic, number)?;
        let partition = self.shared.layout.index(topic, number).expect("looked up a line above");
        let place = Place { partition, number, position, told: None, replay: None };
        place.check(held)?;
        self.places.retain(|place| place.number != number);
        self.places.push(place);
        self.turn = 0;
        Ok(())
    }

    pub(crate) fn leave(&mut self, number: u32) {
        self.places.retain(|place| place.number != number);
    }

    /// Where reading of a partition stands.
    pub(super) fn position(&self, number: u32) -> Option<u64> {
        self.places.iter().find(|place| place.number == number).map(|place| place.position)
    }

    /// How many records each partition has that were not handed out yet.
    pub(super) fn lags(&self) -> BTreeMap<u32, u64> {
        let all = self.shared.layout.all();
        let lag = |place: &Place| (place.number, all[place.partition].end().saturating_sub(place.position));
        self.places.iter().map(lag).collect()
    }

    /// Whether everything readable of a partition has been handed out.
    pub(super) fn at_end(&self, number: u32) -> bool {
        let place = self.places.iter().find(|place| place.number == number);
        place.is_some_and(|place| place.position == self.shared.layout.all()[place.partition].end())
    }

    pub(crate) fn poll(&mut self, batch: &mut Batch, limits: Limits) -> Result<Polled, LogError> {
        batch.clear();
        let deadline = Instant::now() + limits.wait;
        loop {
            let seen = self.shared.ends.seen();
            for _ in 0..self.places.len() {
                let turn = self.turn % self.places.len();
                self.turn = turn + 1;
                let place = &mut self.places[turn];
                let partition = &self.shared.layout.all()[place.partition];
                let end = partition.end();
                if place.position < end || place.replay.is_some() {
                    *batch = Batch::new(place.number);
                    place.read(&self.shared, partition, end, batch, limits)?;
                    if !batch.is_empty() {
                        return Ok(Polled::Records);
                    }
                }
                if place.position == partition.end() && place.told != Some(place.position) {
                    place.told = Some(place.position);
                    return Ok(Polled::CaughtUp { partition: place.number, position: place.position });
                }
            }
            if !self.shared.ends.wait(seen, deadline) {
                return Ok(Polled::Nothing);
            }
        }
    }
}

impl Place {
    fn check(&self, partition: &Partition) -> Result<(), LogError> {
        let (start, end, position) = (partition.start(), partition.end(), self.position);
        let below = position < start && partition.latest.is_none();
        if below || position > end {
            let shown = partition.shown();
            return Err(LogError::Refused(format!("{shown} holds {start} to {end}; position {position} is not there")));
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
        if self.replay.is_none() && self.position < partition.start() {
            self.replay = Some(Replay::of(shared, partition, self.position)?);
        }
        if let Some(replay) = &mut self.replay {
            if replay.read(partition, batch, limits)? {
                self.position = replay.until;
                self.replay = None;
            } else if let Some(next) = batch.next_offset() {
                self.position = next;
            }
            return Ok(());
        }
        self.follow(partition, end, batch, limits)
    }

    /// Reads the log itself; every offset must be there.
    fn follow(&mut self, partition: &Partition, end: u64, batch: &mut Batch, limits: Limits) -> Result<(), LogError> {
        let begin = self.position;
        for guard in partition.log.range(begin.to_be_bytes()..end.to_be_bytes()) {
            let (key, value) = guard.into_inner().map_err(|error| unreadable(partition, self.position, &error))?;
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
        // A hole: retention may have passed by a moment ago, else something is lost.
        if self.position >= partition.start() {
            return Err(partition.broken("the record", self.position));
        }
        if batch.is_empty() { self.check(partition) } else { Ok(()) }
    }
}

impl Replay {
    fn of(shared: &Shared, partition: &Partition, from: u64) -> Result<Self, LogError> {
        let latest = partition.latest.as_ref().expect("only a compacted topic is read from below its start");
        // First where the tail begins: what is replaced or deleted after this stands in it.
        let until = partition.start();
        let snapshot = shared.database.snapshot();
        let mut newest = Vec::new();
        for guard in snapshot.iter(latest) {
            let (key, value) = guard.into_inner().map_err(|error| unreadable(partition, from, &error))?;
            let offset = value.get(..8).and_then(codec::number);
            let offset = offset.ok_or_else(|| partition.broken("the newest record of a key", from))?;
            if (from..until).contains(&offset) {
                newest.push((offset, key));
            }
        }
        newest.sort_unstable_by_key(|&(offset, _)| offset);
        Ok(Self { snapshot, newest: newest.into_iter().peekable(), until })
    }

    /// True when nothing is left.
    fn read(&mut self, partition: &Partition, batch: &mut Batch, limits: Limits) -> Result<bool, LogError> {
        let latest = partition.latest.as_ref().expect("only a compacted topic is replayed");
        while let Some((offset, key)) = self.newest.peek() {
            let value = self.snapshot.get(latest, key).map_err(|error| unreadable(partition, *offset, &error))?;
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

fn unreadable(partition: &Partition, offset: u64, error: &fjall::Error) -> LogError {
    damaged(partition.log.path(), &format!("{}@{offset}", partition.shown()), error)
}
