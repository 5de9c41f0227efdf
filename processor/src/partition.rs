//! The state of one partition: its hours, where their users are, and what is to be done about them between steps.

use std::collections::{BTreeMap, VecDeque};

use millrace_contracts::{Exactness, Hour, HourTotals, IdWindow, LogTime, UserHash};
use millrace_log::StageError;

use crate::config::Bounds;
use crate::hours::HourState;
use crate::ids::Ids;
use crate::memory::Holdings;
use crate::scratch::Scratch;
use crate::users::Users;

/// An hour is over when log time is this far past its end.
const GRACE_HOURS: i64 = 1;
/// A closed hour's users go to disk when those in memory are this share of those on disk: each is written a few times.
const CLOSED_SHARE: usize = 4;
/// The same when memory is short, of any hour.
const SHORT_SHARE: usize = 8;
/// The least number of users that is moved to disk when memory is short.
const SHORT_USERS: usize = 128;
/// Bytes of closed hours after which a step moves no more of them to disk.
const SPILL_BYTES: usize = 8 << 20;

/// The state of one partition: every hour it ever counted in.
#[derive(Debug)]
pub struct PartitionState {
    pub(crate) partition: u32,
    /// Where an hour stands in `hours`.
    index: BTreeMap<Hour, usize>,
    pub(crate) hours: Vec<HourState>,
    pub(crate) scratch: Scratch,
    pub(crate) holdings: Holdings,
    pub(crate) ids: Ids,
    /// The latest timestamp that the log gave to a record.
    pub(crate) log_time: i64,
    /// The window of event ids, as it was written last.
    pub(crate) window: Option<IdWindow>,
    /// The log time of what is looked at again.
    pub(crate) again: i64,
    /// Hours before this one are over.
    closing: Hour,
    /// No set is due to become a sketch before this log time.
    next_expiry: i64,
    /// Hours of which what is kept in the log is to be looked at.
    due: VecDeque<usize>,
    /// Hours that are to be moved to disk, if they still should.
    to_disk: Vec<usize>,
    /// Bytes written to disk that were told.
    pub(crate) spilled: u64,
    /// Whether everything was read back and nothing has been counted since.
    fresh: bool,
}

impl PartitionState {
    pub(crate) fn new(partition: u32, scratch: Scratch, holdings: Holdings, bounds: &Bounds) -> Self {
        Self {
            partition,
            index: BTreeMap::new(),
            hours: Vec::new(),
            scratch,
            holdings,
            ids: Ids::new(bounds.dedup_records, bounds.dedup_window_ms),
            log_time: 0,
            window: None,
            again: 0,
            closing: Hour::of_ms(0),
            next_expiry: 0,
            due: VecDeque::new(),
            to_disk: Vec::new(),
            spilled: 0,
            fresh: true,
        }
    }

    /// Clicks, impressions and unique users of an hour, and whether the last are exact.
    pub fn totals(&self, hour: Hour) -> Result<(u64, u64, u64, Exactness), StageError> {
        let Some(&index) = self.index.get(&hour) else { return Ok((0, 0, 0, Exactness::Exact)) };
        let state = &self.hours[index];
        let HourTotals { clicks, impressions, .. } = state.totals;
        Ok((clicks, impressions, state.unique_users(&self.scratch)?, state.exactness()))
    }

    /// Bytes of memory of the users of all hours, in all partitions of the process.
    pub fn memory(&self) -> u64 {
        self.holdings.of_process()
    }

    /// Bytes ever written to disk to save memory.
    pub fn spilled(&self) -> u64 {
        self.scratch.written()
    }

    pub(crate) fn index_of(&mut self, hour: Hour) -> usize {
        *self.index.entry(hour).or_insert_with(|| {
            self.hours.push(HourState::new(hour));
            self.hours.len() - 1
        })
    }

    pub(crate) fn hour(&mut self, hour: Hour) -> &mut HourState {
        let index = self.index_of(hour);
        &mut self.hours[index]
    }

    /// Whether an hour is over, as of the last step.
    pub(crate) fn is_closed(&self, index: usize) -> bool {
        self.hours[index].hour < self.closing
    }

    /// The first hour that is not over.
    pub(crate) fn closing(&self) -> Hour {
        self.closing
    }

    /// Tells what an hour holds by now.
    pub(crate) fn tell(&mut self, index: usize) {
        let state = &mut self.hours[index];
        self.holdings.tell(&mut state.told, &state.users);
    }

    /// Looks at what is kept of an hour at the end of a step.
    pub(crate) fn look_at(&mut self, index: usize) {
        if !std::mem::replace(&mut self.hours[index].queued, true) {
            self.due.push_back(index);
        }
    }

    /// The next hour to be looked at.
    pub(crate) fn next_due(&mut self) -> Option<usize> {
        let index = self.due.pop_front()?;
        self.hours[index].queued = false;
        Some(index)
    }

    /// Moves an hour to disk before the next step, if it should be there by then.
    pub(crate) fn settle_on_disk(&mut self, index: usize) {
        self.to_disk.push(index);
    }

    /// The log time, as it is to be written.
    pub(crate) fn time(&self) -> LogTime {
        LogTime { log_time_ms: self.log_time, window: self.window }
    }

    /// Before the first record of a step, at `offset`. The last step holds, or was taken back.
    pub(crate) fn begin(&mut self, offset: u64, timestamp_ms: i64, bounds: &Bounds) -> Result<(), StageError> {
        if std::mem::take(&mut self.fresh) {
            self.restored(self.log_time.max(timestamp_ms));
        }
        self.ids.begin(offset, self.log_time);
        let mut bytes = 0;
        for index in std::mem::take(&mut self.to_disk) {
            let closed = self.is_closed(index);
            let state = &mut self.hours[index];
            match &mut state.users {
                // One on disk has changed: a step that is taken back takes back what is in memory.
                Users::Sketch(sketch) if closed || !sketch.in_memory() => sketch.spill(&mut self.scratch)?,
                users @ Users::Set(_) if closed && users.gain(bounds.spill_users, CLOSED_SHARE).is_some() => {
                    if bytes > SPILL_BYTES {
                        self.to_disk.push(index);
                        continue;
                    }
                    users.spill(&mut self.scratch)?;
                    bytes += state.snapshot_bytes();
                }
                Users::Sketch(_) | Users::Set(_) => continue,
            }
            self.tell(index);
        }
        self.relieve(bounds)
    }

    /// Takes up users that were read back; their number.
    pub(crate) fn read_users(&mut self, hour: Hour, users: impl Iterator<Item = UserHash>) -> Result<u64, StageError> {
        let index = self.index_of(hour);
        let mut number = 0;
        for user in users {
            number += 1;
            match &mut self.hours[index].users {
                Users::Set(set) => {
                    set.insert(user, &self.scratch)?;
                }
                Users::Sketch(sketch) => {
                    sketch.insert(user, &self.scratch)?;
                }
            }
        }
        Ok(number)
    }

    /// Takes up registers that were read back.
    pub(crate) fn read_registers(
        &mut self,
        hour: Hour,
        registers: impl Iterator<Item = (u16, u8)>,
    ) -> Result<(), StageError> {
        let index = self.index_of(hour);
        let state = &mut self.hours[index];
        state.read_sketch(&mut self.scratch)?;
        if let Users::Sketch(sketch) = &mut state.users {
            for (number, value) in registers {
                sketch.raise(number, value, &self.scratch)?;
            }
        }
        Ok(())
    }

    /// Takes up totals that were read back.
    pub(crate) fn read_totals(&mut self, hour: Hour, totals: HourTotals) -> Result<(), StageError> {
        let index = self.index_of(hour);
        self.hours[index].read_totals(totals, &mut self.scratch)
    }

    /// Takes up the log time that was read back, the latest.
    pub(crate) fn read_time(&mut self, time: LogTime) {
        if time.log_time_ms >= self.log_time {
            (self.log_time, self.window) = (time.log_time_ms, time.window);
        }
    }

    /// After everything was read back.
    fn restored(&mut self, log_time: i64) {
        self.closing = Hour::of_ms(log_time).plus(-GRACE_HOURS);
        for index in 0..self.hours.len() {
            let closed = self.is_closed(index);
            let state = &mut self.hours[index];
            if state.totals.written_at_ms == HourTotals::UNKNOWN {
                state.totals.written_at_ms = log_time;
            }
            state.kept.read(closed, matches!(state.users, Users::Sketch(_)));
            self.to_disk.push(index);
            self.look_at(index);
        }
    }

    /// Moves users to disk while the process holds too much memory, the most first.
    pub(crate) fn relieve(&mut self, bounds: &Bounds) -> Result<(), StageError> {
        if self.holdings.of_process() <= bounds.memory {
            return Ok(());
        }
        let least = SHORT_USERS.min(bounds.spill_users);
        let gains = self.hours.iter().enumerate();
        let gains = gains.filter_map(|(index, state)| Some((state.users.gain(least, SHORT_SHARE)?, index)));
        let mut gains: Vec<(usize, usize)> = gains.collect();
        gains.sort_unstable();
        // A little more than needed, so that not every step has to.
        while self.holdings.of_process() > bounds.memory / 8 * 7
            && let Some((_, index)) = gains.pop()
        {
            self.hours[index].users.spill(&mut self.scratch)?;
            self.tell(index);
        }
        Ok(())
    }

    /// After the records of a step: hours that are over by now, and those that are due to become sketches, are looked at.
    pub(crate) fn pass_time(&mut self, bounds: &Bounds) {
        let closing = Hour::of_ms(self.log_time).plus(-GRACE_HOURS);
        if closing > self.closing {
            let over: Vec<usize> = self.index.range(self.closing..closing).map(|(_, &index)| index).collect();
            self.closing = closing;
            for index in over {
                self.look_at(index);
            }
        }
        if self.log_time > self.next_expiry {
            self.next_expiry = self.log_time.saturating_add(bounds.exact_for_ms);
            for index in 0..self.hours.len() {
                let totals = self.hours[index].totals;
                if self.hours[index].is_expired(self.log_time, bounds.exact_for_ms) {
                    self.look_at(index);
                } else if totals.sketched.is_none() && totals.written_at_ms != HourTotals::UNKNOWN {
                    self.next_expiry = self.next_expiry.min(totals.written_at_ms.saturating_add(bounds.exact_for_ms));
                }
            }
        }
    }
}
