//! The reference: counts by brute force, in one pass over the log, with unbounded memory and without batches.

use std::collections::{BTreeMap, HashSet};

use millrace_base::limits::MAX_USER_BYTES;
use millrace_contracts::{AnalyticsEvent, EventRef, Hour, Kind, QuarantineReason, UserHash, partition_of};
use millrace_processor::CountingBounds;

use crate::engine::{Input, PARTITION, PARTITIONS};

#[derive(Default)]
pub(crate) struct Reference {
    pub(crate) hours: BTreeMap<Hour, Expected>,
    pub(crate) quarantined: Vec<(u64, QuarantineReason)>,
    pub(crate) duplicates: u64,
    pub(crate) conflicts: u64,
    log_time: i64,
    /// Events with an id: offset, log time, event, and the first event of the id.
    ids: Vec<(u64, i64, AnalyticsEvent, AnalyticsEvent)>,
}

#[derive(Default)]
pub(crate) struct Expected {
    pub(crate) clicks: u64,
    pub(crate) impressions: u64,
    pub(crate) users: HashSet<String>,
    /// The exact number of users when the sketch replaced the set.
    pub(crate) switched_at: Option<usize>,
    pub(crate) next_offset: u64,
    written_at: i64,
}

impl Reference {
    pub(crate) fn of(log: &[Input], bounds: &CountingBounds) -> Self {
        let mut reference = Self::default();
        for (offset, input) in (0..).zip(log) {
            reference.count(offset, input, bounds);
        }
        reference
    }

    fn count(&mut self, offset: u64, input: &Input, bounds: &CountingBounds) {
        self.log_time = self.log_time.max(input.timestamp_ms);
        let event = match self.event(input) {
            Ok(event) => event,
            Err(_) if input.repeat => return,
            Err(reason) => return self.quarantined.push((offset, reason)),
        };
        if input.repeat {
            if event.event_id.is_some() {
                self.is_duplicate(offset, &event, bounds);
            }
            return;
        }
        if event.event_id.is_some() && self.is_duplicate(offset, &event, bounds) {
            return;
        }
        let hour = self.hours.entry(Hour::of_ms(event.timestamp_ms)).or_default();
        if hour.next_offset > 0 && self.log_time - hour.written_at > bounds.evict_after_ms {
            hour.switched_at = hour.switched_at.or(Some(hour.users.len()));
        }
        match event.kind {
            Kind::Click => hour.clicks += 1,
            Kind::Impression => hour.impressions += 1,
        }
        (hour.written_at, hour.next_offset) = (self.log_time, offset + 1);
        hour.users.insert(event.user);
        if hour.users.len() > bounds.max_exact_users {
            hour.switched_at = hour.switched_at.or(Some(hour.users.len()));
        }
    }

    fn event(&self, input: &Input) -> Result<AnalyticsEvent, QuarantineReason> {
        let value = input.value.as_ref().ok_or(QuarantineReason::Tombstone)?;
        let event = EventRef::decode(value).map_err(|_| QuarantineReason::Undecodable)?.to_owned();
        if event.user.is_empty() || event.user.len() > MAX_USER_BYTES || event.user.contains(|c: char| c.is_control()) {
            return Err(QuarantineReason::InvalidUser);
        }
        if partition_of(UserHash::of(&event.user), PARTITIONS) != PARTITION {
            return Err(QuarantineReason::WrongPartition);
        }
        // Five minutes of tolerance and one of clock skew.
        let allowed = 0..=self.log_time + 6 * 60_000;
        if allowed.contains(&event.timestamp_ms) { Ok(event) } else { Err(QuarantineReason::OutsideWindow) }
    }

    fn is_duplicate(&mut self, offset: u64, event: &AnalyticsEvent, bounds: &CountingBounds) -> bool {
        let before =
            self.ids.iter().rev().find(|(_, _, other, _)| other.event_id == event.event_id && other.user == event.user);
        let before = before.filter(|(at, log_time, ..)| {
            offset - at <= bounds.max_dedup_records
                && log_time / 1_000 * 1_000 >= self.log_time - bounds.dedup_window_ms
        });
        let first = before.map_or(event, |(_, _, _, first)| first).clone();
        let (duplicate, other) =
            (before.is_some(), (first.timestamp_ms, first.kind) != (event.timestamp_ms, event.kind));
        self.duplicates += u64::from(duplicate);
        self.conflicts += u64::from(other);
        self.ids.push((offset, self.log_time, event.clone(), first));
        duplicate
    }
}
