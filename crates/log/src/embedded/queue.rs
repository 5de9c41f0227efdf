//! The bounded queue to the writer thread. Enqueueing never blocks.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::writer::Write;
use crate::RefusalCause;
use crate::metric::APPENDS;

pub(super) struct Queue {
    max_records: usize,
    max_bytes: usize,
    backlog: Mutex<Backlog>,
    changed: Condvar,
}

#[derive(Default)]
struct Backlog {
    writes: VecDeque<Write>,
    records: usize,
    bytes: usize,
    closed: bool,
}

impl Backlog {
    fn report(&self) {
        APPENDS.waiting(self.records as u64, self.bytes as u64);
    }
}

impl Queue {
    pub(super) fn new(max_records: usize, max_bytes: usize) -> Self {
        Self { max_records, max_bytes, backlog: Mutex::default(), changed: Condvar::new() }
    }

    /// Enqueues a write; returns it with the cause if the queue is closed or full.
    pub(super) fn offer(&self, write: Write) -> Result<(), (Write, RefusalCause)> {
        let backlog = self.lock();
        if backlog.closed {
            return Err((write, RefusalCause::ShuttingDown));
        }
        let (records, bytes) =
            (backlog.records + write.records.entries.len(), backlog.bytes + write.records.bytes.len());
        if records > self.max_records || bytes > self.max_bytes {
            return Err((write, RefusalCause::Full));
        }
        self.push(backlog, write);
        Ok(())
    }

    /// Enqueues a write regardless of the bounds: a runner has at most one write in flight, and bounds of its own.
    pub(super) fn push_unbounded(&self, write: Write) -> Result<(), RefusalCause> {
        let backlog = self.lock();
        if backlog.closed {
            return Err(RefusalCause::ShuttingDown);
        }
        self.push(backlog, write);
        Ok(())
    }

    fn push(&self, mut backlog: MutexGuard<'_, Backlog>, write: Write) {
        backlog.records += write.records.entries.len();
        backlog.bytes += write.records.bytes.len();
        backlog.writes.push_back(write);
        backlog.report();
        drop(backlog);
        self.changed.notify_one();
    }

    /// Waits for a write, then moves the backlog into `group`, up to `max_bytes` but at least one write. False if the
    /// queue is closed and empty.
    pub(super) fn take(&self, group: &mut Vec<Write>, max_bytes: usize) -> bool {
        let mut backlog = self.lock();
        while backlog.writes.is_empty() {
            if backlog.closed {
                return false;
            }
            // The timeout guards against a lost wakeup; a minute costs nothing.
            backlog = self.changed.wait_timeout(backlog, Duration::from_mins(1)).expect(UNPOISONED).0;
        }
        let mut bytes = 0;
        while bytes < max_bytes
            && let Some(write) = backlog.writes.pop_front()
        {
            bytes += write.records.bytes.len();
            backlog.records -= write.records.entries.len();
            backlog.bytes -= write.records.bytes.len();
            group.push(write);
        }
        backlog.report();
        true
    }

    /// Closes the queue and drops the backlog: the outcomes are unknown.
    pub(super) fn abandon(&self) {
        self.close();
        let mut backlog = self.lock();
        let dropped = std::mem::take(&mut backlog.writes);
        (backlog.records, backlog.bytes) = (0, 0);
        backlog.report();
        drop(backlog);
        drop(dropped);
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().expect(UNPOISONED)
    }
}

const UNPOISONED: &str = "no holder of this lock panics";
