//! Whether the log has the records that a sink's position is of.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use millrace_contracts::{Cleanup, ProjectionPosition, Topic};

use crate::{Batch, Limits, LogError, PollOutcome, Reader, fault};

/// The bounds of one poll.
const LIMITS: Limits = Limits { records: 8_192, bytes: 4 << 20, wait: Duration::from_millis(100) };
/// Timeout of the wait for a record. A new leader may not know for a moment how far its log is committed.
const PATIENCE: Duration = Duration::from_secs(10);

/// A position whose record was not read yet.
struct Named {
    next_offset: u64,
    identity: u64,
    /// The end of the partition when the check began: what stands for the record is below.
    end: u64,
    /// When that end was reached.
    ended: Option<Instant>,
}

impl Named {
    fn has_ended(&mut self) {
        self.ended.get_or_insert_with(Instant::now);
    }
}

/// What a batch shows of a position.
#[derive(Debug, PartialEq, Eq)]
enum Comparison {
    /// The log has the record.
    Same,
    /// It has another one, or none.
    Other,
    /// Compaction may have removed it: a later record of its key is to follow.
    Undecided,
}

/// Refuses positions that the log does not hold, and those before which it has another record than the position names: it lost
/// its end and was filled again, the topic was recreated, or it is another log. Reading would leave out what is below.
/// `bounds_of` returns the first offset and the end of a partition, `open` makes the reader.
pub(crate) fn check_positions(
    topic: Topic,
    positions: &[(u32, ProjectionPosition)],
    bounds_of: impl Fn(u32) -> Result<(u64, u64), LogError>,
    open: impl FnOnce(&[(u32, u64)]) -> Result<Reader, LogError>,
) -> Result<(), LogError> {
    let mut unread = BTreeMap::new();
    for &(partition, ProjectionPosition { next_offset, last_record }) in positions {
        let (start, end) = bounds_of(partition)?;
        if !(start..=end).contains(&next_offset) {
            return Err(LogError::refused(format!(
                "{}/{partition} holds offsets {start} to {end}, but the position to resume at is {next_offset}: records are \
                 missing",
                topic.name
            )));
        }
        // Retention dropped what is below the start.
        if let Some(identity) = fault::named_record(last_record).filter(|_| start < next_offset) {
            unread.insert(partition, Named { next_offset, identity, end, ended: None });
        }
    }
    if unread.is_empty() {
        return Ok(());
    }
    let from: Vec<(u32, u64)> = unread.iter().map(|(&partition, named)| (partition, named.next_offset - 1)).collect();
    let mut reader = open(&from)?;
    let (mut batch, mut last) = (Batch::default(), Instant::now());
    while let Some((&partition, _)) = unread.first_key_value() {
        // By time, not by silence: a partition that is written to is never silent.
        let overdue = |named: &Named| named.ended.is_some_and(|at| at.elapsed() >= PATIENCE);
        if let Some((&partition, named)) = unread.iter().find(|(_, named)| overdue(named)) {
            return Err(another(topic, partition, named));
        }
        match reader.poll(&mut batch, LIMITS)? {
            PollOutcome::Records => {}
            PollOutcome::CaughtUp { partition, .. } => {
                unread.entry(partition).and_modify(Named::has_ended);
                continue;
            }
            PollOutcome::Nothing if last.elapsed() < PATIENCE => continue,
            PollOutcome::Nothing if unread.values().any(|named| named.ended.is_some()) => continue,
            PollOutcome::Nothing => {
                let detail = format!("{}/{partition}: the record before the position cannot be read", topic.name);
                return Err(LogError::unavailable(detail));
            }
        }
        last = Instant::now();
        let Some(named) = unread.get_mut(&batch.partition()) else { continue };
        match compare(&batch, named, topic.cleanup == Cleanup::Compact) {
            Comparison::Other => return Err(another(topic, batch.partition(), named)),
            Comparison::Undecided if batch.next_offset() >= Some(named.end) => named.has_ended(),
            Comparison::Undecided => {}
            Comparison::Same => {
                unread.remove(&batch.partition());
                reader.unassign(batch.partition());
            }
        }
    }
    Ok(())
}

fn compare(batch: &Batch, named: &Named, compacted: bool) -> Comparison {
    for record in batch.iter() {
        if record.offset + 1 == named.next_offset {
            return if record.identity() == named.identity { Comparison::Same } else { Comparison::Other };
        }
        if !compacted {
            return Comparison::Other;
        }
        if record.has_key_of(named.identity) {
            return Comparison::Same;
        }
    }
    Comparison::Undecided
}

fn another(topic: Topic, partition: u32, named: &Named) -> LogError {
    LogError::refused(format!(
        "{}/{partition}: the record before offset {} is not the one that was written last: the log lost its end and was filled \
         again, the topic was recreated, or this is another log. Records below that offset would be left out",
        topic.name, named.next_offset
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Record;

    #[test]
    fn a_record_that_compaction_removed_is_followed_by_one_of_its_key() {
        let record = |offset, key| Record { offset, timestamp_ms: 0, key, value: Some(b"v") };
        let named = Named { next_offset: 6, identity: record(5, b"a").identity(), end: 9, ended: None };
        let compare = |records: &[Record<'_>], compacted| {
            let mut batch = Batch::new(0);
            for &record in records {
                batch.push(record);
            }
            compare(&batch, &named, compacted)
        };
        let (same, other) = (record(5, b"a"), record(5, b"b"));
        for compacted in [false, true] {
            assert_eq!(compare(&[same], compacted), Comparison::Same);
            assert_eq!(compare(&[other, record(6, b"a")], compacted), Comparison::Other);
            assert_eq!(compare(&[], compacted), Comparison::Undecided);
        }
        let later = [record(7, b"b"), record(8, b"a")];
        assert_eq!(compare(&later, true), Comparison::Same);
        assert_eq!(compare(&later[..1], true), Comparison::Undecided);
        assert_eq!(compare(&later, false), Comparison::Other, "nothing removes a single record");
    }
}
