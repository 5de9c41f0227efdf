//! The stage that drops duplicates: `intake` in, `intake.journal` out.

use millrace_contracts::metric;
use millrace_contracts::{ClientRanges, DecodeError, IntakeKey, IntakeMessage, IntakeProgress, Sender, Series, Topic};
use millrace_log::{Batch, Record, Stage, StageError, Step, sabotaged};

use super::state::{Decision, DedupBounds, IntakeState, StepUndo};

/// Lets each message through once, in the order of its connection. Pure: time is the records' own.
#[derive(Debug)]
pub struct Dedup {
    bounds: DedupBounds,
}

/// Takes one application back, or reports what it did.
#[derive(Debug)]
pub struct Undo {
    state: Option<StepUndo>,
    stats: DedupStats,
}

/// What one application did, in messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DedupStats {
    /// Went to the journal.
    pub journaled: u64,
    /// Those of them whose number was used for other bytes.
    pub seq_reused: u64,
    /// Those of them that skipped numbers.
    pub gaps: u64,
    /// Were there before.
    pub duplicates: u64,
    /// Dropped because a frame before them is missing.
    pub behind: u64,
    /// Records that are no message, or whose payload does not match its checksum.
    pub undecodable: u64,
}

impl Undo {
    /// What the application did.
    pub fn stats(&self) -> &DedupStats {
        &self.stats
    }
}

impl Dedup {
    /// A stage that remembers as much as `bounds` allow.
    pub fn new(bounds: DedupBounds) -> Self {
        // A rate over a series that begins with its first count misses it.
        DedupStats::default().record(0);
        Self { bounds }
    }
}

fn message<'a>(record: &Record<'a>) -> Result<IntakeMessage<'a>, DecodeError> {
    let message = IntakeMessage::decode(record.value.ok_or(DecodeError::Empty)?)?;
    if crc32c::crc32c(message.payload) == message.crc32c { Ok(message) } else { Err(DecodeError::Range("crc32c")) }
}

impl Stage for Dedup {
    type State = IntakeState;
    type Undo = Undo;

    fn input(&self) -> Topic {
        Topic::INTAKE
    }

    fn changes(&self) -> Topic {
        Topic::INTAKE_STATE
    }

    fn outputs(&self) -> &'static [Topic] {
        &[Topic::INTAKE_JOURNAL]
    }

    fn new_state(&self, partition: u32) -> IntakeState {
        IntakeState::new(partition, self.bounds)
    }

    fn load(&self, state: &mut IntakeState, key: &[u8], value: &[u8]) -> Result<(), StageError> {
        let foreign = |why: String| StageError::ForeignChange {
            key: String::from_utf8_lossy(&key[..key.len().min(64)]).into(),
            why,
        };
        let broken = |error: DecodeError| foreign(error.to_string());
        match IntakeKey::parse(key).ok_or_else(|| foreign("no change of this stage".into()))? {
            IntakeKey::Ranges { principal, client, epoch, .. } => {
                let sender = Sender { principal, client, epoch: Some(epoch) };
                state.load_ranges(sender, ClientRanges::decode(value).map_err(broken)?);
            }
            IntakeKey::Series { nonce, .. } => state.load_series(nonce, Series::decode(value).map_err(broken)?),
            IntakeKey::Progress(_) => state.load_progress(IntakeProgress::decode(value).map_err(broken)?),
        }
        Ok(())
    }

    fn replay_from(&self, state: &IntakeState) -> Option<u64> {
        Some(state.replay_from())
    }

    fn replay(&self, state: &mut IntakeState, batch: &Batch) {
        for record in batch.iter() {
            if let Ok(message) = message(&record) {
                state.replay(&message, record.offset);
            }
        }
    }

    fn apply(&self, state: &mut IntakeState, batch: &Batch, step: &mut Step) -> Result<Undo, StageError> {
        let mut applied = DedupStats::default();
        let (Some((first, _)), Some(next_offset)) = (batch.iter_with_repeats().next(), batch.next_offset()) else {
            return Ok(Undo { state: None, stats: applied });
        };
        let mut undo = state.begin(first.offset);
        for (record, repeat) in batch.iter_with_repeats() {
            state.pass_time(record.timestamp_ms);
            let Ok(message) = message(&record) else {
                applied.undecodable += u64::from(!repeat);
                continue;
            };
            let (decision, gap) = state.decide(&message, record.offset, &mut undo);
            if repeat {
                continue;
            }
            applied.gaps += u64::from(gap);
            match decision {
                Decision::Behind => {
                    applied.behind += 1;
                    continue;
                }
                Decision::Duplicate => {
                    applied.duplicates += 1;
                    if !sabotaged("sabotage::skip-dedup") {
                        continue;
                    }
                }
                Decision::New => {}
                Decision::SeqReused => applied.seq_reused += 1,
            }
            applied.journaled += 1;
            step.put(Topic::INTAKE_JOURNAL, 0, message.sender.client, |out| message.journal_record().encode(out));
        }
        state.end(next_offset, &mut undo, step);
        Ok(Undo { state: Some(undo), stats: applied })
    }

    fn undo(&self, state: &mut IntakeState, undo: Undo) {
        if let Some(undo) = undo.state {
            state.undo(undo);
        }
    }

    fn committed(&self, state: &mut IntakeState, undo: Undo) {
        undo.stats.record(state.partition());
        let (clients, arrivals, series) = state.sizes();
        for (what, number) in [("clients", clients), ("arrivals", arrivals), ("series", series)] {
            metrics::gauge!(metric::INTAKE_REMEMBERED.name, "partition" => state.partition().to_string(), "what" => what)
                .set(number as f64);
        }
    }
}

impl DedupStats {
    fn record(&self, partition: u32) {
        let outcomes = [
            ("journaled", self.journaled),
            ("duplicate", self.duplicates),
            ("behind", self.behind),
            ("undecodable", self.undecodable),
        ];
        for (outcome, number) in outcomes {
            metrics::counter!(metric::INTAKE_MESSAGES.name, "outcome" => outcome).increment(number);
        }
        metrics::counter!(metric::INTAKE_SEQ_REUSED.name).increment(self.seq_reused);
        metrics::counter!(metric::INTAKE_GAPS.name).increment(self.gaps);
        if self.undecodable > 0 {
            tracing::warn!(partition, number = self.undecodable, "records of intake that are no message were dropped");
        }
    }
}
