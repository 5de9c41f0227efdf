//! Reads single records by their offsets: a consumer outside any group seeks to each, or reads on where the next one is near.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use millrace_contracts::Topic;

use super::KafkaLog;
use super::reader::Reader;
use crate::{Batch, Fetched, Limits, LogError, PollOutcome};

/// Readers that are used again, since opening one takes longer than a seek.
pub(super) type Fetchers = Mutex<Vec<(Topic, Reader)>>;

/// Most idle readers.
const MAX_IDLE: usize = 8;
/// Records that are read and dropped rather than sought past: about as many as one fetch returns.
const NEAR: u64 = 64;
/// Most records of one poll.
const POLLED: usize = 64;

impl KafkaLog {
    pub(crate) fn fetch(
        &self,
        topic: Topic,
        partition: u32,
        offsets: &[u64],
        limits: Limits,
    ) -> Result<Fetched, LogError> {
        let mut fetched = Fetched { records: Batch::new(partition), decided: 0 };
        if offsets.is_empty() {
            return Ok(fetched);
        }
        let mut reader = match self.idle_fetcher(topic) {
            Some(reader) => reader,
            None => self.fetching_reader(topic)?,
        };
        read(&mut reader, partition, offsets, limits, &mut fetched)?;
        // An assigned reader would go on to fetch.
        reader.assign(&[])?;
        let mut idle = self.0.fetchers.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.push((topic, reader));
        }
        Ok(fetched)
    }

    fn idle_fetcher(&self, topic: Topic) -> Option<Reader> {
        let mut idle = self.0.fetchers.lock().unwrap_or_else(PoisonError::into_inner);
        let index = idle.iter().position(|(of, _)| of.name == topic.name)?;
        Some(idle.swap_remove(index).1)
    }
}

fn read(
    reader: &mut Reader,
    partition: u32,
    offsets: &[u64],
    limits: Limits,
    fetched: &mut Fetched,
) -> Result<(), LogError> {
    let deadline = Instant::now() + limits.wait;
    let (start, end) = reader.bounds(partition)?;
    let mut polled = Batch::default();
    // The offset that the reader returns next.
    let mut at: Option<u64> = None;
    let mut ended = false;
    while let Some(&wanted) = offsets.get(fetched.decided) {
        if !(start..end).contains(&wanted) {
            fetched.decided += 1;
            continue;
        }
        let wait = deadline.saturating_duration_since(Instant::now());
        if fetched.records.bytes() >= limits.bytes || wait.is_zero() {
            break;
        }
        if at.is_none_or(|at| wanted < at || wanted - at > NEAR) {
            reader.assign(&[(partition, wanted)])?;
            at = Some(wanted);
        }
        let limits = Limits { records: POLLED, bytes: limits.bytes, wait };
        match reader.poll(&mut polled, limits)? {
            PollOutcome::Nothing => {}
            PollOutcome::Records => {
                take(&polled, offsets, fetched);
                at = polled.next_offset();
                ended = false;
            }
            // Decides nothing yet: a new leader may not know for a moment how far its log is committed.
            PollOutcome::CaughtUp { .. } => ended = true,
        }
    }
    if ended {
        // What was readable when this began and is still missing after the wait is no record.
        fetched.decided = offsets.partition_point(|&offset| offset < end).max(fetched.decided);
    }
    match fetched.decided {
        0 => Err(LogError::unavailable(format!("no record was fetched within {:?}", limits.wait))),
        _ => Ok(()),
    }
}

/// Takes the wanted ones of consecutive records. An offset that they pass has no record.
fn take(polled: &Batch, offsets: &[u64], fetched: &mut Fetched) {
    for record in polled.iter() {
        let below = offsets[fetched.decided..].partition_point(|&offset| offset < record.offset);
        fetched.decided += below;
        if offsets.get(fetched.decided) == Some(&record.offset) {
            fetched.records.push(record);
            fetched.decided += 1;
        }
    }
}
