//! The stage against a reference: the same decisions whatever the batches, after steps taken back, and after restores.

use std::collections::BTreeMap;

use millrace_contracts::{IntakeMessage, JournalRecord, Sender, Topic};
use millrace_log::{Batch, Record, Stage, Step};
use proptest::prelude::*;

use super::{Dedup, DedupBounds, IntakeState};

const BOUNDS: DedupBounds =
    DedupBounds { client_window: 4, partition_window: 12, ranges_ttl_ms: 1_000_000, series_ttl_ms: 400_000 };
const PARTITION: u32 = 3;

#[derive(Debug, Clone)]
struct Arrival {
    /// Odd ones have an epoch.
    client: u8,
    seq: u64,
    content: u8,
    nonce: u64,
    index: u64,
    /// Ms after the record before.
    later: i64,
}

fn client_name(client: u8) -> String {
    format!("client{}", client / 2)
}

fn epoch(client: u8) -> Option<u64> {
    (client % 2 == 1).then_some(7)
}

fn record_value(arrival: &Arrival) -> Vec<u8> {
    let (client, payload) = (client_name(arrival.client), [arrival.content]);
    let message = IntakeMessage {
        sender: Sender { principal: "", client: &client, epoch: epoch(arrival.client) },
        seq: arrival.seq,
        nonce: arrival.nonce,
        index: arrival.index,
        received_at_us: 5,
        crc32c: crc32c::crc32c(&payload),
        payload: &payload,
    };
    let mut value = Vec::new();
    message.encode(&mut value);
    value
}

/// What the design says, by looking at everything that came before.
#[derive(Default)]
struct Reference {
    log_time: i64,
    /// Nonce to (next index, log time, offset of the newest record dropped).
    series: BTreeMap<u64, (u64, i64, Option<u64>)>,
    /// Those that were not dropped for a missing index: (offset, client, seq, content).
    arrived: Vec<(u64, u8, u64, u8)>,
    /// Client to (numbers, log time).
    numbers: BTreeMap<u8, (Vec<u64>, i64)>,
}

impl Reference {
    /// Whether the record goes to the journal.
    fn takes(&mut self, arrival: &Arrival, offset: u64) -> bool {
        self.log_time += arrival.later;
        let window = offset.saturating_sub(BOUNDS.partition_window);
        let known = self.series.get(&arrival.nonce).copied().filter(|(_, at, broken_at)| {
            *at >= self.log_time - BOUNDS.series_ttl_ms || broken_at.is_some_and(|broken_at| broken_at >= window)
        });
        let (next, _, broken_at) = known.unwrap_or((0, 0, None));
        let repeated = arrival.index < next;
        let behind = !repeated && (arrival.index > next || broken_at.is_some());
        let next = if repeated || behind { next } else { next + 1 };
        self.series.insert(arrival.nonce, (next, self.log_time, if behind { Some(offset) } else { broken_at }));
        if behind {
            return false;
        }
        let own = self.arrived.iter().filter(|(_, client, ..)| *client == arrival.client);
        let own: Vec<_> = own.rev().take(BOUNDS.client_window as usize).filter(|(at, ..)| *at >= window).collect();
        let same_number = own.iter().filter(|(_, _, seq, _)| *seq == arrival.seq);
        let (same, other) = same_number.fold((false, false), |(same, other), (.., content)| {
            (same || *content == arrival.content, other || *content != arrival.content)
        });
        let (numbers, at) = self.numbers.entry(arrival.client).or_default();
        if *at < self.log_time - BOUNDS.ranges_ttl_ms {
            numbers.clear();
        }
        *at = self.log_time;
        let used = epoch(arrival.client).is_some() && numbers.contains(&arrival.seq);
        let takes = !repeated && !same && (other || !used);
        if takes {
            numbers.push(arrival.seq);
        }
        self.arrived.push((offset, arrival.client, arrival.seq, arrival.content));
        takes
    }
}

/// What a step writes, in the order of the keys.
fn written(step: &Step) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let mut records: Vec<_> = step.iter().map(|(.., key, value)| (key.to_vec(), value.map(<[u8]>::to_vec))).collect();
    records.sort();
    records
}

/// The stage with what an engine does around it.
struct Engine {
    stage: Dedup,
    state: IntakeState,
    /// The compacted topic of changes.
    changes: BTreeMap<Vec<u8>, Vec<u8>>,
    input: Batch,
    journal: Vec<(u64, u8)>,
}

impl Engine {
    fn new() -> Self {
        let dedup = Dedup::new(BOUNDS);
        let state = dedup.new_state(PARTITION);
        Self { stage: dedup, state, changes: BTreeMap::new(), input: Batch::new(PARTITION), journal: Vec::new() }
    }

    fn step(&mut self, batch: &Batch, undo_first: bool) {
        let mut step = Step::default();
        let mut undo = self.stage.apply(&mut self.state, batch, &mut step).unwrap();
        if undo_first {
            let before = written(&step);
            self.stage.undo(&mut self.state, undo);
            step = Step::default();
            undo = self.stage.apply(&mut self.state, batch, &mut step).unwrap();
            assert_eq!(before, written(&step), "a step taken back never was");
        }
        self.stage.committed(&mut self.state, undo);
        for (topic, partition, key, value) in step.iter() {
            if topic == Topic::INTAKE_JOURNAL {
                assert_eq!(partition, 0);
                let record = JournalRecord::decode(value.unwrap()).unwrap();
                self.journal.push((record.seq, record.payload[0]));
                continue;
            }
            assert_eq!((topic, partition), (Topic::INTAKE_STATE, PARTITION));
            match value {
                Some(value) => self.changes.insert(key.to_vec(), value.to_vec()),
                None => self.changes.remove(key),
            };
        }
        // A log does not have what the runner found out about repeats.
        for (record, _) in batch.iter_with_repeats() {
            self.input.push(record);
        }
    }

    fn restore(&mut self) {
        self.state = self.stage.new_state(PARTITION);
        for (key, value) in &self.changes {
            self.stage.load(&mut self.state, key, value).unwrap();
        }
        let from = self.stage.replay_from(&self.state).unwrap();
        let mut again = Batch::new(PARTITION);
        for record in self.input.iter().filter(|record| record.offset >= from) {
            again.push(record);
        }
        self.stage.replay(&mut self.state, &again);
    }
}

/// Records whose series mostly go on by one, but may skip, repeat and begin anew.
fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let one = (0..6_u8, 1..8_u64, 0..2_u8, 0..5_u64, 0..12_u8, prop_oneof![9 => 0..50_i64, 1 => 0..900_000_i64]);
    prop::collection::vec(one, 1..120).prop_map(|records| {
        let mut next: BTreeMap<u64, u64> = BTreeMap::new();
        let arrival = |(client, seq, content, nonce, order, later)| {
            let next = next.entry(nonce).or_default();
            let index = match order {
                0 => *next + 1,
                1 => next.saturating_sub(1),
                2 => 0,
                _ => *next,
            };
            *next = index + 1;
            Arrival { client, seq, content, nonce, index, later }
        };
        records.into_iter().map(arrival).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn it_decides_as_the_reference(
        arrivals in arrivals(),
        lengths in prop::collection::vec(1..9_usize, 1..9),
        events in prop::collection::vec(0..3_u8, 1..9),
    ) {
        let (mut reference, mut expected) = (Reference::default(), Vec::new());
        let mut engine = Engine::new();
        let (mut rest, mut offset, mut log_time, mut round) = (&arrivals[..], 10_u64, 0, 0);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(lengths[round % lengths.len()].min(rest.len()));
            rest = later;
            let mut batch = Batch::new(PARTITION);
            for arrival in now {
                if reference.takes(arrival, offset) {
                    expected.push((arrival.seq, arrival.content));
                }
                log_time += arrival.later;
                let value = record_value(arrival);
                batch.push(Record { offset, timestamp_ms: log_time, key: b"", value: Some(&value) });
                offset += 1;
            }
            let event = events[round % events.len()];
            engine.step(&batch, event == 1);
            prop_assert_eq!(&engine.journal, &expected);
            if event == 2 {
                engine.restore();
            }
            round += 1;
        }
    }
}

#[test]
fn what_is_no_message_is_dropped_and_counted() {
    let mut engine = Engine::new();
    let good = Arrival { client: 1, seq: 1, content: 1, nonce: 1, index: 0, later: 0 };
    let value = record_value(&good);
    let mut flipped = value.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut batch = Batch::new(PARTITION);
    for (offset, value) in (0..).zip([None, Some(&b"x"[..]), Some(&flipped), Some(&value)]) {
        batch.push(Record { offset, timestamp_ms: 1, key: b"", value });
    }
    let undo = engine.stage.apply(&mut engine.state, &batch, &mut Step::default()).unwrap();
    assert_eq!((undo.stats().undecodable, undo.stats().journaled), (3, 1));
}

#[test]
fn a_late_copy_is_a_duplicate_however_much_came_between() {
    let mut engine = Engine::new();
    let mut offset = 0;
    let mut send = |engine: &mut Engine, seq, nonce, index| {
        let mut batch = Batch::new(PARTITION);
        let value = record_value(&Arrival { client: 1, seq, content: 1, nonce, index, later: 0 });
        batch.push(Record { offset, timestamp_ms: 1, key: b"", value: Some(&value) });
        offset += 1;
        engine.step(&batch, false);
        engine.journal.len()
    };
    assert_eq!(send(&mut engine, 1, 1, 0), 1);
    for seq in 2..100 {
        send(&mut engine, seq, 2, seq - 2);
    }
    engine.restore();
    assert_eq!(engine.journal.len(), 99);
    // It was in another instance's producer all the time.
    assert_eq!(send(&mut engine, 1, 3, 0), 99);
    assert_eq!(send(&mut engine, 100, 2, 98), 100);
}

#[test]
fn a_repeat_is_an_arrival_before_and_after_a_restore() {
    for restored in [false, true] {
        let mut engine = Engine::new();
        // The number, its series and its index there, and whether the runner found a repeat.
        let send = |engine: &mut Engine, first: u64, records: &[(u64, u64, u64, bool)]| {
            let mut batch = Batch::new(PARTITION);
            for (offset, &(seq, nonce, index, repeat)) in (first..).zip(records) {
                let value = record_value(&Arrival { client: 0, seq, content: 1, nonce, index, later: 0 });
                let record = Record { offset, timestamp_ms: 1, key: b"", value: Some(&value) };
                if repeat { batch.push_repeat(record) } else { batch.push(record) }
            }
            engine.step(&batch, false);
        };
        send(&mut engine, 0, &[(1, 1, 0, false), (2, 1, 1, false), (1, 1, 0, true)]);
        if restored {
            engine.restore();
        }
        // Four back is the repeat; the first copy is beyond the window.
        send(&mut engine, 3, &[(3, 2, 0, false), (4, 2, 1, false), (5, 2, 2, false), (1, 2, 3, false)]);
        assert_eq!(engine.journal, [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)], "{restored}");
    }
}

#[test]
fn what_is_too_old_is_forgotten() {
    let mut engine = Engine::new();
    let (mut offset, mut log_time) = (0, 0);
    for nonce in 0..50 {
        log_time += 100_000;
        let mut batch = Batch::new(PARTITION);
        let value = record_value(&Arrival {
            client: u8::try_from(nonce).unwrap() * 2 + 1,
            seq: 1,
            content: 1,
            nonce,
            index: nonce % 2,
            later: 0,
        });
        batch.push(Record { offset, timestamp_ms: log_time, key: b"", value: Some(&value) });
        offset += 1;
        engine.step(&batch, false);
    }
    let keys: Vec<String> = engine.changes.keys().map(|key| String::from_utf8_lossy(key).into()).collect();
    // 10 to 11 clients within 1,000 s, half of them not dropped; 4 to 5 series within 400 s, and the broken ones among the
    // last 12 records.
    let count = |prefix: &str| keys.iter().filter(|key| key.starts_with(prefix)).count();
    assert!((5..=6).contains(&count("range/")), "{keys:?}");
    assert!((8..=10).contains(&count("series/")), "{keys:?}");
    assert_eq!(count("time/"), 1);
    let (clients, arrivals, series) = engine.state.sizes();
    assert!(clients <= 8 && arrivals <= 13 && series <= 10, "{clients} {arrivals} {series}");
}
