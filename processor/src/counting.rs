//! The counting stage: the log calls it with batches, and with changes during a restore.

use std::path::PathBuf;
use std::sync::Arc;

use millrace_contracts::{
    CountedPosition, DecodeError, EventWindow, HashKey, HourTotals, IdWindow, LogTime, QuarantineReason, StateKey,
    Topic, UserDelta, UserSketch, metric,
};
use millrace_log::{Batch, Stage, StageError, Step};
use tokio::sync::watch;

use crate::bounds::CountingBounds;
use crate::changelog::Snapshot;
use crate::counter::Counter;
use crate::disagreement::Disagreement;
use crate::hour::HourStep;
use crate::partition::PartitionState;
use crate::quarantine::{EventFilter, quarantine};
use crate::scratch::Scratch;
use crate::stats::StepStats;
use crate::usage::{PartitionUsage, ProcessUsage};

/// The longest part of a foreign key that an error repeats, in bytes.
const MAX_KEY_ECHO: usize = 64;

/// Counts clicks, impressions and unique users by the UTC hour of the event: each event once, users exactly up to a bound.
#[derive(Debug)]
pub struct Counting {
    filter: EventFilter,
    bounds: CountingBounds,
    scratch: PathBuf,
    usage: Arc<ProcessUsage>,
    disagreement: Disagreement,
    /// The key of new partitions, instead of a random one.
    hash_key: Option<HashKey>,
}

/// What it takes to undo one step.
#[derive(Debug)]
pub struct Undo {
    log_time: i64,
    window: Option<IdWindow>,
    hours: Vec<HourStep>,
    stats: StepStats,
    /// Whether the step recorded the partition's hash key.
    recorded_key: bool,
}

impl Undo {
    /// The statistics of the step.
    pub fn stats(&self) -> &StepStats {
        &self.stats
    }
}

impl Counting {
    /// A stage for an input of `partitions` partitions. `scratch`: the directory of scratch files; empty for the system's
    /// temporary directory.
    pub fn new(partitions: u32, window: EventWindow, bounds: CountingBounds, scratch: PathBuf) -> Self {
        // Creates the series: a rate over a series that first appears with a count misses that count.
        StepStats::default().record(0);
        metrics::counter!(metric::SPILLED.name).increment(0);
        Self {
            filter: EventFilter::new(partitions, window),
            bounds,
            scratch,
            usage: Arc::default(),
            disagreement: Disagreement::new(window),
            hash_key: None,
        }
    }

    /// Hashes with this key in partitions that have no state yet. For tests, whose sketches must not differ from run to run.
    #[must_use]
    pub fn with_hash_key(self, key: HashKey) -> Self {
        Self { hash_key: Some(key), ..self }
    }

    /// Becomes true once a step has quarantined events that contradict the settings of this process.
    pub fn disagreement(&self) -> watch::Receiver<bool> {
        self.disagreement.subscribe()
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

    fn outputs(&self) -> &'static [Topic] {
        &[Topic::HOURLY, Topic::LATE]
    }

    fn new_state(&self, partition: u32) -> PartitionState {
        let usage = PartitionUsage::new(self.usage.clone());
        PartitionState::new(partition, Scratch::new(self.scratch.clone()), usage, &self.bounds)
    }

    fn load(&self, state: &mut PartitionState, key: &[u8], value: &[u8]) -> Result<(), StageError> {
        let foreign = |why: String| StageError::ForeignChange {
            key: String::from_utf8_lossy(&key[..key.len().min(MAX_KEY_ECHO)]).into(),
            why,
        };
        state.restored = true;
        let undecodable = |error: DecodeError| foreign(error.to_string());
        let hour = match StateKey::parse(key) {
            Some(StateKey::Users { hour, seq, .. }) => {
                let users = UserDelta::decode(value).map_err(undecodable)?;
                let users = state.restore_users(hour, users)?;
                state.hour(hour).changelog.add_delta(seq, users);
                hour
            }
            Some(StateKey::Snapshot { hour, snapshot, chunk, .. }) => {
                let mut part = Snapshot { offset: snapshot, chunks: chunk + 1, users: 0, sketch: false };
                if let Ok(registers) = UserSketch::decode(value) {
                    state.restore_registers(hour, registers)?;
                    (part.sketch, part.users) = (true, Snapshot::SKETCH_USERS);
                } else {
                    part.users = state.restore_users(hour, UserDelta::decode(value).map_err(undecodable)?)?;
                }
                state.hour(hour).changelog.add_chunk(part);
                hour
            }
            Some(StateKey::Counters { hour, .. }) => {
                state.restore_totals(hour, HourTotals::decode(value).map_err(undecodable)?)?;
                hour
            }
            Some(StateKey::Time(_)) => {
                state.restore_time(LogTime::decode(value).map_err(undecodable)?);
                return Ok(());
            }
            Some(StateKey::HashKey(_)) => {
                state.restore_key(&HashKey::decode(value).map_err(undecodable)?);
                return Ok(());
            }
            None => return Err(foreign("not a key of the counting state".into())),
        };
        let index = state.index_of(hour);
        state.report(index);
        state.free_memory(&self.bounds)
    }

    fn replay_from(&self, state: &PartitionState) -> Option<u64> {
        state.window.map(|window| window.offset)
    }

    fn replay(&self, state: &mut PartitionState, batch: &Batch) {
        let Some(window) = state.window else { return };
        state.replay_time = state.replay_time.max(window.log_time_ms);
        for record in batch.iter().filter(|record| record.offset >= window.offset) {
            state.replay_time = state.replay_time.max(record.timestamp_ms);
            if let Ok(event) = self.filter.event(state.partition, record, state.replay_time)
                && let Some(id) = event.event_id
            {
                let hasher = state.hasher();
                let key = hasher.event_id(hasher.user(event.user), id);
                state.ids.observe(key, event, record.offset, state.replay_time);
            }
        }
        state.usage.report_ids(state.ids.len());
    }

    fn apply(&self, state: &mut PartitionState, batch: &Batch, step: &mut Step) -> Result<Undo, StageError> {
        let (Some((first, _)), Some(next_offset)) = (batch.iter_with_repeats().next(), batch.next_offset()) else {
            let (log_time, window) = (state.log_time, state.window);
            let (hours, stats) = (Vec::new(), StepStats::default());
            return Ok(Undo { log_time, window, hours, stats, recorded_key: false });
        };
        let recorded_key = state.record_key(self.hash_key.as_ref(), step)?;
        state.begin_step(first.offset, first.timestamp_ms, &self.bounds)?;
        let time = state.time();
        let mut counter = Counter::new(&self.bounds, state);
        for (record, repeat) in batch.iter_with_repeats() {
            let log_time = counter.state.log_time.max(record.timestamp_ms);
            counter.state.log_time = log_time;
            match self.filter.event(counter.state.partition, record, log_time) {
                Ok(event) => {
                    let user = counter.state.hasher().user(event.user);
                    if repeat {
                        counter.renew(event, user, record.offset);
                    } else if event.event_id.is_none() || counter.is_new(event, user, record.offset) {
                        counter.count(event, user, record.offset)?;
                    }
                }
                Err(_) if repeat => {}
                Err(reason) => {
                    counter.stats.quarantined[reason as usize] += 1;
                    if reason == QuarantineReason::OutsideWindow && self.filter.contradicts_command(record) {
                        counter.stats.contradictions += 1;
                    }
                    quarantine(counter.state.partition, record, log_time, reason, step);
                }
            }
        }
        counter.maintain(step)?;
        counter.write(next_offset, step)?;
        let Counter { hours, stats, .. } = counter;
        // Last, so that whoever has it has all counts of the step.
        let counted = CountedPosition { partition: state.partition, next_offset, log_time_ms: state.log_time };
        step.put(Topic::HOURLY, state.partition, CountedPosition::key(state.partition), |out| counted.encode(out));
        state.window = state.ids.window(next_offset, state.log_time);
        if state.time() != time {
            let partition = state.partition;
            step.put(Topic::STATE, partition, StateKey::Time(partition), |out| state.time().encode(out));
        }
        Ok(Undo { log_time: time.log_time_ms, window: time.window, hours, stats, recorded_key })
    }

    fn undo(&self, state: &mut PartitionState, undo: Undo) {
        for hour in undo.hours {
            let index = hour.index;
            hour.undo(&mut state.hours[index], &mut state.scratch);
            state.report(index);
            state.enqueue(index);
        }
        state.ids.undo();
        if undo.recorded_key {
            state.forget_key_record();
        }
        (state.log_time, state.window) = (undo.log_time, undo.window);
    }

    fn committed(&self, state: &mut PartitionState, undo: Undo) {
        for hour in undo.hours {
            if let Some(set) = hour.set {
                set.release(&mut state.scratch);
            }
        }
        undo.stats.record(state.partition);
        self.disagreement.record(state.partition, undo.stats.contradictions);
        let spilled = state.spilled();
        let reported = std::mem::replace(&mut state.reported_spilled, spilled);
        metrics::counter!(metric::SPILLED.name).increment(spilled - reported);
        state.usage.report_ids(state.ids.len());
    }
}
