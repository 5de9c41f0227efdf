//! The counting stage.

use std::path::PathBuf;
use std::sync::Arc;

use millrace_contracts::{
    EventRef, EventWindow, Hour, HourTotals, IdWindow, LogTime, QuarantineReason, StateKey, Topic, UserDelta, UserHash,
    UserSketch, metric,
};
use millrace_log::{Batch, Stage, StageError, Step, sabotaged};

use crate::config::Bounds;
use crate::hours::{At, HourState, TouchedHour};
use crate::ids::Seen;
use crate::kept::Snapshot;
use crate::memory::{Holdings, Shared};
use crate::park::{Rules, park};
use crate::partition::PartitionState;
use crate::scratch::Scratch;
use crate::users::Users;

/// Counts clicks, impressions and unique users by the event's own UTC hour: each event once, exactly within its bounds.
#[derive(Debug)]
pub struct Counting {
    rules: Rules,
    bounds: Bounds,
    scratch: PathBuf,
    shared: Arc<Shared>,
}

/// Takes one application back, or tells what it did.
#[derive(Debug)]
pub struct Undo {
    log_time: i64,
    window: Option<IdWindow>,
    touched: Vec<TouchedHour>,
    told: Told,
}

/// What one application did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    /// Events counted.
    pub counted: u64,
    /// Those of them whose hour was over.
    pub late: u64,
    /// Events that were there before.
    pub duplicates: u64,
    /// Those of them that had another content.
    pub conflicts: u64,
    /// Records put aside, in the order of [`QuarantineReason::ALL`].
    pub parked: [u64; QuarantineReason::ALL.len()],
    /// Sets that became sketches because they had too many users,
    pub over_bound: u64,
    /// or because the hour was not written for too long.
    pub aged: u64,
    /// Snapshots written.
    pub snapshots: u64,
}

impl Undo {
    /// What the application did.
    pub fn told(&self) -> &Told {
        &self.told
    }
}

impl Counting {
    /// A stage for an input of that many partitions. `scratch`: the directory of the files that save memory; empty for the
    /// system's temporary directory.
    pub fn new(partitions: u32, window: EventWindow, bounds: Bounds, scratch: PathBuf) -> Self {
        // A rate over a series that comes with its first count misses it.
        Told::default().tell(0);
        metrics::counter!(metric::SPILLED.name).increment(0);
        Self { rules: Rules::new(partitions, window), bounds, scratch, shared: Arc::default() }
    }
}

impl Stage for Counting {
    type State = PartitionState;
    type Undo = Undo;

    fn input(&self) -> Topic {
        Topic::EVENTS
    }

    fn changes(&self) -> Topic {
        Topic::STATE
    }

    fn new_state(&self, partition: u32) -> PartitionState {
        let holdings = Holdings::new(self.shared.clone());
        PartitionState::new(partition, Scratch::new(self.scratch.clone()), holdings, &self.bounds)
    }

    fn load(&self, state: &mut PartitionState, key: &[u8], value: &[u8]) -> Result<(), StageError> {
        let not_ours = |why: String| StageError::ForeignChange {
            key: String::from_utf8_lossy(&key[..key.len().min(64)]).into(),
            why,
        };
        let broken = |error: millrace_contracts::DecodeError| not_ours(error.to_string());
        let hour = match StateKey::parse(key) {
            Some(StateKey::Users { hour, seq, .. }) => {
                let users = UserDelta::decode(value).map_err(broken)?;
                let users = state.read_users(hour, users)?;
                state.hour(hour).kept.read_delta(seq, users);
                hour
            }
            Some(StateKey::Snapshot { hour, snapshot, chunk, .. }) => {
                let mut part = Snapshot { offset: snapshot, chunks: chunk + 1, users: 0, sketch: false };
                if let Ok(registers) = UserSketch::decode(value) {
                    state.read_registers(hour, registers)?;
                    (part.sketch, part.users) = (true, Snapshot::SKETCH_USERS);
                } else {
                    part.users = state.read_users(hour, UserDelta::decode(value).map_err(broken)?)?;
                }
                state.hour(hour).kept.read_snapshot(part);
                hour
            }
            Some(StateKey::Counters { hour, .. }) => {
                state.read_totals(hour, HourTotals::decode(value).map_err(broken)?)?;
                hour
            }
            Some(StateKey::Time(_)) => {
                state.read_time(LogTime::decode(value).map_err(broken)?);
                return Ok(());
            }
            Some(StateKey::Position(_) | StateKey::Marker(_)) | None => {
                return Err(not_ours("not a change of ours".into()));
            }
        };
        let index = state.index_of(hour);
        state.tell(index);
        state.relieve(&self.bounds)
    }

    fn replay_from(&self, state: &PartitionState) -> Option<u64> {
        state.window.map(|window| window.offset)
    }

    fn replay(&self, state: &mut PartitionState, batch: &Batch) {
        let Some(window) = state.window else { return };
        state.again = state.again.max(window.log_time_ms);
        for record in batch.iter().filter(|record| record.offset >= window.offset) {
            state.again = state.again.max(record.timestamp_ms);
            if let Ok((event, user)) = self.rules.event(state.partition, record, state.again)
                && let Some(id) = event.event_id
            {
                state.ids.see(user, id, event, record.offset, state.again);
            }
        }
        state.holdings.tell_ids(state.ids.len());
    }

    fn apply(&self, state: &mut PartitionState, batch: &Batch, step: &mut Step) -> Result<Undo, StageError> {
        let (Some(first), Some(next_offset)) = (batch.iter().next(), batch.next_offset()) else {
            return Ok(Undo {
                log_time: state.log_time,
                window: state.window,
                touched: Vec::new(),
                told: Told::default(),
            });
        };
        state.begin(first.offset, first.timestamp_ms, &self.bounds)?;
        let time = state.time();
        let mut counter =
            Counter { bounds: &self.bounds, state, touched: Vec::new(), told: Told::default(), last: None };
        for record in batch.iter() {
            let log_time = counter.state.log_time.max(record.timestamp_ms);
            counter.state.log_time = log_time;
            match self.rules.event(counter.state.partition, record, log_time) {
                Ok((event, user)) if event.event_id.is_none() || counter.is_new(event, user, record.offset) => {
                    counter.count(event, user, record.offset)?;
                }
                Ok(_) => {}
                Err(reason) => {
                    counter.told.parked[reason as usize] += 1;
                    park(counter.state.partition, record, log_time, reason, step);
                }
            }
        }
        counter.settle()?;
        counter.write(next_offset, step)?;
        let Counter { touched, told, .. } = counter;
        state.window = state.ids.window(next_offset, state.log_time);
        if state.time() != time {
            let partition = state.partition;
            step.put(Topic::STATE, partition, StateKey::Time(partition), |out| state.time().encode(out));
        }
        Ok(Undo { log_time: time.log_time_ms, window: time.window, touched, told })
    }

    fn undo(&self, state: &mut PartitionState, undo: Undo) {
        for touched in undo.touched {
            let index = touched.index;
            touched.undo(&mut state.hours[index], &mut state.scratch);
            state.tell(index);
            state.look_at(index);
        }
        state.ids.undo();
        (state.log_time, state.window) = (undo.log_time, undo.window);
    }

    fn committed(&self, state: &mut PartitionState, undo: Undo) {
        for touched in undo.touched {
            if let Some(set) = touched.set {
                set.give_back(&mut state.scratch);
            }
        }
        undo.told.tell(state.partition);
        let spilled = state.spilled();
        metrics::counter!(metric::SPILLED.name).increment(spilled - std::mem::replace(&mut state.spilled, spilled));
        state.holdings.tell_ids(state.ids.len());
    }
}

impl Told {
    fn tell(&self, partition: u32) {
        let counters = [
            (metric::COUNTED, self.counted),
            (metric::LATE, self.late),
            (metric::DUPLICATES, self.duplicates),
            (metric::CONFLICTS, self.conflicts),
            (metric::SNAPSHOTS, self.snapshots),
        ];
        for (counter, number) in counters {
            metrics::counter!(counter.name).increment(number);
        }
        for (cause, number) in [("bound", self.over_bound), ("age", self.aged)] {
            metrics::counter!(metric::SKETCH_SWITCHES.name, "cause" => cause).increment(number);
        }
        for (reason, number) in QuarantineReason::ALL.into_iter().zip(self.parked) {
            metrics::counter!(metric::QUARANTINED.name, "reason" => reason.as_str()).increment(number);
            if number > 0 {
                tracing::warn!(partition, reason = reason.as_str(), number, "records put aside into analytics.late");
            }
        }
    }
}

/// Counts the events of one step.
struct Counter<'a> {
    bounds: &'a Bounds,
    state: &'a mut PartitionState,
    touched: Vec<TouchedHour>,
    told: Told,
    /// The hour of the last event and where it stands: nearly every event is of the same hour as the one before.
    last: Option<(Hour, usize)>,
}

impl Counter<'_> {
    /// Whether an event with an id was not there before.
    #[inline(never)]
    fn is_new(&mut self, event: EventRef<'_>, user: UserHash, offset: u64) -> bool {
        let Some(id) = event.event_id else { return true };
        let seen = self.state.ids.see(user, id, event, offset, self.state.log_time);
        self.told.duplicates += u64::from(seen != Seen::Never);
        self.told.conflicts += u64::from(seen == Seen::Other);
        seen == Seen::Never || sabotaged("sabotage::skip-dedup")
    }

    #[inline]
    fn count(&mut self, event: EventRef<'_>, user: UserHash, offset: u64) -> Result<(), StageError> {
        let hour = Hour::of_ms(event.timestamp_ms);
        let index = match self.last {
            Some((last, index)) if last == hour => index,
            _ => self.state.index_of(hour),
        };
        self.last = Some((hour, index));
        let closing = self.state.closing();
        let PartitionState { hours, scratch, log_time, .. } = &mut *self.state;
        let notes = touch(&mut self.touched, hours, index);
        let (state, log_time) = (&mut hours[index], *log_time);
        if state.is_expired(log_time, self.bounds.exact_for_ms) {
            notes.sketch(state, true, scratch)?;
            self.told.aged += 1;
        }
        self.told.counted += 1;
        self.told.late += u64::from(hour < closing);
        let new = notes.count(state, (event.kind, user), (offset, log_time), scratch)?;
        if new && matches!(&state.users, Users::Set(set) if set.len() > self.bounds.exact_users) {
            notes.sketch(state, hour < closing, scratch)?;
            self.told.over_bound += 1;
        }
        Ok(())
    }

    /// Decides what else is to be done: sets that were not written for too long become sketches, and snapshots replace what
    /// is kept of users, a bounded part in each step.
    fn settle(&mut self) -> Result<(), StageError> {
        self.state.pass_time(self.bounds);
        for touched in &self.touched {
            self.state.look_at(touched.index);
        }
        let (mut bytes, mut again) = (0, Vec::new());
        while bytes < self.bounds.snapshot_bytes
            && let Some(index) = self.state.next_due()
        {
            let closed = self.state.is_closed(index);
            self.state.settle_on_disk(index);
            let hour = &self.state.hours[index];
            let expired = hour.is_expired(self.state.log_time, self.bounds.exact_for_ms);
            if expired && hour.touched.is_some() {
                // What this step counted in it, before time passed on, is told exactly. The next step looks again.
                again.push(index);
                continue;
            }
            if !expired && !hour.kept.is_due(closed, self.bounds) {
                continue;
            }
            let PartitionState { hours, scratch, .. } = &mut *self.state;
            let notes = touch(&mut self.touched, hours, index);
            if expired {
                notes.sketch(&mut hours[index], true, scratch)?;
                self.told.aged += 1;
            }
            notes.snapshot = true;
            self.told.snapshots += 1;
            bytes += hours[index].snapshot_bytes();
        }
        for index in again {
            self.state.look_at(index);
        }
        Ok(())
    }

    fn write(&mut self, next_offset: u64, step: &mut Step) -> Result<(), StageError> {
        let at = At { partition: self.state.partition, next_offset };
        for touched in &mut self.touched {
            let closed = self.state.is_closed(touched.index);
            let state = &mut self.state.hours[touched.index];
            state.touched = None;
            touched.write(state, (at, closed), step, &self.state.scratch)?;
            self.state.tell(touched.index);
            self.state.settle_on_disk(touched.index);
        }
        Ok(())
    }
}

/// The notes of an hour in this step.
#[inline]
fn touch<'a>(touched: &'a mut Vec<TouchedHour>, hours: &mut [HourState], index: usize) -> &'a mut TouchedHour {
    let hour = &mut hours[index];
    let notes = *hour.touched.get_or_insert(touched.len());
    if notes == touched.len() {
        touched.push(TouchedHour::new(index, hour));
    }
    &mut touched[notes]
}
