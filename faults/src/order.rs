//! Checks by the log's timestamps that every record of a step was produced before the step's offsets were sent.
//!
//! Counts do not reveal a violation: a new owner waits for pending offsets before it reads the state, so a late record does
//! harm only together with another fault.

use std::collections::HashMap;

use crate::log::{RawRecord, raw};
use crate::report::Part;
use crate::system::System;

/// A fail point that makes every step pause after its offsets, for longer than timestamps are inexact.
pub const STALL: &str = ";kafka::stage::offsets_sent=sleep(50)";

/// Counts the steps whose offsets are in the log, and those with a record newer than their offsets.
///
/// # Errors
/// If the log cannot be read.
pub fn check(system: &System, part: &mut Part) -> Result<(), String> {
    let group = format!("{}processor", system.prefix());
    let input = format!("{}analytics.events", system.prefix());
    let mut sent: HashMap<(i32, u64), i64> = HashMap::new();
    for record in raw(system, "__consumer_offsets")? {
        if let Some((of, topic, partition)) = offset_key(&record.key)
            && (of == group && topic == input)
            && let Some(offset) = record.value.as_deref().and_then(|value| value.get(2..10)?.try_into().ok())
        {
            sent.insert((partition, u64::from_be_bytes(offset)), record.made_ms);
        }
    }
    let (mut steps, mut late) = (0, 0);
    let state = raw(system, &format!("{}analytics.state", system.prefix()))?;
    for (next_offset, partition, newest) in transactions(&state) {
        let Some(sent_ms) = sent.get(&(partition, next_offset)) else { continue };
        steps += 1;
        late += u64::from(newest > *sent_ms);
    }
    part.sometimes("steps with their offsets in the log", steps);
    part.must(late == 0, format!("{late} of {steps} steps have records newer than their offsets"));
    Ok(())
}

/// The transactions of the state topic with a position: that position, the partition, and the timestamp of the last
/// record. A transaction ends with a control record, which is a gap in the offsets.
fn transactions(state: &[RawRecord]) -> Vec<(u64, i32, i64)> {
    let mut partitions: HashMap<i32, Vec<&RawRecord>> = HashMap::new();
    for record in state {
        partitions.entry(record.partition).or_default().push(record);
    }
    let mut found = Vec::new();
    for (partition, records) in partitions {
        for transaction in records.chunk_by(|a, b| b.offset == a.offset + 1) {
            let position = transaction.iter().find(|record| record.key.starts_with(b"pos/"));
            let next = position.and_then(|record| zigzag(record.value.as_deref()?.get(5..)?));
            let newest = transaction.iter().map(|record| record.made_ms).max();
            found.extend(next.zip(newest).map(|(next, newest)| (next, partition, newest)));
        }
    }
    found
}

/// Group, topic and partition of a committed offset's key.
fn offset_key(key: &[u8]) -> Option<(String, String, i32)> {
    let version = i16::from_be_bytes(key.get(..2)?.try_into().ok()?);
    let mut rest = key.get(2..)?;
    let mut text = || {
        let length = usize::from(u16::from_be_bytes(rest.get(..2)?.try_into().ok()?));
        let text = String::from_utf8(rest.get(2..2 + length)?.to_vec()).ok()?;
        rest = rest.get(2 + length..)?;
        Some(text)
    };
    let (group, topic) = (text()?, text()?);
    let partition = i32::from_be_bytes(rest.get(..4)?.try_into().ok()?);
    (version <= 1).then_some((group, topic, partition))
}

/// An Avro long that is not negative.
fn zigzag(bytes: &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some(number >> 1);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_a_key_and_a_number() {
        let key = [&[0, 1, 0, 1, b'g', 0, 2, b't', b'u'][..], &7_i32.to_be_bytes()].concat();
        assert_eq!(offset_key(&key), Some(("g".into(), "tu".into(), 7)));
        assert_eq!(offset_key(&[0, 2, 0, 1, b'g']), None);
        assert_eq!((zigzag(&[0x90, 0x4e]), zigzag(&[0xff])), (Some(5_000), None));
    }

    #[test]
    fn a_gap_ends_a_transaction() {
        let raw = |offset, made_ms, key: &str| RawRecord {
            partition: 0,
            offset,
            made_ms,
            key: key.into(),
            value: Some(vec![0, 0, 0, 0, 4, 20]),
            number: None,
        };
        let state = [raw(0, 5, "x/d/1"), raw(1, 4, "pos/0"), raw(3, 9, "marker/0"), raw(5, 7, "pos/0")];
        assert_eq!(transactions(&state), [(10, 0, 5), (10, 0, 7)]);
    }
}
