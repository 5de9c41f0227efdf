//! Batches: the events of one request, rendered, and the invalid lines between them.

use std::ops::Range;

use tokio::sync::OwnedSemaphorePermit;

use super::lines::Mark;
use super::records::{Failure, Records};
use super::reject::Reject;

/// A body ends here: with one more event, none of which exceeds 4 KiB, it could exceed 1 MiB.
const MAX_BODY: usize = (1 << 20) - 4096;

/// Events of one request.
pub(super) struct Batch {
    /// Its number in the order of the file.
    pub(super) sequence: u64,
    /// NDJSON.
    body: Vec<u8>,
    /// The line of each event, and its end in the body.
    events: Vec<(u64, usize)>,
    /// Invalid lines.
    pub(super) bad: Vec<Reject>,
    /// The position after it.
    pub(super) end: Mark,
    /// Bounds the batches that are read and not recorded.
    _permit: OwnedSemaphorePermit,
}

impl Batch {
    /// Number of events.
    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// The line of an event.
    pub(super) fn line(&self, index: usize) -> u64 {
        self.events[index].0
    }

    /// The NDJSON line of an event.
    pub(super) fn event(&self, index: usize) -> &[u8] {
        let Range { start, end } = index.checked_sub(1).map_or(0, |before| self.events[before].1)..self.events[index].1;
        &self.body[start..end]
    }
}

/// Cuts records into batches.
pub(super) struct Cutter {
    records: Records,
    ids: String,
    max_events: usize,
    sequence: u64,
    /// A failure after records that are sent all the same.
    failure: Option<Failure>,
}

impl Cutter {
    /// Batches of at most `max_events` events, whose ids begin with `ids`.
    pub(super) fn new(records: Records, ids: String, max_events: usize) -> Self {
        Self { records, ids, max_events, sequence: 0, failure: None }
    }

    /// The next batch; `None` at the end.
    pub(super) fn next(&mut self, permit: OwnedSemaphorePermit) -> Result<Option<Batch>, Failure> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let (mut body, mut events, mut bad) = (Vec::new(), Vec::with_capacity(self.max_events), Vec::new());
        let mut end = self.records.mark();
        while events.len() + bad.len() < self.max_events && body.len() < MAX_BODY {
            match self.records.next() {
                Ok(Some(record)) => {
                    match record.event {
                        Ok(event) => {
                            event.put(&self.ids, record.line, &mut body);
                            events.push((record.line, body.len()));
                        }
                        Err(fault) => bad.push(Reject::invalid(record.line, fault)),
                    }
                    end = self.records.mark();
                }
                Ok(None) => break,
                Err(failure) if events.is_empty() && bad.is_empty() => return Err(failure),
                Err(failure) => {
                    self.failure = Some(failure);
                    break;
                }
            }
        }
        if events.is_empty() && bad.is_empty() {
            return Ok(None);
        }
        let sequence = self.sequence;
        self.sequence += 1;
        Ok(Some(Batch { sequence, body, events, bad, end, _permit: permit }))
    }

    /// The position after the last record.
    pub(super) fn mark(&self) -> Mark {
        self.records.mark()
    }
}
