//! The counting stage.

use std::collections::BTreeMap;

use millrace_contracts::{
    EventRef, Exactness, GENERATION, Hour, HourCounters, HourlyCount, StateKey, Topic, UserHash, UsersSeen,
};
use millrace_log::{Batch, Record, Stage, StageError, Step};

use crate::hours::HourState;
use crate::metric;

/// Counts clicks, impressions and unique users by the event's own UTC hour, exactly.
#[derive(Debug, Default)]
pub struct Counting;

/// The state of one partition: every hour it ever counted in.
#[derive(Debug)]
pub struct PartitionState {
    partition: u32,
    /// Where an hour stands in `hours`.
    index: BTreeMap<Hour, usize>,
    hours: Vec<HourState>,
}

/// Takes one application back.
#[derive(Debug)]
pub struct Undo(Vec<TouchedHour>);

/// What one step did to one hour.
#[derive(Debug)]
struct TouchedHour {
    index: usize,
    counters_before: HourCounters,
    /// Users new to the hour, in order of appearance.
    new_users: Vec<UserHash>,
    /// Ends of the chunks of `new_users` that filled a record, each with the input offset after its last event.
    full: Vec<(usize, u64)>,
    /// The input offset after the last event that contributed.
    next_offset: u64,
}

impl PartitionState {
    /// Clicks, impressions and unique users of an hour.
    pub fn totals(&self, hour: Hour) -> (u64, u64, u64) {
        self.index.get(&hour).map_or((0, 0, 0), |&index| {
            let state = &self.hours[index];
            (state.counters.clicks, state.counters.impressions, state.unique_users())
        })
    }

    fn index_of(&mut self, hour: Hour) -> usize {
        *self.index.entry(hour).or_insert_with(|| {
            self.hours.push(HourState::new(hour));
            self.hours.len() - 1
        })
    }

    fn hour(&mut self, hour: Hour) -> &mut HourState {
        let index = self.index_of(hour);
        &mut self.hours[index]
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
        PartitionState { partition, index: BTreeMap::new(), hours: Vec::new() }
    }

    fn load(&self, state: &mut PartitionState, key: &[u8], value: &[u8]) -> Result<(), StageError> {
        let broken =
            |why: String| StageError::NotOurs { key: String::from_utf8_lossy(&key[..key.len().min(64)]).into(), why };
        match StateKey::parse(key) {
            Some(StateKey::Users { hour, .. }) => {
                let users = UsersSeen::decode(value).map_err(|error| broken(error.to_string()))?;
                let state = state.hour(hour);
                users.for_each(|user| state.add_user(user));
            }
            Some(StateKey::Counters { hour, .. }) => {
                let counters = HourCounters::decode(value).map_err(|error| broken(error.to_string()))?;
                state.hour(hour).counters = counters;
            }
            Some(StateKey::Position(_) | StateKey::Marker(_)) | None => {
                return Err(broken("not a change of ours".into()));
            }
        }
        Ok(())
    }

    fn apply(&self, state: &mut PartitionState, batch: &Batch, step: &mut Step) -> Result<Undo, StageError> {
        let mut counter = Counter { state, touched: Vec::new(), last: None };
        let mut skipped = 0;
        for record in batch.iter() {
            match event_of(record) {
                Some(event) => counter.count(event, record.offset),
                None => skipped += 1,
            }
        }
        let touched = counter.touched;
        for one in &touched {
            let hour = &mut state.hours[one.index];
            hour.touched = None;
            one.write(state.partition, hour, step);
        }
        metrics::counter!(metric::COUNTED).increment((batch.len() - skipped) as u64);
        if skipped > 0 {
            metrics::counter!(metric::SKIPPED).increment(skipped as u64);
            tracing::warn!(partition = state.partition, skipped, "records that are no events were left aside");
        }
        Ok(Undo(touched))
    }

    fn undo(&self, state: &mut PartitionState, undo: Undo) {
        for TouchedHour { index, counters_before, new_users, .. } in undo.0 {
            let hour = &mut state.hours[index];
            hour.counters = counters_before;
            for user in new_users {
                hour.remove_user(user);
            }
        }
    }
}

/// The event in a record; `None` for a foreign producer's record that is none, or whose hour has no name.
fn event_of(record: Record<'_>) -> Option<EventRef<'_>> {
    let event = EventRef::decode(record.value?).ok()?;
    let hour = Hour::of_ms(event.timestamp_ms);
    (!event.user.is_empty() && (Hour::of_ms(0)..=Hour::MAX).contains(&hour)).then_some(event)
}

/// Counts the events of one step.
struct Counter<'a> {
    state: &'a mut PartitionState,
    touched: Vec<TouchedHour>,
    /// The hour of the last event and where it stands: nearly every event is of the same hour as the one before.
    last: Option<(Hour, usize)>,
}

impl Counter<'_> {
    fn count(&mut self, event: EventRef<'_>, offset: u64) {
        let hour = Hour::of_ms(event.timestamp_ms);
        let index = match self.last {
            Some((last, index)) if last == hour => index,
            _ => self.state.index_of(hour),
        };
        self.last = Some((hour, index));
        let state = &mut self.state.hours[index];
        let notes = *state.touched.get_or_insert_with(|| {
            self.touched.push(TouchedHour {
                index,
                counters_before: state.counters,
                new_users: Vec::new(),
                full: Vec::new(),
                next_offset: 0,
            });
            self.touched.len() - 1
        });
        let notes = &mut self.touched[notes];
        let user = UserHash::of(event.user);
        if state.count(event.kind, user) {
            notes.new_users.push(user);
            if notes.new_users.len().is_multiple_of(UsersSeen::MAX_USERS) {
                notes.full.push((notes.new_users.len(), offset + 1));
            }
        }
        notes.next_offset = offset + 1;
    }
}

impl TouchedHour {
    /// Writes what changed: new users in chunks, the counters, and the absolute counts as output.
    fn write(&self, partition: u32, state: &HourState, step: &mut Step) {
        let hour = state.hour;
        let rest = (self.new_users.len(), self.next_offset);
        let mut start = 0;
        for &(end, seq) in self.full.iter().chain([&rest]) {
            if end > start {
                let users = &self.new_users[start..end];
                let key = StateKey::Users { hour, partition, seq };
                step.put(Topic::STATE, partition, key, |out| UsersSeen::encode(users, out));
            }
            start = end;
        }
        step.put(Topic::STATE, partition, StateKey::Counters { hour, partition }, |out| state.counters.encode(out));
        let count = HourlyCount {
            hour,
            partition,
            generation: GENERATION,
            next_offset: self.next_offset,
            clicks: state.counters.clicks,
            impressions: state.counters.impressions,
            unique_users: state.unique_users(),
            exactness: Exactness::Exact,
        };
        step.put(Topic::HOURLY, partition, HourlyCount::key(hour, partition), |out| count.encode(out));
    }
}
