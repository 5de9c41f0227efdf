//! One hour in one partition: what it counts, how that is written, and how a step of it is taken back.

use millrace_contracts::{
    Exactness, GENERATION, Hour, HourTotals, HourlyCount, Kind, SketchSwitch, StateKey, Topic, UserDelta, UserHash,
    UserSketch,
};
use millrace_log::{StageError, Step};

use crate::kept::{Kept, Snapshot};
use crate::scratch::Scratch;
use crate::users::Users;

/// One hour in one partition.
#[derive(Debug)]
pub(crate) struct HourState {
    pub(crate) hour: Hour,
    pub(crate) totals: HourTotals,
    pub(crate) users: Users,
    pub(crate) kept: Kept,
    /// Where the step under way keeps notes of this hour.
    pub(crate) touched: Option<usize>,
    /// Whether it waits for a look at what is kept of it.
    pub(crate) queued: bool,
    /// What was told of it to [`crate::memory::Holdings`].
    pub(crate) told: crate::memory::Held,
}

/// What one step did to one hour.
#[derive(Debug)]
pub(crate) struct TouchedHour {
    pub(crate) index: usize,
    totals: HourTotals,
    /// Number of deltas, their users, and the marks of [`Kept`].
    kept: (usize, u64, bool, bool),
    /// What was kept before this step's snapshot.
    replaced: Option<Kept>,
    /// The users before they became a sketch in this step.
    pub(crate) set: Option<Users>,
    /// Users new to the set, or who changed the sketch, in order of appearance.
    new_users: Vec<UserHash>,
    /// Registers that rose, and what they were.
    raised: Vec<(u16, u8)>,
    /// Ends of the chunks of `new_users` that filled a record, each with the input offset after its last event.
    full: Vec<(usize, u64)>,
    /// The input offset after the last event that contributed; 0 when none did.
    next_offset: u64,
    /// Whether all users are written, in the place of what is kept.
    pub(crate) snapshot: bool,
}

/// Where a step stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
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
            kept: Kept::default(),
            touched: None,
            queued: false,
            told: crate::memory::Held::default(),
        }
    }

    /// The number of users, as it is answered.
    pub(crate) fn unique_users(&self, scratch: &Scratch) -> Result<u64, StageError> {
        match &self.users {
            Users::Set(set) => Ok(set.len() as u64),
            Users::Sketch(sketch) => {
                // Only what came after the switch is estimated.
                let SketchSwitch { exact_users, estimate } =
                    self.totals.sketched.unwrap_or(SketchSwitch { exact_users: 0, estimate: 0 });
                Ok(exact_users + sketch.estimate(scratch)?.saturating_sub(estimate))
            }
        }
    }

    /// Whether the set is due to become a sketch.
    #[inline]
    pub(crate) fn is_expired(&self, log_time: i64, exact_for: i64) -> bool {
        let HourTotals { written_at_ms, sketched, .. } = self.totals;
        log_time - written_at_ms > exact_for && written_at_ms != HourTotals::UNKNOWN && sketched.is_none()
    }

    /// Bytes that a snapshot takes.
    pub(crate) fn snapshot_bytes(&self) -> usize {
        match &self.users {
            Users::Set(set) => set.len() * size_of::<u64>(),
            Users::Sketch(_) => UserSketch::REGISTERS,
        }
    }

    pub(crate) fn exactness(&self) -> Exactness {
        self.users.exactness()
    }

    /// Takes up totals that were read back; they only ever rise.
    pub(crate) fn read_totals(&mut self, read: HourTotals, scratch: &mut Scratch) -> Result<(), StageError> {
        let totals = &mut self.totals;
        totals.clicks = totals.clicks.max(read.clicks);
        totals.impressions = totals.impressions.max(read.impressions);
        totals.written_at_ms = totals.written_at_ms.max(read.written_at_ms);
        totals.sketched = totals.sketched.or(read.sketched);
        if read.sketched.is_some() { self.read_sketch(scratch) } else { Ok(()) }
    }

    /// The users are a sketch: what was read of a set is taken into it.
    pub(crate) fn read_sketch(&mut self, scratch: &mut Scratch) -> Result<(), StageError> {
        if let Users::Set(set) = &self.users {
            let sketch = Users::Sketch(set.to_sketch(scratch)?.0);
            std::mem::replace(&mut self.users, sketch).give_back(scratch);
        }
        Ok(())
    }
}

impl TouchedHour {
    pub(crate) fn new(index: usize, state: &HourState) -> Self {
        let kept = &state.kept;
        Self {
            index,
            totals: state.totals,
            kept: (kept.deltas.len(), kept.delta_users, kept.closed, kept.of_set),
            replaced: None,
            set: None,
            new_users: Vec::new(),
            raised: Vec::new(),
            full: Vec::new(),
            next_offset: 0,
            snapshot: false,
        }
    }

    /// Counts an event. True when the user is new to a set.
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
            self.full.push((self.new_users.len(), offset + 1));
        }
        Ok(new)
    }

    /// The set becomes a sketch, for good. `closed`: the hour is over.
    pub(crate) fn sketch(
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
        state.kept.of_set = true;
        self.set = Some(std::mem::replace(&mut state.users, Users::Sketch(sketch)));
        Ok(())
    }

    /// Writes what changed: users in chunks, the totals, and the absolute counts as output.
    pub(crate) fn write(
        &mut self,
        state: &mut HourState,
        (at, closed): (At, bool),
        step: &mut Step,
        scratch: &Scratch,
    ) -> Result<(), StageError> {
        let (hour, partition) = (state.hour, at.partition);
        if self.snapshot {
            let snapshot = write_snapshot(state, at, step, scratch)?;
            state.kept.delete(hour, partition, step);
            let kept = Kept { snapshot: Some(snapshot), closed, ..Kept::default() };
            self.replaced = Some(std::mem::replace(&mut state.kept, kept));
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
        for &(end, seq) in self.full.iter().chain([&rest]) {
            if end > start {
                let users = &self.new_users[start..end];
                let key = StateKey::Users { hour: state.hour, partition, seq };
                step.put(Topic::STATE, partition, key, |out| UserDelta::encode(users, out));
                state.kept.read_delta(seq, users.len() as u64);
            }
            start = end;
        }
    }

    /// Takes it all back.
    pub(crate) fn undo(self, state: &mut HourState, scratch: &mut Scratch) {
        state.totals = self.totals;
        if let Some(kept) = self.replaced {
            state.kept = kept;
        }
        let (deltas, users, closed, of_set) = self.kept;
        state.kept.deltas.truncate(deltas);
        (state.kept.delta_users, state.kept.closed, state.kept.of_set) = (users, closed, of_set);
        if let Some(set) = self.set {
            std::mem::replace(&mut state.users, set).give_back(scratch);
        }
        match &mut state.users {
            Users::Set(set) => self.new_users.into_iter().for_each(|user| set.delta.remove(user)),
            Users::Sketch(sketch) => sketch.undo(&self.raised),
        }
    }
}

/// Writes all users of an hour.
fn write_snapshot(state: &HourState, at: At, step: &mut Step, scratch: &Scratch) -> Result<Snapshot, StageError> {
    let At { partition, next_offset } = at;
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
