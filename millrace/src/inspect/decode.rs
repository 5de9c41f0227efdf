//! One record for people: the key as text, the value decoded by its schema, other bytes as they are.

use std::fmt::{self, Write as _};

use jiff::Timestamp;
use millrace_contracts::{
    AuditRecord, ClientRanges, CountedPosition, DecodeError, EventRef, HashKey, HourTotals, HourlyCount, IntakeKey,
    IntakeMessage, IntakeProgress, JournalRecord, LogTime, Marker, Position, QuarantineRecord, RefillRequest, Series,
    StateKey, Topic, UserDelta, UserSketch,
};
use millrace_log::{Record, RunnerKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Most bytes of a key, and of an undecodable value, in the output.
const MAX_SHOWN_BYTES: usize = 256;

/// One record, decoded. Travels as a line of JSON from a running process to `tail`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// The partition.
    pub(crate) partition: u32,
    /// The offset.
    pub(crate) offset: u64,
    /// The log's timestamp, ms since the epoch.
    pub(crate) timestamp_ms: i64,
    /// The key.
    pub(crate) key: String,
    /// The decoded value; null for a tombstone and for foreign bytes.
    pub(crate) value: Value,
    /// Bytes that do not decode as the topic's values, and the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) foreign: Option<Foreign>,
}

/// A value that could not be decoded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Foreign {
    /// The problem.
    pub(crate) why: String,
    /// Length in bytes.
    pub(crate) bytes: usize,
    /// The first bytes, as text with escapes.
    pub(crate) start: String,
}

impl Line {
    /// Decodes a record of a topic. Never fails: undecodable bytes are shown as they are.
    pub(crate) fn of(topic: &Topic, partition: u32, record: Record<'_>) -> Self {
        let (value, foreign) = match record.value {
            None => (Value::Null, None),
            Some(bytes) => match decode(topic, record.key, bytes) {
                Ok(value) => (value, None),
                Err(why) => (Value::Null, Some(Foreign { why, bytes: bytes.len(), start: text(bytes) })),
            },
        };
        let (offset, timestamp_ms, key) = (record.offset, record.timestamp_ms, text(record.key));
        Self { partition, offset, timestamp_ms, key, value, foreign }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}  {}  {}  ", self.partition, self.offset, time(self.timestamp_ms), self.key)?;
        match &self.foreign {
            Some(foreign) => write!(f, "foreign ({}), {} bytes: {}", foreign.why, foreign.bytes, foreign.start),
            None if self.value.is_null() => f.write_str("(tombstone)"),
            None => write!(f, "{}", self.value),
        }
    }
}

fn decode(topic: &Topic, key: &[u8], value: &[u8]) -> Result<Value, String> {
    let decoded = match topic {
        topic if *topic == Topic::EVENTS => EventRef::decode(value).map(|event| {
            let mut shown = json!({
                "timestamp": time(event.timestamp_ms),
                "user": event.user,
                "event": event.kind.as_str(),
                "received_at": time(event.received_at_ms),
            });
            if let Some(id) = event.event_id {
                shown["event_id"] = id.into();
            }
            shown
        }),
        topic if *topic == Topic::HOURLY && CountedPosition::is_key(key) => {
            CountedPosition::decode(value).map(|counted| {
                json!({
                    "partition": counted.partition,
                    "next_offset": counted.next_offset,
                    "log_time": time(counted.log_time_ms),
                })
            })
        }
        topic if *topic == Topic::HOURLY => HourlyCount::decode(value).map(|count| {
            json!({
                "hour": time(count.hour.start_ms()),
                "partition": count.partition,
                "generation": count.generation,
                "next_offset": count.next_offset,
                "clicks": count.clicks,
                "impressions": count.impressions,
                "unique_users": count.unique_users,
                "exactness": count.exactness.as_str(),
            })
        }),
        topic if *topic == Topic::LATE => QuarantineRecord::decode(value).map(|quarantined| {
            json!({
                "reason": quarantined.reason.as_str(),
                "partition": quarantined.partition,
                "offset": quarantined.offset,
                "log_time": time(quarantined.log_time_ms),
                "key": text(quarantined.key),
                "value": quarantined.value.map(text),
                "value_size": quarantined.value_size,
            })
        }),
        topic if *topic == Topic::REFILL => RefillRequest::decode(value).map(
            |request| json!({ "hour": time(request.hour.start_ms()), "requested_at": time(request.requested_at_ms) }),
        ),
        topic if [Topic::STATE, Topic::INTAKE_STATE].contains(topic) => match RunnerKey::parse(key) {
            Some(RunnerKey::Position(_)) => Position::decode(value)
                .map(|position| json!({ "next_offset": position.next_offset, "producers": position.producers.len() })),
            Some(RunnerKey::Marker(_)) => Marker::decode(value)
                .map(|marker| json!({ "nonce": marker.nonce, "transactional_id": marker.transactional_id })),
            None if *topic == Topic::INTAKE_STATE => {
                let key = IntakeKey::parse(key).ok_or("the key is not one of the topic's")?;
                intake_state(key, value)
            }
            None => {
                let key = StateKey::parse(key).ok_or("the key is not one of the topic's")?;
                state(key, value)
            }
        },
        topic if *topic == Topic::INTAKE => IntakeMessage::decode(value).map(|message| {
            let mut shown = message_of(&message.journal_record());
            shown["nonce"] = format!("{:016x}", message.nonce).into();
            shown["index"] = message.index.into();
            shown
        }),
        topic if *topic == Topic::AUDIT => AuditRecord::decode(value).map(|record| {
            json!({
                "time": time(record.time_ms),
                "principal": record.principal,
                "credential": record.credential,
                "action": record.action,
                "object": record.object,
                "outcome": record.outcome.as_str(),
                "code": record.code,
                "source": record.source,
                "request_id": record.request_id,
                "instance": record.instance,
            })
        }),
        topic if *topic == Topic::INTAKE_JOURNAL => JournalRecord::decode(value).map(|record| message_of(&record)),
        _ => return Err("no decoder for this topic".into()),
    };
    decoded.map_err(|e| e.to_string())
}

fn message_of(record: &JournalRecord<'_>) -> Value {
    let mut shown = json!({
        "client": record.sender.client,
        "seq": record.seq,
        "received_at": time(record.received_at_us.div_euclid(1_000)),
        "crc32c": format!("{:08x}", record.crc32c),
        "payload": text(record.payload),
    });
    if let Some(epoch) = record.sender.epoch {
        shown["epoch"] = epoch.into();
    }
    shown
}

fn intake_state(key: IntakeKey<'_>, value: &[u8]) -> Result<Value, DecodeError> {
    match key {
        IntakeKey::Ranges { .. } => ClientRanges::decode(value).map(|ranges| {
            let pairs: Vec<_> = ranges.ranges.iter().map(|range| json!([range.first, range.last])).collect();
            json!({ "log_time": time(ranges.log_time_ms), "ranges": pairs })
        }),
        IntakeKey::Series { .. } => Series::decode(value).map(|series| {
            json!({
                "next_index": series.next_index,
                "log_time": time(series.log_time_ms),
                "dropped": series.dropped.map(|(first, last)| json!([first, last])),
            })
        }),
        IntakeKey::Progress(_) => IntakeProgress::decode(value)
            .map(|progress| json!({ "log_time": time(progress.log_time_ms), "replay_from": progress.replay_from })),
    }
}

fn state(key: StateKey, value: &[u8]) -> Result<Value, DecodeError> {
    Ok(match key {
        StateKey::Users { .. } => json!({ "users_first_seen": UserDelta::decode(value)?.count() }),
        StateKey::Counters { .. } => {
            let totals = HourTotals::decode(value)?;
            let mut shown = json!({ "clicks": totals.clicks, "impressions": totals.impressions });
            if totals.written_at_ms != HourTotals::UNKNOWN {
                shown["written_at"] = time(totals.written_at_ms).into();
            }
            if let Some(sketched) = totals.sketched {
                shown["sketched"] = json!({ "exact_users": sketched.exact_users, "estimate": sketched.estimate });
            }
            shown
        }
        // A snapshot has users as long as they are a set, then a sketch of them.
        StateKey::Snapshot { .. } => match UserDelta::decode(value) {
            Ok(users) => json!({ "users": users.count() }),
            Err(_) => json!({ "registers": UserSketch::decode(value)?.filter(|&(_, value)| value > 0).count() }),
        },
        StateKey::HashKey(_) => {
            HashKey::decode(value)?;
            json!({ "key": "secret" })
        }
        StateKey::Time(_) => {
            let LogTime { log_time_ms, window } = LogTime::decode(value)?;
            let window = window.map(|start| json!({ "offset": start.offset, "log_time": time(start.log_time_ms) }));
            json!({ "log_time": time(log_time_ms), "id_window": window })
        }
    })
}

/// A time in ISO 8601; the bare number beyond the calendar.
fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms} ms"), |time| format!("{time:.3}"))
}

/// Bytes as text, with escapes for unprintable ones, truncated.
fn text(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes[..bytes.len().min(MAX_SHOWN_BYTES)].utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
        }
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}").expect("writing to a String does not fail");
        }
    }
    if bytes.len() > MAX_SHOWN_BYTES {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use millrace_contracts::{Kind, TOPICS};
    use proptest::prelude::*;

    use super::*;

    fn line(topic: &Topic, key: &[u8], value: Option<&[u8]>) -> Line {
        Line::of(topic, 3, Record { offset: 7, timestamp_ms: 1_763_712_000_123, key, value })
    }

    #[test]
    fn shows_an_event() {
        let mut value = Vec::new();
        let event = EventRef {
            event_id: None,
            timestamp_ms: 123,
            user: "kek",
            kind: Kind::Click,
            received_at_ms: 1_763_712_000_000,
        };
        event.encode(&mut value);
        let shown = line(&Topic::EVENTS, b"kek", Some(&value));
        assert_eq!(
            shown.to_string(),
            r#"3@7  2025-11-21T08:00:00.123Z  kek  {"event":"click","received_at":"2025-11-21T08:00:00.000Z","timestamp":"1970-01-01T00:00:00.123Z","user":"kek"}"#
        );
        let there_and_back: Line = serde_json::from_str(&serde_json::to_string(&shown).unwrap()).unwrap();
        assert_eq!(there_and_back, shown);
    }

    #[test]
    fn decodes_state_by_its_key() {
        let mut value = Vec::new();
        HourTotals { clicks: 2, impressions: 3, written_at_ms: 0, sketched: None }.encode(&mut value);
        let shown = line(&Topic::STATE, b"2026-11-21T08Z/3/c", Some(&value));
        assert_eq!(shown.value, json!({"clicks": 2, "impressions": 3, "written_at": "1970-01-01T00:00:00.000Z"}));
        assert!(line(&Topic::STATE, b"pos/3", Some(&value)).foreign.is_some(), "a counter under a position's key");
    }

    #[test]
    fn shows_foreign_bytes_and_tombstones() {
        assert!(line(&Topic::HOURLY, b"k", None).to_string().ends_with("k  (tombstone)"));
        let foreign = line(&Topic::HOURLY, b"a\nb\xff", Some(b"{\"json\":1}"));
        assert_eq!(foreign.key, "a\\nb\\xff");
        assert!(foreign.to_string().ends_with("10 bytes: {\"json\":1}"), "{foreign}");
        let long = line(&Topic::EVENTS, &[b'k'; 1_000], Some(&[0xff; 1_000]));
        assert!(
            long.key.chars().count() == MAX_SHOWN_BYTES + 1 && long.foreign.is_some_and(|f| f.start.ends_with('…'))
        );
    }

    proptest! {
        #[test]
        fn does_not_panic_on_any_bytes(key: Vec<u8>, value: Vec<u8>, schema in 0..12_u8, offset: u64, timestamp_ms: i64) {
            let mut framed = vec![0, 0, 0, 0, schema];
            framed.extend(&value);
            for topic in TOPICS {
                for value in [&value, &framed] {
                    for key in [&key[..], b"pos/1", b"time/1", b"2026-11-21T08Z/3/d/12", b"2026-11-21T08Z/3/s/12/0", b"2026-11-21T08Z/3/c"] {
                        Line::of(topic, 0, Record { offset, timestamp_ms, key, value: Some(value) }).to_string();
                    }
                }
            }
        }
    }
}
