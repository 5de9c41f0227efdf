//! Event ids: whether an event was there before, within a window that is a suffix of the input log.
//!
//! The window of a record holds those before it, at most so many, and none older than so long in log time (compared by
//! the second). Every occurrence of an id renews it. All of it can be found out again by reading that suffix.

use std::collections::VecDeque;
use std::hash::BuildHasherDefault;

use hashbrown::HashMap;
use millrace_contracts::{EventRef, IdWindow, UserHash};
use rapidhash::v3::rapidhash_v3;

use crate::set::Rotated;

/// What is known of an event with an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It was not in the window.
    Never,
    /// It was, with the same content.
    Same,
    /// It was, with another time or kind.
    Other,
}

#[derive(Debug)]
pub(crate) struct Ids {
    most: u64,
    window_ms: i64,
    /// Every occurrence, by rising offset.
    entries: VecDeque<Entry>,
    /// The newest occurrence of a key.
    newest: HashMap<u64, Packed, BuildHasherDefault<Rotated>>,
    /// The first occurrence of each second.
    seconds: VecDeque<IdWindow>,
    /// What the newest occurrence was before each entry of this step, in their order.
    step: Vec<Option<Packed>>,
    /// The seconds that began in this step.
    new_seconds: usize,
    /// The start of the window by time, as of a log time.
    start: Option<(i64, u64)>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    key: u64,
    offset: u64,
}

/// The low 40 bits of an offset, and 24 bits of the content's hash: a window is shorter than 2^40 records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packed(u64);

const OFFSET_MASK: u64 = (1 << 40) - 1;

impl Packed {
    fn new(offset: u64, content: u64) -> Self {
        Self((offset & OFFSET_MASK) << 24 | content)
    }

    /// The offset, when it is at most 2^40 below `now`.
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

fn key_of(user: UserHash, id: &str) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&user.get().to_le_bytes());
    bytes[8..].copy_from_slice(&rapidhash_v3(id.as_bytes()).to_le_bytes());
    rapidhash_v3(&bytes)
}

fn content_of(event: EventRef<'_>) -> u64 {
    let mut bytes = [event.kind as u8; 9];
    bytes[..8].copy_from_slice(&event.timestamp_ms.to_le_bytes());
    rapidhash_v3(&bytes) >> 40
}

fn second(log_time: i64) -> i64 {
    log_time - log_time % 1_000
}

impl Ids {
    pub(crate) fn new(most: u64, window_ms: i64) -> Self {
        Self {
            most,
            window_ms,
            entries: VecDeque::new(),
            newest: HashMap::default(),
            seconds: VecDeque::new(),
            step: Vec::new(),
            new_seconds: 0,
            start: None,
        }
    }

    /// Begins a step at an offset: the last one holds, and what is behind the window is forgotten.
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
        // The last second that begins at or before the window holds the log time from which it is read again.
        let first = self.entries.front().map_or(u64::MAX, |entry| entry.offset);
        while self.seconds.get(1).map_or(self.entries.is_empty(), |next| next.offset <= first)
            && self.seconds.pop_front().is_some()
        {}
    }

    /// Takes in an event with an id. `offset` and `log_time` rise from call to call.
    pub(crate) fn see(&mut self, user: UserHash, id: &str, event: EventRef<'_>, offset: u64, log_time: i64) -> Seen {
        let start = self.start_of(offset, log_time);
        let (key, content) = (key_of(user, id), content_of(event));
        let before = self.newest.insert(key, Packed::new(offset, content));
        self.entries.push_back(Entry { key, offset });
        self.step.push(before);
        if self.seconds.back().is_none_or(|last| second(last.log_time_ms) < second(log_time)) {
            self.seconds.push_back(IdWindow { offset, log_time_ms: log_time });
            self.new_seconds += 1;
        }
        match before.filter(|before| before.offset(offset) >= start) {
            None => Seen::Never,
            Some(before) if before.content() == content => Seen::Same,
            Some(before) => {
                // The first content holds for the later ones, too.
                self.newest.insert(key, Packed::new(offset, before.content()));
                Seen::Other
            }
        }
    }

    /// Takes the step back.
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

    /// From where on the log is read again to have the window of the record at `offset`; `None` when there is no id in it.
    pub(crate) fn window(&mut self, offset: u64, log_time: i64) -> Option<IdWindow> {
        let start = self.start_of(offset, log_time);
        let first = self.entries.partition_point(|entry| entry.offset < start);
        let first = self.entries.get(first)?.offset;
        let after = self.seconds.partition_point(|second| second.offset <= first);
        self.seconds.get(after.checked_sub(1)?).copied()
    }

    /// Number of occurrences held.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The first offset of the window of the record at `offset`.
    fn start_of(&mut self, offset: u64, log_time: i64) -> u64 {
        let by_count = offset.saturating_sub(self.most);
        let by_time = match self.start {
            Some((at, start)) if at == log_time => start,
            _ => {
                let oldest = log_time - self.window_ms;
                let after = self.seconds.partition_point(|begun| second(begun.log_time_ms) < oldest);
                // No second that is young enough has begun: one that does is not before this record.
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

    /// Records as (id, content, ms since the one before); ids below 3 are none.
    fn answers(records: &[(u8, i64, i64)], most: u64, window_ms: i64, steps: &[bool]) -> (Vec<Option<Seen>>, Ids) {
        let mut ids = Ids::new(most, window_ms);
        let (mut log_time, mut seen) = (0, Vec::new());
        let user = UserHash::of("kek");
        for (offset, &(id, content, later)) in (5..).zip(records) {
            if steps[usize::try_from(offset).unwrap() % steps.len()] {
                ids.begin(offset, log_time);
            }
            log_time += later;
            seen.push((id > 2).then(|| ids.see(user, &id.to_string(), event(content), offset, log_time)));
        }
        (seen, ids)
    }

    proptest! {
        #[test]
        fn it_is_a_window_of_the_log(
            records in prop::collection::vec((0..9_u8, 0..2_i64, 0..900_i64), 1..150),
            most in 1..30_u64,
            // Not shorter than a second, as settings are: the window is kept by seconds.
            window_ms in 1_000..9_000_i64,
            steps in prop::collection::vec(any::<bool>(), 1..5),
        ) {
            let (seen, _) = answers(&records, most, window_ms, &steps);
            let mut log_time = 0;
            let times: Vec<i64> = records.iter().map(|&(_, _, later)| { log_time += later; log_time }).collect();
            // The content that holds for an occurrence: the first one's, as long as the chain does not break.
            let mut first: HashMap<usize, i64> = HashMap::new();
            for (at, &(id, content, _)) in records.iter().enumerate().filter(|(_, record)| record.0 > 2) {
                let before = (0..at).rev().find(|&before| records[before].0 == id).filter(|&before| {
                    (at - before) as u64 <= most && second(times[before]) >= times[at] - window_ms
                });
                let holds = before.map_or(content, |before| first[&before]);
                first.insert(at, holds);
                let expected = match before {
                    None => Seen::Never,
                    Some(_) if holds == content => Seen::Same,
                    Some(_) => Seen::Other,
                };
                prop_assert_eq!(seen[at], Some(expected), "record {}", at);
            }
        }

        #[test]
        fn a_step_taken_back_never_was(
            records in prop::collection::vec((3..9_u8, 0..2_i64, 0..900_i64), 2..60),
            half in 1..40_usize,
        ) {
            let (kept, gone) = records.split_at(half.min(records.len() - 1));
            let (_, mut ids) = answers(kept, 10, 3_000, &[false]);
            let log_time = kept.iter().map(|record| record.2).sum::<i64>();
            let next = 5 + kept.len() as u64;
            ids.begin(next, log_time);
            let before = format!("{:?} {:?}", ids.entries, ids.seconds);
            let newest = ids.newest.clone();
            for (offset, &(id, content, later)) in (next..).zip(gone) {
                ids.see(UserHash::of("kek"), &id.to_string(), event(content), offset, log_time + later);
            }
            ids.undo();
            prop_assert_eq!(before, format!("{:?} {:?}", ids.entries, ids.seconds));
            prop_assert_eq!(newest, ids.newest);
        }
    }

    #[test]
    fn offsets_beyond_the_packing_are_told_apart() {
        let mut ids = Ids::new(10, 1_000);
        let far = (1 << 40) - 1;
        let user = UserHash::of("kek");
        let mut see = |offset| ids.see(user, "id", event(0), offset, 0);
        assert_eq!(
            [see(far), see(far + 10), see(far + 21), see((1 << 62) + 5)],
            [Seen::Never, Seen::Same, Seen::Never, Seen::Never]
        );
    }
}
