//! The state of one partition: its hours, the storage of their users, and the maintenance between steps.

use std::collections::{BTreeMap, VecDeque};

use millrace_contracts::{Exactness, HashKey, Hour, HourTotals, IdWindow, LogTime, StateKey, Topic, UserHash};
use millrace_log::{StageError, Step};

use crate::bounds::CountingBounds;
use crate::dedup::DedupWindow;
use crate::hour::HourState;
use crate::partition_hasher::{PartitionHasher, random_key};
use crate::scratch::Scratch;
use crate::usage::PartitionUsage;
use crate::users::Users;

/// An hour is closed once log time is this far past its end.
const GRACE_HOURS: i64 = 1;
/// The users of a closed hour in memory spill once they reach this fraction (1/n) of those on disk, so each user is written
/// only a few times.
const CLOSED_SHARE: usize = 4;
/// The same fraction for any hour under memory pressure.
const PRESSURE_SHARE: usize = 8;
/// The minimum number of users to spill under memory pressure. Small: hours may be many, with few users each.
const MIN_PRESSURE_USERS: usize = 16;
/// The fraction (1/n) of the memory bound by which memory has to grow before hours are looked through again: what is left
/// after a spill may be too small to spill, or in other partitions.
const PRESSURE_GROWTH: u64 = 16;
/// The maximum number of bytes of closed hours that one step spills, exceeded by one hour at most.
const MAX_SPILL_BYTES: usize = 8 << 20;

/// The state of one partition: every hour with counts.
#[derive(Debug)]
pub struct PartitionState {
    pub(crate) partition: u32,
    /// The index of each hour in `hours`.
    index: BTreeMap<Hour, usize>,
    pub(crate) hours: Vec<HourState>,
    pub(crate) scratch: Scratch,
    pub(crate) usage: PartitionUsage,
    pub(crate) ids: DedupWindow,
    /// The latest timestamp that the log assigned to a record.
    pub(crate) log_time: i64,
    /// The start of the deduplication window, as last written.
    pub(crate) window: Option<IdWindow>,
    /// The log time of the replay.
    pub(crate) replay_time: i64,
    /// Hours before this one are closed.
    first_open: Hour,
    /// No set expires before this log time.
    next_expiry: i64,
    /// Indexes of hours whose changelog may need a snapshot.
    queue: VecDeque<usize>,
    /// Indexes of hours that may need to spill before the next step.
    spill_queue: Vec<usize>,
    /// Bytes of memory of the process below which no open hour is spilled.
    spill_above: u64,
    /// Bytes written to disk, as last added to the counter.
    pub(crate) reported_spilled: u64,
    /// Whether no step has run since the restore.
    fresh: bool,
    /// Whether a restore has loaded anything.
    pub(crate) restored: bool,
    hasher: PartitionHasher,
    /// The partition's hash key; `None` before the first step, and in state of an earlier version.
    key: Option<HashKey>,
    /// Whether the log has the key.
    key_recorded: bool,
}

impl PartitionState {
    pub(crate) fn new(partition: u32, scratch: Scratch, usage: PartitionUsage, bounds: &CountingBounds) -> Self {
        Self {
            partition,
            index: BTreeMap::new(),
            hours: Vec::new(),
            scratch,
            usage,
            ids: DedupWindow::new(bounds.max_dedup_records, bounds.dedup_window_ms),
            log_time: 0,
            window: None,
            replay_time: 0,
            first_open: Hour::of_ms(0),
            next_expiry: 0,
            queue: VecDeque::new(),
            spill_queue: Vec::new(),
            spill_above: bounds.max_memory,
            reported_spilled: 0,
            fresh: true,
            restored: false,
            hasher: PartitionHasher::Unkeyed,
            key: None,
            key_recorded: false,
        }
    }

    /// The hashes of users and event ids.
    #[inline]
    pub(crate) fn hasher(&self) -> &PartitionHasher {
        &self.hasher
    }

    /// Adopts the restored hash key.
    pub(crate) fn restore_key(&mut self, key: &HashKey) {
        self.hasher = PartitionHasher::keyed(key);
        (self.key, self.key_recorded) = (Some(key.clone()), true);
    }

    /// Writes the hash key with the first step of a partition without state: `key`, or a random one. Returns whether it did.
    pub(crate) fn record_key(&mut self, key: Option<&HashKey>, step: &mut Step) -> Result<bool, StageError> {
        if self.key_recorded {
            return Ok(false);
        }
        let key = match (&self.key, key) {
            // Other hashes would count the users of its hours again.
            (None, _) if self.restored => {
                tracing::warn!(
                    partition = self.partition,
                    "the partition's state is of a version without hash keys: whoever can compute collisions of its public \
                     hash can falsify its unique users; docs/security.md has the way to new state"
                );
                self.key_recorded = true;
                return Ok(false);
            }
            (Some(key), _) | (None, Some(key)) => key.clone(),
            (None, None) => random_key()?,
        };
        self.hasher = PartitionHasher::keyed(&key);
        step.put(Topic::STATE, self.partition, StateKey::HashKey(self.partition), |out| key.encode(out));
        (self.key, self.key_recorded) = (Some(key), true);
        Ok(true)
    }

    /// The step that recorded the key was undone: the next one records it again.
    pub(crate) fn forget_key_record(&mut self) {
        self.key_recorded = false;
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
        self.usage.process_bytes()
    }

    /// Bytes written to disk to save memory, in total.
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

    /// Whether an hour is closed, as of the last step.
    pub(crate) fn is_closed(&self, index: usize) -> bool {
        self.hours[index].hour < self.first_open
    }

    /// The first hour that is not closed.
    pub(crate) fn first_open(&self) -> Hour {
        self.first_open
    }

    /// Reports the memory of an hour.
    pub(crate) fn report(&mut self, index: usize) {
        let state = &mut self.hours[index];
        self.usage.report(&mut state.usage, &state.users);
    }

    /// Queues an hour for maintenance at the end of a step.
    pub(crate) fn enqueue(&mut self, index: usize) {
        if !std::mem::replace(&mut self.hours[index].queued, true) {
            self.queue.push_back(index);
        }
    }

    /// Takes the next hour off the maintenance queue.
    pub(crate) fn next_queued(&mut self) -> Option<usize> {
        let index = self.queue.pop_front()?;
        self.hours[index].queued = false;
        Some(index)
    }

    /// Queues an hour for a spill before the next step.
    pub(crate) fn enqueue_spill(&mut self, index: usize) {
        self.spill_queue.push(index);
    }

    /// The record of log time and deduplication window.
    pub(crate) fn time(&self) -> LogTime {
        LogTime { log_time_ms: self.log_time, window: self.window }
    }

    /// Prepares for a step that starts at `offset`. The previous step is final: committed or undone.
    pub(crate) fn begin_step(
        &mut self,
        offset: u64,
        timestamp_ms: i64,
        bounds: &CountingBounds,
    ) -> Result<(), StageError> {
        if std::mem::take(&mut self.fresh) {
            self.finish_restore(self.log_time.max(timestamp_ms));
        }
        self.ids.begin(offset, self.log_time);
        let mut bytes = 0;
        for index in std::mem::take(&mut self.spill_queue) {
            let closed = self.is_closed(index);
            let state = &mut self.hours[index];
            match &mut state.users {
                // Undo reverts changes in memory only, so those to a sketch on disk are written before the next step.
                Users::Sketch(sketch) if closed || !sketch.in_memory() => sketch.spill(&mut self.scratch)?,
                users @ Users::Set(_) if closed && users.spill_gain(bounds.min_spill_users, CLOSED_SHARE).is_some() => {
                    if bytes > MAX_SPILL_BYTES {
                        self.spill_queue.push(index);
                        continue;
                    }
                    users.spill(&mut self.scratch)?;
                    bytes += state.snapshot_bytes();
                }
                Users::Sketch(_) | Users::Set(_) => continue,
            }
            self.report(index);
        }
        self.free_memory(bounds)
    }

    /// Adds restored users. Returns their number.
    pub(crate) fn restore_users(
        &mut self,
        hour: Hour,
        users: impl Iterator<Item = UserHash>,
    ) -> Result<u64, StageError> {
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

    /// Merges restored registers.
    pub(crate) fn restore_registers(
        &mut self,
        hour: Hour,
        registers: impl Iterator<Item = (u16, u8)>,
    ) -> Result<(), StageError> {
        let index = self.index_of(hour);
        let state = &mut self.hours[index];
        state.convert_to_sketch(&mut self.scratch)?;
        if let Users::Sketch(sketch) = &mut state.users {
            for (number, value) in registers {
                sketch.raise(number, value, &self.scratch)?;
            }
        }
        Ok(())
    }

    /// Merges restored totals.
    pub(crate) fn restore_totals(&mut self, hour: Hour, totals: HourTotals) -> Result<(), StageError> {
        let index = self.index_of(hour);
        self.hours[index].restore_totals(totals, &mut self.scratch)
    }

    /// Adopts a restored log time if it is the latest.
    pub(crate) fn restore_time(&mut self, time: LogTime) {
        if time.log_time_ms >= self.log_time {
            (self.log_time, self.window) = (time.log_time_ms, time.window);
        }
    }

    /// Ends a restore.
    fn finish_restore(&mut self, log_time: i64) {
        self.first_open = Hour::of_ms(log_time).plus(-GRACE_HOURS);
        for index in 0..self.hours.len() {
            let closed = self.is_closed(index);
            let state = &mut self.hours[index];
            if state.totals.written_at_ms == HourTotals::UNKNOWN {
                state.totals.written_at_ms = log_time;
            }
            state.changelog.finish_restore(closed, matches!(state.users, Users::Sketch(_)));
            self.spill_queue.push(index);
            self.enqueue(index);
        }
    }

    /// Spills users to disk while the process exceeds its memory bound, largest sets first.
    pub(crate) fn free_memory(&mut self, bounds: &CountingBounds) -> Result<(), StageError> {
        let bytes = self.usage.process_bytes();
        if bytes <= bounds.max_memory {
            self.spill_above = bounds.max_memory;
        }
        if bytes <= self.spill_above {
            return Ok(());
        }
        let least = MIN_PRESSURE_USERS.min(bounds.min_spill_users);
        let gains = self.hours.iter().enumerate();
        let gains = gains.filter_map(|(index, state)| Some((state.users.spill_gain(least, PRESSURE_SHARE)?, index)));
        let mut gains: Vec<(usize, usize)> = gains.collect();
        gains.sort_unstable();
        // Down to 7/8 of the bound, so that not every step has to spill.
        while self.usage.process_bytes() > bounds.max_memory / 8 * 7
            && let Some((_, index)) = gains.pop()
        {
            self.hours[index].users.spill(&mut self.scratch)?;
            self.report(index);
        }
        let growth = bounds.max_memory / PRESSURE_GROWTH;
        self.spill_above = bounds.max_memory.max(self.usage.process_bytes() + growth);
        Ok(())
    }

    /// Queues hours that closed or expired during a step.
    pub(crate) fn advance_time(&mut self, bounds: &CountingBounds) {
        let first_open = Hour::of_ms(self.log_time).plus(-GRACE_HOURS);
        if first_open > self.first_open {
            let closed: Vec<usize> = self.index.range(self.first_open..first_open).map(|(_, &index)| index).collect();
            self.first_open = first_open;
            for index in closed {
                self.enqueue(index);
            }
        }
        if self.log_time > self.next_expiry {
            self.next_expiry = self.log_time.saturating_add(bounds.evict_after_ms);
            for index in 0..self.hours.len() {
                let totals = self.hours[index].totals;
                if self.hours[index].is_expired(self.log_time, bounds.evict_after_ms) {
                    self.enqueue(index);
                } else if totals.sketched.is_none() && totals.written_at_ms != HourTotals::UNKNOWN {
                    self.next_expiry = self.next_expiry.min(totals.written_at_ms.saturating_add(bounds.evict_after_ms));
                }
            }
        }
    }
}
