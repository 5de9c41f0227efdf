//! Batches: as many events as one request takes, rendered, with the lines that came to nothing between them.

use std::ops::Range;

use tokio::sync::OwnedSemaphorePermit;

use super::lines::Mark;
use super::records::{Failure, Records};
use super::reject::Reject;

/// A body ends before it could pass 1 MiB with one more event, of which none is larger than this.
const MOST_BODY: usize = (1 << 20) - 4096;

/// Events of one request.
pub(super) struct Batch {
    /// Its place in the order of the file.
    pub(super) sequence: u64,
    /// NDJSON.
    body: Vec<u8>,
    /// Line and end in the body of each event.
    events: Vec<(u64, usize)>,
    /// Lines that are no events.
    pub(super) bad: Vec<Reject>,
    /// The place after it.
    pub(super) end: Mark,
    /// Room among those that are not booked yet; given back with the batch.
    _room: OwnedSemaphorePermit,
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

    /// An event as it is sent.
    pub(super) fn event(&self, index: usize) -> &[u8] {
        let Range { start, end } = index.checked_sub(1).map_or(0, |before| self.events[before].1)..self.events[index].1;
        &self.body[start..end]
    }
}

/// Cuts records into batches.
pub(super) struct Cutter {
    records: Records,
    ids: String,
    most: usize,
    sequence: u64,
    /// Met after records that are sent all the same.
    failure: Option<Failure>,
}

impl Cutter {
    /// Batches of at most `most` events, whose ids begin with `ids`.
    pub(super) fn new(records: Records, ids: String, most: usize) -> Self {
        Self { records, ids, most, sequence: 0, failure: None }
    }

    /// The next batch, if there is another line.
    pub(super) fn next(&mut self, room: OwnedSemaphorePermit) -> Result<Option<Batch>, Failure> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let (mut body, mut events, mut bad) = (Vec::new(), Vec::with_capacity(self.most), Vec::new());
        let mut end = self.records.mark();
        while events.len() + bad.len() < self.most && body.len() < MOST_BODY {
            match self.records.next() {
                Ok(Some(record)) => {
                    match record.event {
                        Ok(event) => {
                            event.put(&self.ids, record.line, &mut body);
                            events.push((record.line, body.len()));
                        }
                        Err(fault) => bad.push(Reject::bad(record.line, fault)),
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
        Ok(Some(Batch { sequence, body, events, bad, end, _room: room }))
    }

    /// The place after what was read.
    pub(super) fn mark(&self) -> Mark {
        self.records.mark()
    }
}
