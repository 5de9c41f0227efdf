//! A log engine in memory, of one partition: input, committed changes, restore.

use std::collections::{BTreeMap, HashMap};

use millrace_contracts::{
    AnalyticsEvent, CountedPosition, Hour, HourlyCount, Kind, QuarantineReason, QuarantineRecord, StateKey, Topic,
};
use millrace_log::{Batch, Record, Stage, Step};
use millrace_processor::{Counting, PartitionState};

pub(crate) const PARTITION: u32 = 3;
pub(crate) const PARTITIONS: u32 = 4;

/// One record of the input.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    pub(crate) timestamp_ms: i64,
    pub(crate) value: Option<Vec<u8>>,
    /// The log holds an earlier copy. A step knows, a replay does not.
    pub(crate) repeat: bool,
}

/// The committed output and state of one partition.
#[derive(Default, Clone)]
pub(crate) struct Engine {
    pub(crate) next_offset: u64,
    /// Every change, in order: the content of an uncompacted log.
    changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub(crate) hourly: BTreeMap<Hour, HourlyCount>,
    pub(crate) quarantined: Vec<(u64, QuarantineReason)>,
    pub(crate) snapshots: u64,
    pub(crate) tombstones: u64,
}

pub(crate) fn event(user: &str, timestamp_ms: i64, kind: Kind, id: Option<&str>) -> AnalyticsEvent {
    AnalyticsEvent { event_id: id.map(Into::into), timestamp_ms, user: user.into(), kind, received_at_ms: 0 }
}

pub(crate) fn encoded(event: &AnalyticsEvent) -> Vec<u8> {
    let mut value = Vec::new();
    event.as_ref().encode(&mut value);
    value
}

pub(crate) fn batch_of(log: &[Input], from: u64, max: usize) -> Batch {
    let rest = log.get(usize::try_from(from).unwrap()..).unwrap_or_default();
    batch_from(&rest[..max.min(rest.len())], from)
}

/// All of these records, the first at this offset.
pub(crate) fn batch_from(records: &[Input], first: u64) -> Batch {
    let mut batch = Batch::new(PARTITION);
    for (offset, input) in (first..).zip(records) {
        let record = Record { offset, timestamp_ms: input.timestamp_ms, key: b"key", value: input.value.as_deref() };
        if input.repeat { batch.push_repeat(record) } else { batch.push(record) }
    }
    batch
}

impl Engine {
    pub(crate) fn commit(&mut self, batch: &Batch, step: &Step) {
        let mut ended = false;
        for (topic, partition, key, value) in step.iter() {
            assert_eq!(partition, PARTITION);
            assert!(value.is_none_or(|value| value.len() <= 256 * 1024) || topic == Topic::LATE);
            if topic == Topic::STATE {
                let parsed = StateKey::parse(key).unwrap();
                self.snapshots += u64::from(matches!(parsed, StateKey::Snapshot { .. }) && value.is_some());
                self.tombstones += u64::from(value.is_none());
                let exists = || self.changes.iter().rev().any(|(other, value)| other == key && value.is_some());
                assert!(value.is_some() || exists(), "a tombstone without a record: {parsed}");
                self.changes.push((key.to_vec(), value.map(<[u8]>::to_vec)));
            } else if topic == Topic::HOURLY && key == CountedPosition::key(PARTITION).as_bytes() {
                let counted = CountedPosition::decode(value.unwrap()).unwrap();
                assert_eq!((counted.partition, Some(counted.next_offset)), (PARTITION, batch.next_offset()));
                assert!(!std::mem::replace(&mut ended, true), "one position");
            } else if topic == Topic::HOURLY {
                assert!(!ended, "the position is the last record of the step");
                let count = HourlyCount::decode(value.unwrap()).unwrap();
                assert_eq!(key, HourlyCount::key(count.hour, PARTITION).as_bytes());
                let before = self.hourly.insert(count.hour, count);
                assert!(before.is_none_or(|before| before.next_offset < count.next_offset), "positions only increase");
            } else {
                assert_eq!(topic, Topic::LATE);
                let record = QuarantineRecord::decode(value.unwrap()).unwrap();
                self.quarantined.push((record.offset, record.reason));
            }
        }
        assert_eq!(ended, batch.next_offset().is_some(), "a step without new counts has it, too");
        self.next_offset = batch.next_offset().unwrap_or(self.next_offset);
    }

    /// The newest change of each key, in no particular order.
    pub(crate) fn compacted(&self) -> HashMap<&[u8], &[u8]> {
        let newest: HashMap<&[u8], Option<&[u8]>> =
            self.changes.iter().map(|(key, value)| (&**key, value.as_deref())).collect();
        newest.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }

    /// Restores a new state from the changes, compacted or not, and replays the input that it requires.
    pub(crate) fn restore(&self, counting: &Counting, log: &[Input], compacted: bool) -> PartitionState {
        let mut state = counting.new_state(PARTITION);
        let mut load = |key: &[u8], value: &[u8]| counting.load(&mut state, key, value).unwrap();
        if compacted {
            for (key, value) in self.compacted() {
                load(key, value);
                // At-least-once delivery: an overlap is harmless.
                load(key, value);
            }
        } else {
            for (key, value) in self.changes.iter().filter_map(|(key, value)| Some((key, value.as_ref()?))) {
                load(key, value);
            }
        }
        if let Some(from) = counting.replay_from(&state) {
            let mut at = from;
            while at < self.next_offset {
                let max = usize::try_from(self.next_offset - at).unwrap().min(4);
                let first = usize::try_from(at).unwrap();
                let plain = log[first..first + max].iter().map(|input| Input { repeat: false, ..input.clone() });
                let batch = batch_from(&plain.collect::<Vec<_>>(), at);
                counting.replay(&mut state, &batch);
                at = batch.next_offset().unwrap();
            }
        }
        state
    }

    /// Applies and commits one step.
    pub(crate) fn step(
        &mut self,
        counting: &Counting,
        state: &mut PartitionState,
        batch: &Batch,
    ) -> millrace_processor::StepStats {
        let mut step = Step::default();
        let undo = counting.apply(state, batch, &mut step).unwrap();
        let stats = *undo.stats();
        self.commit(batch, &step);
        counting.committed(state, undo);
        stats
    }
}
