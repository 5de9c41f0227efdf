//! What the intake stage remembers of one partition, and its decision about each message.

use millrace_contracts::{ClientRanges, IntakeKey, IntakeMessage, IntakeProgress, Sender, Series, Topic};
use millrace_log::{Step, sabotaged};

use super::arrivals::{Arrivals, Memory};
use super::clients::{ClientMemory, Clients};
use super::ranges::Ranges;
use super::series::{Continuation, FORGET_AT_ONCE, QUEUE_SPACING_MS, SeriesTable, SeriesUndo};

/// How much is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DedupBounds {
    /// An arrival counts while it is among its client's last so many. A client has up to 1,024 frames without an answer; the
    /// log may hold each of them several times, and a frame that is sent again is an arrival, too.
    pub client_window: u32,
    /// and among the last so many records of its partition.
    pub partition_window: u64,
    /// A client's ranges are forgotten after so many ms of log time without a record.
    pub ranges_ttl_ms: i64,
    /// A series is forgotten after so many ms of log time without a record.
    pub series_ttl_ms: i64,
}

impl Default for DedupBounds {
    fn default() -> Self {
        Self {
            client_window: 4_096,
            partition_window: 1_000_000,
            ranges_ttl_ms: 7 * 24 * 3_600_000,
            series_ttl_ms: 3_600_000,
        }
    }
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It goes to the journal.
    New,
    /// It goes to the journal, although its number was used for other bytes.
    SeqReused,
    /// It was there before.
    Duplicate,
    /// A frame before it is missing, so it has no acknowledgment; the client sends it again.
    Behind,
}

/// What is remembered of one partition of `intake`.
#[derive(Debug)]
pub struct IntakeState {
    partition: u32,
    bounds: DedupBounds,
    log_time: i64,
    replay_from: u64,
    clients: Clients,
    arrivals: Arrivals,
    series: SeriesTable,
    /// The queue of clients is not sorted: changes were loaded in no order.
    unsorted: bool,
    /// Counts steps.
    step: u64,
    /// The client of the last message: most messages are of the same client as the one before.
    last_client: Option<u32>,
}

/// Takes the newest step back.
#[derive(Debug)]
pub(super) struct StepUndo {
    log_time: i64,
    replay_from: u64,
    arrivals: usize,
    /// With the log time they were queued at.
    clients: Vec<(u32, ClientMemory, i64)>,
    series: SeriesUndo,
}

impl IntakeState {
    pub(super) fn new(partition: u32, bounds: DedupBounds) -> Self {
        Self {
            partition,
            bounds,
            log_time: 0,
            replay_from: 0,
            clients: Clients::default(),
            arrivals: Arrivals::new(bounds.client_window, bounds.partition_window),
            series: SeriesTable::new(bounds.series_ttl_ms),
            unsorted: false,
            step: 0,
            last_client: None,
        }
    }

    pub(super) fn partition(&self) -> u32 {
        self.partition
    }

    /// Takes up a client's ranges as they were written.
    pub(super) fn load_ranges(&mut self, sender: Sender<'_>, loaded: ClientRanges) {
        let slot = self.clients.slot(sender);
        let client = self.clients.get_mut(slot);
        let highest = loaded.ranges.iter().map(|range| range.last).max().unwrap_or(0);
        client.memory = ClientMemory { ranges: Ranges::new(loaded.ranges), log_time: loaded.log_time_ms, highest };
        client.queued = loaded.log_time_ms;
        self.clients.queue.push_back((loaded.log_time_ms, slot));
        self.unsorted = true;
    }

    /// Takes up a series as it was written.
    pub(super) fn load_series(&mut self, nonce: u64, series: Series) {
        self.series.load(nonce, series);
    }

    pub(super) fn load_progress(&mut self, progress: IntakeProgress) {
        self.log_time = progress.log_time_ms;
        self.replay_from = progress.replay_from;
    }

    /// From where on arrivals are to be read again.
    pub(super) fn replay_from(&self) -> u64 {
        self.replay_from
    }

    /// Adds an arrival that the state contains, but for its arrivals.
    pub(super) fn replay(&mut self, message: &IntakeMessage<'_>, offset: u64) {
        // What follows a missing index was dropped. Its series is remembered as long as its records are replayed.
        if self.series.has_dropped(message, offset) {
            return;
        }
        let slot = self.clients.slot(message.sender);
        self.arrive(slot, message, offset);
    }

    /// Begins the step whose first record is at `offset`: the step before holds.
    pub(super) fn begin(&mut self, offset: u64) -> StepUndo {
        self.step += 1;
        if std::mem::take(&mut self.unsorted) {
            self.clients.queue.make_contiguous().sort_unstable();
        }
        while let Some(slot) = self.arrivals.forget(offset) {
            let client = self.clients.get_mut(slot);
            client.held -= 1;
            if client.held == 0 {
                self.clients.may_be_free(slot);
            }
        }
        self.last_client = None;
        self.clients.free();
        StepUndo {
            log_time: self.log_time,
            replay_from: self.replay_from,
            arrivals: self.arrivals.len(),
            clients: Vec::new(),
            series: self.series.begin(),
        }
    }

    /// Time passes, whatever the record is.
    pub(super) fn pass_time(&mut self, timestamp_ms: i64) {
        self.log_time = self.log_time.max(timestamp_ms);
    }

    /// Decides about the message at `offset`. Offsets rise.
    pub(super) fn decide(&mut self, message: &IntakeMessage<'_>, offset: u64, undo: &mut StepUndo) -> (Decision, bool) {
        let window_start = self.arrivals.window_start(offset);
        let continuation = self.series.note(message, offset, window_start, self.log_time, &mut undo.series);
        if continuation == Continuation::Behind && !sabotaged("sabotage::ignore-missing-index") {
            return (Decision::Behind, false);
        }
        let slot = self.slot_of(message.sender);
        self.save_client(slot, undo);
        let log_time = self.log_time;
        let ranges_ttl_ms = self.bounds.ranges_ttl_ms;
        let client = self.clients.get_mut(slot);
        let memory = &mut client.memory;
        if memory.log_time < log_time - ranges_ttl_ms {
            (memory.ranges, memory.highest) = (Ranges::default(), 0);
        }
        memory.log_time = log_time;
        let gap = memory.highest > 0 && message.seq > memory.highest + 1;
        memory.highest = memory.highest.max(message.seq);
        let recalled = self.arrivals.recall(slot, client.ordinal, message.seq, message.crc32c, offset);
        let in_ranges = client.memory.ranges.contains(message.seq) && !sabotaged("sabotage::forget-ranges");
        let decision = match recalled {
            _ if continuation == Continuation::Repeated => Decision::Duplicate,
            Memory::Same => Decision::Duplicate,
            Memory::Other => Decision::SeqReused,
            Memory::None if in_ranges => Decision::Duplicate,
            Memory::None => Decision::New,
        };
        let journaled = matches!(decision, Decision::New | Decision::SeqReused);
        if journaled && client.epoch.is_some() && !client.memory.ranges.contains(message.seq) {
            client.memory.ranges.insert(message.seq);
        }
        self.arrive(slot, message, offset);
        (decision, gap && decision == Decision::New)
    }

    fn arrive(&mut self, slot: u32, message: &IntakeMessage<'_>, offset: u64) {
        let client = self.clients.get_mut(slot);
        self.arrivals.push(slot, client.ordinal, message.seq, message.crc32c, offset);
        client.ordinal = client.ordinal.wrapping_add(1);
        client.held += 1;
    }

    fn slot_of(&mut self, sender: Sender<'_>) -> u32 {
        match self.last_client {
            Some(slot) if self.clients.get(slot).sender() == sender => slot,
            _ => {
                let slot = self.clients.slot(sender);
                self.last_client = Some(slot);
                slot
            }
        }
    }

    fn save_client(&mut self, slot: u32, undo: &mut StepUndo) {
        let step = self.step;
        let client = self.clients.get_mut(slot);
        if client.saved_in != step {
            client.saved_in = step;
            undo.clients.push((slot, client.memory.clone(), client.queued));
        }
    }

    /// Ends the step: writes what changed, and forgets what is too old.
    pub(super) fn end(&mut self, next_offset: u64, undo: &mut StepUndo, step: &mut Step) {
        let touched = undo.clients.len();
        self.forget_ranges(undo);
        let (partition, log_time) = (self.partition, self.log_time);
        for (at, &(slot, ..)) in undo.clients.iter().enumerate() {
            let client = self.clients.get_mut(slot);
            let Some(key) = IntakeKey::ranges_of(partition, client.sender()) else { continue };
            if at >= touched || client.memory.ranges.is_empty() {
                step.delete(Topic::INTAKE_STATE, partition, key);
                continue;
            }
            let (memory, queued) = (&client.memory, client.queued);
            step.put(Topic::INTAKE_STATE, partition, key, |out| {
                ClientRanges::encode(memory.log_time, memory.ranges.as_slice(), out);
            });
            if queued < log_time - QUEUE_SPACING_MS {
                client.queued = log_time;
                self.clients.queue.push_back((log_time, slot));
            }
        }
        self.replay_from = self.arrivals.window_start(next_offset);
        self.series.end(partition, self.replay_from, log_time, &mut undo.series, step);
        let progress = IntakeProgress { log_time_ms: log_time, replay_from: self.replay_from };
        step.put(Topic::INTAKE_STATE, partition, IntakeKey::Progress(partition), |out| progress.encode(out));
    }

    fn forget_ranges(&mut self, undo: &mut StepUndo) {
        let oldest = self.log_time - self.bounds.ranges_ttl_ms - QUEUE_SPACING_MS;
        for _ in 0..FORGET_AT_ONCE {
            let Some(&(at, slot)) = self.clients.queue.front().filter(|(queued, _)| *queued < oldest) else { return };
            self.clients.queue.pop_front();
            if !self.clients.is_used(slot) {
                continue;
            }
            let client = self.clients.get(slot);
            let old = client.memory.log_time < self.log_time - self.bounds.ranges_ttl_ms;
            // A later entry of the queue counts in its place.
            if client.queued != at || client.memory.ranges.is_empty() || !old || client.saved_in == self.step {
                continue;
            }
            self.save_client(slot, undo);
            let client = self.clients.get_mut(slot);
            client.memory.ranges = Ranges::default();
            client.queued = i64::MIN;
            self.clients.may_be_free(slot);
        }
    }

    /// Takes the newest step back.
    pub(super) fn undo(&mut self, undo: StepUndo) {
        while self.arrivals.len() > undo.arrivals {
            let Some(slot) = self.arrivals.pop() else { break };
            let client = self.clients.get_mut(slot);
            client.ordinal = client.ordinal.wrapping_sub(1);
            client.held -= 1;
        }
        for (slot, memory, queued) in undo.clients {
            let client = self.clients.get_mut(slot);
            (client.memory, client.queued) = (memory, queued);
            // Its entry of the queue may be gone; a second one does no harm.
            if queued > i64::MIN {
                self.clients.queue.push_back((queued, slot));
                self.unsorted = true;
            }
            self.clients.may_be_free(slot);
        }
        self.series.undo(undo.series);
        (self.log_time, self.replay_from) = (undo.log_time, undo.replay_from);
        self.last_client = None;
    }

    /// Numbers of clients, arrivals and series held.
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        (self.clients.len(), self.arrivals.len(), self.series.len())
    }
}
