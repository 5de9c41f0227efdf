//! The counts of one hour in one partition: update, write and undo.

use millrace_contracts::{
    Exactness, GENERATION, Hour, HourTotals, HourlyCount, Kind, SketchSwitch, StateKey, Topic, UserDelta, UserHash,
    UserSketch,
};
use millrace_log::{StageError, Step};

use crate::changelog::{Changelog, Snapshot};
use crate::scratch::Scratch;
use crate::usage::HourUsage;
use crate::users::Users;

/// One hour in one partition.
#[derive(Debug)]
pub(crate) struct HourState {
    pub(crate) hour: Hour,
    pub(crate) totals: HourTotals,
    pub(crate) users: Users,
    pub(crate) changelog: Changelog,
    /// The index of this hour's [`HourStep`] in the running step.
    pub(crate) step: Option<usize>,
    /// Whether the hour is in the maintenance queue.
    pub(crate) queued: bool,
    /// The last report of its memory.
    pub(crate) usage: HourUsage,
}

/// The changes of one step to one hour, and what it takes to undo them.
#[derive(Debug)]
pub(crate) struct HourStep {
    pub(crate) index: usize,
    totals: HourTotals,
    /// Before the step: the number of deltas, their users, and the flags of [`Changelog`].
    changelog: (usize, u64, bool, bool),
    /// The changelog that this step's snapshot replaced.
    replaced: Option<Changelog>,
    /// The set that a sketch replaced in this step.
    pub(crate) set: Option<Users>,
    /// Users that the step added to the set, or that changed the sketch, in order of appearance.
    new_users: Vec<UserHash>,
    /// Registers that increased, with their previous values.
    raised: Vec<(u16, u8)>,
    /// Ends of the chunks of `new_users` that fill a record, each with the input offset after its last event.
    full_chunks: Vec<(usize, u64)>,
    /// The input offset after the last counted event; 0 if the step counted none.
    next_offset: u64,
    /// Whether the step writes a snapshot.
    pub(crate) snapshot: bool,
}

/// The partition and the end of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepEnd {
    pub(crate) partition: u32,
    /// The input offset after the step.
    pub(crate) next_offset: u64,
}

impl HourState {
    pub(crate) fn new(hour: Hour) -> Self {
        Self {
            hour,
            totals: HourTotals::default(),
            users: Users::default(),
            changelog: Changelog::default(),
            step: None,
            queued: false,
            usage: HourUsage::default(),
        }
    }

    /// The number of unique users, as published.
    pub(crate) fn unique_users(&self, scratch: &Scratch) -> Result<u64, StageError> {
        match &self.users {
            Users::Set(set) => Ok(set.len() as u64),
            Users::Sketch(sketch) => {
                // Users before the switch count exactly; only the growth after it is estimated.
                let SketchSwitch { exact_users, estimate } =
                    self.totals.sketched.unwrap_or(SketchSwitch { exact_users: 0, estimate: 0 });
                Ok(exact_users + sketch.estimate(scratch)?.saturating_sub(estimate))
            }
        }
    }

    /// Whether the hour has had no event for so long that a sketch replaces its set.
    #[inline]
    pub(crate) fn is_expired(&self, log_time: i64, evict_after_ms: i64) -> bool {
        let HourTotals { written_at_ms, sketched, .. } = self.totals;
        log_time - written_at_ms > evict_after_ms && written_at_ms != HourTotals::UNKNOWN && sketched.is_none()
    }

    /// The size of a snapshot in bytes.
    pub(crate) fn snapshot_bytes(&self) -> usize {
        match &self.users {
            Users::Set(set) => set.len() * size_of::<u64>(),
            Users::Sketch(_) => UserSketch::REGISTERS,
        }
    }

    pub(crate) fn exactness(&self) -> Exactness {
        self.users.exactness()
    }

    /// Merges restored totals: the maximum of each, since counters only increase.
    pub(crate) fn restore_totals(&mut self, read: HourTotals, scratch: &mut Scratch) -> Result<(), StageError> {
        let totals = &mut self.totals;
        totals.clicks = totals.clicks.max(read.clicks);
        totals.impressions = totals.impressions.max(read.impressions);
        totals.written_at_ms = totals.written_at_ms.max(read.written_at_ms);
        totals.sketched = totals.sketched.or(read.sketched);
        if read.sketched.is_some() { self.convert_to_sketch(scratch) } else { Ok(()) }
    }

    /// Converts a set into a sketch during a restore.
    pub(crate) fn convert_to_sketch(&mut self, scratch: &mut Scratch) -> Result<(), StageError> {
        if let Users::Set(set) = &self.users {
            let sketch = Users::Sketch(set.to_sketch(scratch)?.0);
            std::mem::replace(&mut self.users, sketch).release(scratch);
        }
        Ok(())
    }
}

impl HourStep {
    pub(crate) fn new(index: usize, state: &HourState) -> Self {
        let Changelog { deltas, delta_users, final_snapshot, predates_sketch, .. } = &state.changelog;
        Self {
            index,
            totals: state.totals,
            changelog: (deltas.len(), *delta_users, *final_snapshot, *predates_sketch),
            replaced: None,
            set: None,
            new_users: Vec::new(),
            raised: Vec::new(),
            full_chunks: Vec::new(),
            next_offset: 0,
            snapshot: false,
        }
    }

    /// Counts an event. Returns true if it added a user to a set.
    #[inline]
    pub(crate) fn count(
        &mut self,
        state: &mut HourState,
        (kind, user): (Kind, UserHash),
        (offset, log_time): (u64, i64),
        scratch: &Scratch,
    ) -> Result<bool, StageError> {
        match kind {
            Kind::Click => state.totals.clicks += 1,
            Kind::Impression => state.totals.impressions += 1,
        }
        state.totals.written_at_ms = log_time;
        self.next_offset = offset + 1;
        let new = match &mut state.users {
            Users::Set(set) => {
                if !set.insert(user, scratch)? {
                    return Ok(false);
                }
                true
            }
            Users::Sketch(sketch) => {
                let Some(raised) = sketch.insert(user, scratch)? else { return Ok(false) };
                self.raised.push(raised);
                false
            }
        };
        self.new_users.push(user);
        if self.new_users.len().is_multiple_of(UserDelta::MAX_USERS) {
            self.full_chunks.push((self.new_users.len(), offset + 1));
        }
        Ok(new)
    }

    /// Replaces the set by a sketch, irrevocably. `closed`: the hour has ended.
    pub(crate) fn switch_to_sketch(
        &mut self,
        state: &mut HourState,
        closed: bool,
        scratch: &mut Scratch,
    ) -> Result<(), StageError> {
        let Users::Set(set) = &state.users else { return Ok(()) };
        let (mut sketch, sketched) = set.to_sketch(scratch)?;
        if closed {
            sketch.spill(scratch)?;
        }
        state.totals.sketched = Some(sketched);
        state.changelog.predates_sketch = true;
        self.set = Some(std::mem::replace(&mut state.users, Users::Sketch(sketch)));
        Ok(())
    }

    /// Writes the changes: users in chunks, the totals, and the absolute counts as output.
    pub(crate) fn write(
        &mut self,
        state: &mut HourState,
        (end, closed): (StepEnd, bool),
        step: &mut Step,
        scratch: &Scratch,
    ) -> Result<(), StageError> {
        let (hour, partition) = (state.hour, end.partition);
        if self.snapshot {
            let snapshot = write_snapshot(state, end, step, scratch)?;
            state.changelog.write_tombstones(hour, partition, step);
            let changelog = Changelog { snapshot: Some(snapshot), final_snapshot: closed, ..Changelog::default() };
            self.replaced = Some(std::mem::replace(&mut state.changelog, changelog));
        } else {
            self.write_delta(state, partition, step);
        }
        let counted = self.next_offset > 0;
        if counted || self.set.is_some() {
            step.put(Topic::STATE, partition, StateKey::Counters { hour, partition }, |out| state.totals.encode(out));
        }
        if counted {
            let count = HourlyCount {
                hour,
                partition,
                generation: GENERATION,
                next_offset: self.next_offset,
                clicks: state.totals.clicks,
                impressions: state.totals.impressions,
                unique_users: state.unique_users(scratch)?,
                exactness: state.users.exactness(),
            };
            step.put(Topic::HOURLY, partition, HourlyCount::key(hour, partition), |out| count.encode(out));
        }
        Ok(())
    }

    fn write_delta(&self, state: &mut HourState, partition: u32, step: &mut Step) {
        let rest = (self.new_users.len(), self.next_offset);
        let mut start = 0;
        for &(end, seq) in self.full_chunks.iter().chain([&rest]) {
            if end > start {
                let users = &self.new_users[start..end];
                let key = StateKey::Users { hour: state.hour, partition, seq };
                step.put(Topic::STATE, partition, key, |out| UserDelta::encode(users, out));
                state.changelog.add_delta(seq, users.len() as u64);
            }
            start = end;
        }
    }

    /// Undoes the step.
    pub(crate) fn undo(self, state: &mut HourState, scratch: &mut Scratch) {
        state.totals = self.totals;
        if let Some(replaced) = self.replaced {
            state.changelog = replaced;
        }
        let (deltas, delta_users, final_snapshot, predates_sketch) = self.changelog;
        let changelog = &mut state.changelog;
        changelog.deltas.truncate(deltas);
        (changelog.delta_users, changelog.final_snapshot, changelog.predates_sketch) =
            (delta_users, final_snapshot, predates_sketch);
        if let Some(set) = self.set {
            std::mem::replace(&mut state.users, set).release(scratch);
        }
        match &mut state.users {
            Users::Set(set) => self.new_users.into_iter().for_each(|user| set.delta.remove(user)),
            Users::Sketch(sketch) => sketch.undo(&self.raised),
        }
    }
}

/// Writes every user of an hour.
fn write_snapshot(state: &HourState, end: StepEnd, step: &mut Step, scratch: &Scratch) -> Result<Snapshot, StageError> {
    let StepEnd { partition, next_offset } = end;
    let key = |chunk| StateKey::Snapshot { hour: state.hour, partition, snapshot: next_offset, chunk };
    let mut snapshot = Snapshot { offset: next_offset, chunks: 0, users: 0, sketch: false };
    match &state.users {
        Users::Set(set) => {
            let mut chunk = Vec::with_capacity(set.len().min(UserDelta::MAX_USERS));
            let mut put = |chunk: &mut Vec<UserHash>| {
                step.put(Topic::STATE, partition, key(snapshot.chunks), |out| UserDelta::encode(chunk, out));
                snapshot.chunks += 1;
                snapshot.users += chunk.len() as u64;
                chunk.clear();
            };
            set.for_each(scratch, |user| {
                chunk.push(user);
                if chunk.len() == UserDelta::MAX_USERS {
                    put(&mut chunk);
                }
            })?;
            if !chunk.is_empty() {
                put(&mut chunk);
            }
        }
        Users::Sketch(sketch) => {
            let registers = sketch.registers(scratch)?;
            step.put(Topic::STATE, partition, key(0), |out| UserSketch::encode(registers.as_array(), out));
            (snapshot.chunks, snapshot.users, snapshot.sketch) = (1, Snapshot::SKETCH_USERS, true);
        }
    }
    Ok(snapshot)
}
