//! The running step: counts its events, decides which hours need a sketch or a snapshot, and writes the changes.

use millrace_contracts::{EventRef, Hour, UserHash};
use millrace_log::{StageError, Step, sabotaged};

use crate::bounds::CountingBounds;
use crate::dedup::IdMatch;
use crate::hour::{HourState, HourStep, StepEnd};
use crate::partition::PartitionState;
use crate::stats::StepStats;
use crate::users::Users;

/// Counts the events of one step.
pub(crate) struct Counter<'a> {
    pub(crate) bounds: &'a CountingBounds,
    pub(crate) state: &'a mut PartitionState,
    pub(crate) hours: Vec<HourStep>,
    pub(crate) stats: StepStats,
    /// The hour of the previous event, with its index: nearly every event has the hour of the one before.
    last: Option<(Hour, usize)>,
}

impl<'a> Counter<'a> {
    pub(crate) fn new(bounds: &'a CountingBounds, state: &'a mut PartitionState) -> Self {
        Self { bounds, state, hours: Vec::new(), stats: StepStats::default(), last: None }
    }

    /// Looks the event's id up. Returns true if the event counts.
    #[inline(never)]
    pub(crate) fn is_new(&mut self, event: EventRef<'_>, user: UserHash, offset: u64) -> bool {
        let Some(id) = event.event_id else { return true };
        let key = self.state.hasher().event_id(user, id);
        let found = self.state.ids.observe(key, event, offset, self.state.log_time);
        self.stats.duplicates += u64::from(found != IdMatch::New);
        self.stats.conflicts += u64::from(found == IdMatch::Conflict);
        found == IdMatch::New || sabotaged("sabotage::skip-dedup")
    }

    /// Renews the id of an event that the log holds twice, as a replay does.
    pub(crate) fn renew(&mut self, event: EventRef<'_>, user: UserHash, offset: u64) {
        if let Some(id) = event.event_id {
            let key = self.state.hasher().event_id(user, id);
            self.state.ids.observe(key, event, offset, self.state.log_time);
        }
    }

    /// Counts an event in its hour.
    #[inline]
    pub(crate) fn count(&mut self, event: EventRef<'_>, user: UserHash, offset: u64) -> Result<(), StageError> {
        let hour = Hour::of_ms(event.timestamp_ms);
        let index = match self.last {
            Some((last, index)) if last == hour => index,
            _ => self.state.index_of(hour),
        };
        self.last = Some((hour, index));
        let first_open = self.state.first_open();
        let PartitionState { hours, scratch, log_time, .. } = &mut *self.state;
        let step = hour_step(&mut self.hours, hours, index);
        let (state, log_time) = (&mut hours[index], *log_time);
        if state.is_expired(log_time, self.bounds.evict_after_ms) {
            step.switch_to_sketch(state, true, scratch)?;
            self.stats.expired += 1;
        }
        self.stats.counted += 1;
        self.stats.late += u64::from(hour < first_open);
        let new = step.count(state, (event.kind, user), (offset, log_time), scratch)?;
        if new && matches!(&state.users, Users::Set(set) if set.len() > self.bounds.max_exact_users) {
            step.switch_to_sketch(state, hour < first_open, scratch)?;
            self.stats.over_bound += 1;
        }
        Ok(())
    }

    /// Maintains hours after the records of the step: sketches replace expired sets, and snapshots replace long changelogs,
    /// a bounded number of bytes per step.
    pub(crate) fn maintain(&mut self, output: &mut Step) -> Result<(), StageError> {
        self.state.advance_time(self.bounds);
        for hour in &self.hours {
            self.state.enqueue(hour.index);
        }
        let mut postponed = Vec::new();
        while output.deferrable_bytes() < self.bounds.snapshot_bytes
            && let Some(index) = self.state.next_queued()
        {
            let closed = self.state.is_closed(index);
            self.state.enqueue_spill(index);
            let hour = &self.state.hours[index];
            let expired = hour.is_expired(self.state.log_time, self.bounds.evict_after_ms);
            if expired && hour.step.is_some() {
                // The step counted events in it before log time advanced, and publishes them exactly. The next step
                // switches the hour to a sketch.
                postponed.push(index);
                continue;
            }
            if !expired && !hour.changelog.needs_snapshot(closed, self.bounds) {
                continue;
            }
            let PartitionState { hours, scratch, .. } = &mut *self.state;
            let step = hour_step(&mut self.hours, hours, index);
            if expired {
                step.switch_to_sketch(&mut hours[index], true, scratch)?;
                self.stats.expired += 1;
            }
            step.snapshot = true;
            self.stats.snapshots += 1;
            output.count_deferrable(hours[index].snapshot_bytes());
        }
        for index in postponed {
            self.state.enqueue(index);
        }
        Ok(())
    }

    /// Writes the changes of every hour.
    pub(crate) fn write(&mut self, next_offset: u64, step: &mut Step) -> Result<(), StageError> {
        let end = StepEnd { partition: self.state.partition, next_offset };
        for hour in &mut self.hours {
            let closed = self.state.is_closed(hour.index);
            let state = &mut self.state.hours[hour.index];
            state.step = None;
            hour.write(state, (end, closed), step, &self.state.scratch)?;
            self.state.report(hour.index);
            self.state.enqueue_spill(hour.index);
        }
        Ok(())
    }
}

/// The [`HourStep`] of an hour in this step; creates it at the first change.
#[inline]
fn hour_step<'a>(steps: &'a mut Vec<HourStep>, hours: &mut [HourState], index: usize) -> &'a mut HourStep {
    let hour = &mut hours[index];
    let step = *hour.step.get_or_insert(steps.len());
    if step == steps.len() {
        steps.push(HourStep::new(index, hour));
    }
    &mut steps[step]
}
