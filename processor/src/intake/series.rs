//! The series of a partition: the frames of a producer are numbered without a gap, and what follows a missing one does not
//! count.

use std::collections::VecDeque;

use hashbrown::HashMap;
use millrace_contracts::{IntakeKey, IntakeMessage, Series, Topic};
use millrace_log::Step;

/// Ranges and series are looked at so many ms after they could be forgotten: their queues hold one entry for each so many
/// ms of activity.
pub(super) const QUEUE_SPACING_MS: i64 = 60_000;
/// Most ranges and series that one step forgets.
pub(super) const FORGET_AT_ONCE: usize = 1_000;

/// Where a message stands in its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Continuation {
    Next,
    /// It was there before: a producer wrote it twice.
    Repeated,
    /// An index before it is missing.
    Behind,
}

/// What is remembered of one series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SeriesMemory {
    series: Series,
    /// The log time of its newest entry in the queue.
    queued: i64,
    /// The step in which it was saved for an undo.
    saved_in: u64,
}

/// What a step changed.
#[derive(Debug, Default)]
pub(super) struct SeriesUndo(Vec<(u64, Option<SeriesMemory>)>);

/// The series of a partition, by their nonces.
#[derive(Debug)]
pub(super) struct SeriesTable {
    ttl_ms: i64,
    by_nonce: HashMap<u64, SeriesMemory>,
    /// Series to be looked at, by the log time they were queued at.
    queue: VecDeque<(i64, u64)>,
    /// Entries were added in no order.
    unsorted: bool,
    /// Counts steps.
    step: u64,
}

impl SeriesTable {
    /// Forgets a series after `ttl_ms` of log time without a record.
    pub(super) fn new(ttl_ms: i64) -> Self {
        Self { ttl_ms, by_nonce: HashMap::new(), queue: VecDeque::new(), unsorted: false, step: 0 }
    }

    /// Takes up a series as it was written.
    pub(super) fn load(&mut self, nonce: u64, series: Series) {
        self.by_nonce.insert(nonce, SeriesMemory { series, queued: series.log_time_ms, saved_in: 0 });
        self.queue.push_back((series.log_time_ms, nonce));
        self.unsorted = true;
    }

    /// Whether the message at `offset` was dropped as one behind a missing index.
    pub(super) fn has_dropped(&self, message: &IntakeMessage<'_>, offset: u64) -> bool {
        let series = self.by_nonce.get(&message.nonce).map(|memory| &memory.series);
        series.is_some_and(|series| {
            series.dropped.is_some_and(|(first, _)| offset >= first) && message.index >= series.next_index
        })
    }

    /// Begins a step: the step before holds.
    pub(super) fn begin(&mut self) -> SeriesUndo {
        self.step += 1;
        if std::mem::take(&mut self.unsorted) {
            self.queue.make_contiguous().sort_unstable();
        }
        SeriesUndo::default()
    }

    /// Notes the message at `offset`, and whether it continues its series. `window_start`: the records before it are not read
    /// again.
    pub(super) fn note(
        &mut self,
        message: &IntakeMessage<'_>,
        offset: u64,
        window_start: u64,
        log_time: i64,
        undo: &mut SeriesUndo,
    ) -> Continuation {
        let known = self.by_nonce.get(&message.nonce).copied();
        if known.is_none_or(|memory| memory.saved_in != self.step) {
            undo.0.push((message.nonce, known));
        }
        let known = known.filter(|memory| !self.is_forgotten(&memory.series, window_start, log_time));
        let mut memory = known.unwrap_or_else(|| {
            let series = Series { next_index: 0, log_time_ms: log_time, dropped: None };
            SeriesMemory { series, queued: i64::MIN, saved_in: self.step }
        });
        memory.saved_in = self.step;
        let series = &mut memory.series;
        series.log_time_ms = log_time;
        let continuation = if message.index < series.next_index {
            Continuation::Repeated
        } else if message.index == series.next_index && series.dropped.is_none() {
            series.next_index += 1;
            Continuation::Next
        } else {
            series.dropped = Some((series.dropped.map_or(offset, |(first, _)| first), offset));
            Continuation::Behind
        };
        self.by_nonce.insert(message.nonce, memory);
        continuation
    }

    /// A broken series is remembered as long as its records may be read again.
    fn is_forgotten(&self, series: &Series, window_start: u64, log_time: i64) -> bool {
        series.log_time_ms < log_time - self.ttl_ms && series.dropped.is_none_or(|(_, last)| last < window_start)
    }

    /// Ends the step: forgets what is too old, and writes what changed.
    pub(super) fn end(
        &mut self,
        partition: u32,
        window_start: u64,
        log_time: i64,
        undo: &mut SeriesUndo,
        step: &mut Step,
    ) {
        let touched = undo.0.len();
        self.forget(window_start, log_time, undo);
        for (at, &(nonce, _)) in undo.0.iter().enumerate() {
            let key = IntakeKey::Series { partition, nonce };
            let Some(memory) = self.by_nonce.get_mut(&nonce).filter(|_| at < touched) else {
                step.delete(Topic::INTAKE_STATE, partition, key);
                continue;
            };
            step.put(Topic::INTAKE_STATE, partition, key, |out| memory.series.encode(out));
            if memory.queued < log_time - QUEUE_SPACING_MS {
                memory.queued = log_time;
                self.queue.push_back((log_time, nonce));
            }
        }
    }

    fn forget(&mut self, window_start: u64, log_time: i64, undo: &mut SeriesUndo) {
        let oldest = log_time - self.ttl_ms - QUEUE_SPACING_MS;
        for _ in 0..FORGET_AT_ONCE {
            let Some(&(at, nonce)) = self.queue.front().filter(|(queued, _)| *queued < oldest) else { return };
            self.queue.pop_front();
            let Some(memory) = self.by_nonce.get(&nonce).copied() else { continue };
            if memory.queued != at || memory.saved_in == self.step {
                continue;
            }
            if self.is_forgotten(&memory.series, window_start, log_time) {
                undo.0.push((nonce, Some(memory)));
                self.by_nonce.remove(&nonce);
            } else if memory.series.dropped.is_some() {
                self.by_nonce.insert(nonce, SeriesMemory { queued: log_time, ..memory });
                self.queue.push_back((log_time, nonce));
            }
        }
    }

    /// Takes the newest step back.
    pub(super) fn undo(&mut self, undo: SeriesUndo) {
        for (nonce, memory) in undo.0 {
            match memory {
                Some(memory) => {
                    self.by_nonce.insert(nonce, memory);
                    self.queue.push_back((memory.queued, nonce));
                    self.unsorted = true;
                }
                None => {
                    self.by_nonce.remove(&nonce);
                }
            }
        }
    }

    /// Number of series held.
    pub(super) fn len(&self) -> usize {
        self.by_nonce.len()
    }
}
