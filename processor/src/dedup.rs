//! Deduplication by event id, within a window that is a suffix of the input log.
//!
//! The window of a record contains the records before it: at most `max_records`, and none older than `window_ms` in log
//! time, compared by the second. Every occurrence of an id renews it. A restore rebuilds the window by reading the suffix
//! again.

use std::collections::VecDeque;
use std::hash::BuildHasherDefault;

use hashbrown::HashMap;
use millrace_contracts::{EventRef, IdWindow};
use rapidhash::v3::rapidhash_v3;

use crate::user_set::RotatedHasher;

/// The result of a lookup of an event id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdMatch {
    /// The window does not contain the id.
    New,
    /// The window contains the id, with the same content.
    Duplicate,
    /// The window contains the id, with another time or kind.
    Conflict,
}

/// The event ids of a partition's window.
#[derive(Debug)]
pub(crate) struct DedupWindow {
    max_records: u64,
    window_ms: i64,
    /// Every occurrence, by ascending offset.
    entries: VecDeque<Entry>,
    /// The newest occurrence of each key.
    newest: HashMap<u64, Packed, BuildHasherDefault<RotatedHasher>>,
    /// The first occurrence of each second.
    seconds: VecDeque<IdWindow>,
    /// For each entry of this step, in order: the previous newest occurrence of its key.
    step: Vec<Option<Packed>>,
    /// The number of elements of `seconds` that this step added.
    new_seconds: usize,
    /// Cache: a log time, and the start of the window by time at that log time.
    start: Option<(i64, u64)>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    key: u64,
    offset: u64,
}

/// The low 40 bits of an offset and 24 bits of the content's hash. A window is shorter than 2^40 records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packed(u64);

const OFFSET_MASK: u64 = (1 << 40) - 1;

impl Packed {
    fn new(offset: u64, content: u64) -> Self {
        Self((offset & OFFSET_MASK) << 24 | content)
    }

    /// The full offset, provided that it is less than 2^40 below `now`.
    fn offset(self, now: u64) -> u64 {
        now - (now.wrapping_sub(self.0 >> 24) & OFFSET_MASK)
    }

    fn is_at(self, offset: u64) -> bool {
        self.0 >> 24 == offset & OFFSET_MASK
    }

    fn content(self) -> u64 {
        self.0 & 0xff_ffff
    }
}

fn content_of(event: EventRef<'_>) -> u64 {
    let mut bytes = [event.kind as u8; 9];
    bytes[..8].copy_from_slice(&event.timestamp_ms.to_le_bytes());
    rapidhash_v3(&bytes) >> 40
}

fn second(log_time: i64) -> i64 {
    log_time - log_time % 1_000
}

impl DedupWindow {
    pub(crate) fn new(max_records: u64, window_ms: i64) -> Self {
        Self {
            max_records,
            window_ms,
            entries: VecDeque::new(),
            newest: HashMap::default(),
            seconds: VecDeque::new(),
            step: Vec::new(),
            new_seconds: 0,
            start: None,
        }
    }

    /// Begins a step at an offset: the previous step is final, and entries behind the window are removed.
    pub(crate) fn begin(&mut self, offset: u64, log_time: i64) {
        self.step.clear();
        self.new_seconds = 0;
        let start = self.start_of(offset, log_time);
        while let Some(&entry) = self.entries.front()
            && entry.offset < start
        {
            self.entries.pop_front();
            if self.newest.get(&entry.key).is_some_and(|newest| newest.is_at(entry.offset)) {
                self.newest.remove(&entry.key);
            }
        }
        // The last second that begins at or before the window carries the log time from which a restore reads.
        let first = self.entries.front().map_or(u64::MAX, |entry| entry.offset);
        while self.seconds.get(1).map_or(self.entries.is_empty(), |next| next.offset <= first)
            && self.seconds.pop_front().is_some()
        {}
    }

    /// Adds an event with an id, whose hash is `key`. `offset` and `log_time` increase from call to call.
    pub(crate) fn observe(&mut self, key: u64, event: EventRef<'_>, offset: u64, log_time: i64) -> IdMatch {
        let start = self.start_of(offset, log_time);
        let content = content_of(event);
        let before = self.newest.insert(key, Packed::new(offset, content));
        self.entries.push_back(Entry { key, offset });
        self.step.push(before);
        if self.seconds.back().is_none_or(|last| second(last.log_time_ms) < second(log_time)) {
            self.seconds.push_back(IdWindow { offset, log_time_ms: log_time });
            self.new_seconds += 1;
        }
        match before.filter(|before| before.offset(offset) >= start) {
            None => IdMatch::New,
            Some(before) if before.content() == content => IdMatch::Duplicate,
            Some(before) => {
                // Later occurrences compare with the first content.
                self.newest.insert(key, Packed::new(offset, before.content()));
                IdMatch::Conflict
            }
        }
    }

    /// Undoes the step.
    pub(crate) fn undo(&mut self) {
        for before in self.step.drain(..).rev() {
            let Some(entry) = self.entries.pop_back() else { return };
            match before {
                Some(before) => self.newest.insert(entry.key, before),
                None => self.newest.remove(&entry.key),
            };
        }
        self.seconds.truncate(self.seconds.len() - std::mem::take(&mut self.new_seconds));
        self.start = None;
    }

    /// Where a restore starts to read the log, to rebuild the window of the record at `offset`; `None` if the window has no ids.
    pub(crate) fn window(&mut self, offset: u64, log_time: i64) -> Option<IdWindow> {
        let start = self.start_of(offset, log_time);
        let first = self.entries.partition_point(|entry| entry.offset < start);
        let first = self.entries.get(first)?.offset;
        let after = self.seconds.partition_point(|second| second.offset <= first);
        self.seconds.get(after.checked_sub(1)?).copied()
    }

    /// Number of occurrences in memory.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The first offset of the window of the record at `offset`.
    fn start_of(&mut self, offset: u64, log_time: i64) -> u64 {
        let by_count = offset.saturating_sub(self.max_records);
        let by_time = match self.start {
            Some((at, start)) if at == log_time => start,
            _ => {
                let oldest = log_time - self.window_ms;
                let after = self.seconds.partition_point(|begun| second(begun.log_time_ms) < oldest);
                // No second within the window has begun: one that begins later is not before this record.
                let start = self.seconds.get(after).map_or(offset, |begun| begun.offset);
                self.start = Some((log_time, start));
                start
            }
        };
        by_count.max(by_time)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use millrace_contracts::Kind;
    use proptest::prelude::*;

    use super::*;

    fn event(timestamp_ms: i64) -> EventRef<'static> {
        EventRef { event_id: None, timestamp_ms, user: "kek", kind: Kind::Click, received_at_ms: 0 }
    }

    /// Observes records of (id, content, ms since the record before). An id below 3 stands for no id.
    fn observe_all(
        records: &[(u8, i64, i64)],
        max_records: u64,
        window_ms: i64,
        steps: &[bool],
    ) -> (Vec<Option<IdMatch>>, DedupWindow) {
        let mut ids = DedupWindow::new(max_records, window_ms);
        let (mut log_time, mut matches) = (0, Vec::new());
        for (offset, &(id, content, later)) in (5..).zip(records) {
            if steps[usize::try_from(offset).unwrap() % steps.len()] {
                ids.begin(offset, log_time);
            }
            log_time += later;
            matches.push((id > 2).then(|| ids.observe(id.into(), event(content), offset, log_time)));
        }
        (matches, ids)
    }

    proptest! {
        #[test]
        fn matches_equal_a_search_through_the_log(
            records in prop::collection::vec((0..9_u8, 0..2_i64, 0..900_i64), 1..150),
            max_records in 1..30_u64,
            // At least one second, as the bounds of the setting require.
            window_ms in 1_000..9_000_i64,
            steps in prop::collection::vec(any::<bool>(), 1..5),
        ) {
            let (matches, _) = observe_all(&records, max_records, window_ms, &steps);
            let mut log_time = 0;
            let times: Vec<i64> = records.iter().map(|&(_, _, later)| { log_time += later; log_time }).collect();
            // The content that an occurrence is compared with: the first one's, as long as the chain does not break.
            let mut first: HashMap<usize, i64> = HashMap::new();
            for (at, &(id, content, _)) in records.iter().enumerate().filter(|(_, record)| record.0 > 2) {
                let before = (0..at).rev().find(|&before| records[before].0 == id).filter(|&before| {
                    (at - before) as u64 <= max_records && second(times[before]) >= times[at] - window_ms
                });
                let original = before.map_or(content, |before| first[&before]);
                first.insert(at, original);
                let expected = match before {
                    None => IdMatch::New,
                    Some(_) if original == content => IdMatch::Duplicate,
                    Some(_) => IdMatch::Conflict,
                };
                prop_assert_eq!(matches[at], Some(expected), "record {}", at);
            }
        }

        #[test]
        fn undo_restores_the_window(
            records in prop::collection::vec((3..9_u8, 0..2_i64, 0..900_i64), 2..60),
            half in 1..40_usize,
        ) {
            let (committed, undone) = records.split_at(half.min(records.len() - 1));
            let (_, mut ids) = observe_all(committed, 10, 3_000, &[false]);
            let log_time = committed.iter().map(|record| record.2).sum::<i64>();
            let next = 5 + committed.len() as u64;
            ids.begin(next, log_time);
            let before = format!("{:?} {:?}", ids.entries, ids.seconds);
            let newest = ids.newest.clone();
            for (offset, &(id, content, later)) in (next..).zip(undone) {
                ids.observe(id.into(), event(content), offset, log_time + later);
            }
            ids.undo();
            prop_assert_eq!(before, format!("{:?} {:?}", ids.entries, ids.seconds));
            prop_assert_eq!(newest, ids.newest);
        }
    }

    #[test]
    fn offsets_that_differ_above_40_bits_do_not_match() {
        let mut ids = DedupWindow::new(10, 1_000);
        let far = (1 << 40) - 1;
        let mut observe = |offset| ids.observe(1, event(0), offset, 0);
        assert_eq!(
            [observe(far), observe(far + 10), observe(far + 21), observe((1 << 62) + 5)],
            [IdMatch::New, IdMatch::Duplicate, IdMatch::New, IdMatch::New]
        );
    }
}
