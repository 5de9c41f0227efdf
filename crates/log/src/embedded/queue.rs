//! The bounded queue to the writer thread. Nothing waits to get in.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::writer::Write;
use crate::RefusalCause;
use crate::metric::APPENDED;

pub(super) struct Queue {
    most_records: usize,
    most_bytes: usize,
    waiting: Mutex<Waiting>,
    news: Condvar,
}

#[derive(Default)]
struct Waiting {
    writes: VecDeque<Write>,
    records: usize,
    bytes: usize,
    closed: bool,
}

impl Waiting {
    fn tell(&self) {
        APPENDED.waiting(self.records as u64, self.bytes as u64);
    }
}

impl Queue {
    pub(super) fn new(most_records: usize, most_bytes: usize) -> Self {
        Self { most_records, most_bytes, waiting: Mutex::default(), news: Condvar::new() }
    }

    /// Enqueues unless a bound would be passed; then the write comes back with the reason.
    pub(super) fn offer(&self, write: Write) -> Result<(), (Write, RefusalCause)> {
        let waiting = self.lock();
        if waiting.closed {
            return Err((write, RefusalCause::ShuttingDown));
        }
        let (records, bytes) =
            (waiting.records + write.records.entries.len(), waiting.bytes + write.records.bytes.len());
        if records > self.most_records || bytes > self.most_bytes {
            return Err((write, RefusalCause::Full));
        }
        self.push(waiting, write);
        Ok(())
    }

    /// Enqueues past the bounds: a runner has one write under way at most, and its own bounds.
    pub(super) fn insist(&self, write: Write) -> Result<(), RefusalCause> {
        let waiting = self.lock();
        if waiting.closed {
            return Err(RefusalCause::ShuttingDown);
        }
        self.push(waiting, write);
        Ok(())
    }

    fn push(&self, mut waiting: MutexGuard<'_, Waiting>, write: Write) {
        waiting.records += write.records.entries.len();
        waiting.bytes += write.records.bytes.len();
        waiting.writes.push_back(write);
        waiting.tell();
        drop(waiting);
        self.news.notify_one();
    }

    /// Moves what waits into `group`, up to `most_bytes` but at least one write, waiting for the first. False when the
    /// queue is closed and empty.
    pub(super) fn take(&self, group: &mut Vec<Write>, most_bytes: usize) -> bool {
        let mut waiting = self.lock();
        while waiting.writes.is_empty() {
            if waiting.closed {
                return false;
            }
            // The time-out only guards against a lost wake-up; a minute costs nothing.
            waiting = self.news.wait_timeout(waiting, Duration::from_mins(1)).expect(HELD).0;
        }
        let mut bytes = 0;
        while bytes < most_bytes
            && let Some(write) = waiting.writes.pop_front()
        {
            bytes += write.records.bytes.len();
            waiting.records -= write.records.entries.len();
            waiting.bytes -= write.records.bytes.len();
            group.push(write);
        }
        waiting.tell();
        true
    }

    /// Closes, and drops what waits without a word: its outcome is unknown.
    pub(super) fn abandon(&self) {
        self.close();
        let mut waiting = self.lock();
        let dropped = std::mem::take(&mut waiting.writes);
        (waiting.records, waiting.bytes) = (0, 0);
        waiting.tell();
        drop(waiting);
        drop(dropped);
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.news.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect(HELD)
    }
}

const HELD: &str = "nothing panics while it holds the queue";
