//! The Avro schemas and their fixed ids.
//!
//! An id never changes its wire format: logs that we do not own contain records with it. A schema whose wire format changes
//! gets a new id at the end of the table.

use crate::Topic;

pub(crate) const ANALYTICS_EVENT: u32 = 1;
pub(crate) const HOURLY_COUNT: u32 = 2;
pub(crate) const USER_DELTA: u32 = 3;
pub(crate) const HOUR_COUNTERS: u32 = 4;
pub(crate) const POSITION: u32 = 5;
pub(crate) const MARKER: u32 = 6;
pub(crate) const HOUR_TOTALS: u32 = 7;
pub(crate) const USER_SKETCH: u32 = 8;
pub(crate) const LOG_TIME: u32 = 9;
pub(crate) const QUARANTINE_RECORD: u32 = 10;
pub(crate) const INPUT_POSITION: u32 = 11;
pub(crate) const HASH_KEY: u32 = 12;
pub(crate) const OWNER_MARKER: u32 = 13;
pub(crate) const COUNTED_POSITION: u32 = 14;
pub(crate) const REFILL_REQUEST: u32 = 20;
pub(crate) const MESSAGE: u32 = 30;
pub(crate) const TOPIC_COMMAND: u32 = 31;
pub(crate) const TOPIC_STATE: u32 = 32;
pub(crate) const TOPIC_OWNER: u32 = 33;
pub(crate) const DEAD_LETTER: u32 = 34;
pub(crate) const INTAKE_MESSAGE: u32 = 40;
pub(crate) const JOURNAL_RECORD: u32 = 41;
pub(crate) const INTAKE_RANGES: u32 = 42;
pub(crate) const INTAKE_SERIES: u32 = 43;
pub(crate) const INTAKE_PROGRESS: u32 = 44;
pub(crate) const AUDIT_RECORD: u32 = 50;

/// One registered schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// The id in the wire format's framing.
    pub id: u32,
    /// The topic of its records, without the configured prefix.
    pub topic: &'static str,
    /// The record's full name.
    pub name: &'static str,
    /// The schema as Avro JSON.
    pub text: &'static str,
    /// Whether its subject is `{topic}-value` (Confluent's `TopicNameStrategy`): every value of the topic has this schema, but
    /// for the position at the end of a step. Else it is `{topic}-{name}` (`TopicRecordNameStrategy`).
    pub alone: bool,
}

impl Schema {
    /// The schema's subject in a registry, for the topic's full name.
    pub fn subject(&self, full_topic: &str) -> String {
        if self.alone { format!("{full_topic}-value") } else { format!("{full_topic}-{}", self.name) }
    }
}

const SCHEMAS: [Schema; 26] = [
    Schema {
        id: ANALYTICS_EVENT,
        topic: Topic::EVENTS.name,
        name: "millrace.analytics.AnalyticsEvent",
        text: include_str!("../schemas/analytics_event.avsc"),
        alone: true,
    },
    Schema {
        id: HOURLY_COUNT,
        topic: Topic::HOURLY.name,
        name: "millrace.analytics.HourlyCount",
        text: include_str!("../schemas/hourly_count.avsc"),
        alone: true,
    },
    state_schema(USER_DELTA, "millrace.analytics.state.UserDelta", include_str!("../schemas/user_delta.avsc")),
    state_schema(HOUR_COUNTERS, "millrace.analytics.state.HourCounters", include_str!("../schemas/hour_counters.avsc")),
    state_schema(POSITION, "millrace.analytics.state.Position", include_str!("../schemas/position.avsc")),
    state_schema(MARKER, "millrace.analytics.state.Marker", include_str!("../schemas/marker.avsc")),
    state_schema(HOUR_TOTALS, "millrace.analytics.state.HourTotals", include_str!("../schemas/hour_totals.avsc")),
    state_schema(USER_SKETCH, "millrace.analytics.state.UserSketch", include_str!("../schemas/user_sketch.avsc")),
    state_schema(LOG_TIME, "millrace.analytics.state.LogTime", include_str!("../schemas/log_time.avsc")),
    Schema {
        id: QUARANTINE_RECORD,
        topic: Topic::LATE.name,
        name: "millrace.analytics.QuarantineRecord",
        text: include_str!("../schemas/quarantine_record.avsc"),
        alone: true,
    },
    state_schema(
        INPUT_POSITION,
        "millrace.analytics.state.InputPosition",
        include_str!("../schemas/input_position.avsc"),
    ),
    state_schema(HASH_KEY, "millrace.analytics.state.HashKey", include_str!("../schemas/hash_key.avsc")),
    state_schema(OWNER_MARKER, "millrace.analytics.state.OwnerMarker", include_str!("../schemas/owner_marker.avsc")),
    Schema {
        id: COUNTED_POSITION,
        topic: Topic::HOURLY.name,
        name: "millrace.analytics.CountedPosition",
        text: include_str!("../schemas/counted_position.avsc"),
        alone: false,
    },
    Schema {
        id: REFILL_REQUEST,
        topic: Topic::REFILL.name,
        name: "millrace.analytics.RefillRequest",
        text: include_str!("../schemas/refill_request.avsc"),
        alone: true,
    },
    Schema {
        id: MESSAGE,
        topic: "messages",
        name: "millrace.topics.Message",
        text: include_str!("../schemas/message.avsc"),
        alone: true,
    },
    Schema {
        id: TOPIC_COMMAND,
        topic: "topics.commands",
        name: "millrace.topics.TopicCommand",
        text: include_str!("../schemas/topic_command.avsc"),
        alone: true,
    },
    Schema {
        id: TOPIC_STATE,
        topic: "topics.state",
        name: "millrace.topics.TopicState",
        text: include_str!("../schemas/topic_state.avsc"),
        alone: false,
    },
    Schema {
        id: TOPIC_OWNER,
        topic: "topics.owners",
        name: "millrace.topics.TopicOwner",
        text: include_str!("../schemas/topic_owner.avsc"),
        alone: true,
    },
    Schema {
        id: DEAD_LETTER,
        topic: "dead-letters",
        name: "millrace.topics.DeadLetter",
        text: include_str!("../schemas/dead_letter.avsc"),
        alone: true,
    },
    Schema {
        id: INTAKE_MESSAGE,
        topic: Topic::INTAKE.name,
        name: "millrace.intake.IntakeMessage",
        text: include_str!("../schemas/intake_message.avsc"),
        alone: true,
    },
    Schema {
        id: JOURNAL_RECORD,
        topic: Topic::INTAKE_JOURNAL.name,
        name: "millrace.intake.JournalRecord",
        text: include_str!("../schemas/journal_record.avsc"),
        alone: true,
    },
    intake_state_schema(INTAKE_RANGES, "millrace.intake.state.Ranges", include_str!("../schemas/intake_ranges.avsc")),
    intake_state_schema(INTAKE_SERIES, "millrace.intake.state.Series", include_str!("../schemas/intake_series.avsc")),
    intake_state_schema(
        INTAKE_PROGRESS,
        "millrace.intake.state.Progress",
        include_str!("../schemas/intake_progress.avsc"),
    ),
    Schema {
        id: AUDIT_RECORD,
        topic: Topic::AUDIT.name,
        name: "millrace.audit.AuditRecord",
        text: include_str!("../schemas/audit_record.avsc"),
        alone: true,
    },
];

const fn intake_state_schema(id: u32, name: &'static str, text: &'static str) -> Schema {
    Schema { id, topic: Topic::INTAKE_STATE.name, name, text, alone: false }
}

const fn state_schema(id: u32, name: &'static str, text: &'static str) -> Schema {
    Schema { id, topic: Topic::STATE.name, name, text, alone: false }
}

/// Every schema, by ascending id.
pub fn schemas() -> &'static [Schema] {
    &SCHEMAS
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use apache_avro::types::Value;

    fn parsed(id: u32) -> apache_avro::Schema {
        let schema = SCHEMAS.iter().find(|schema| schema.id == id).unwrap();
        apache_avro::Schema::parse_str(schema.text).unwrap()
    }

    /// The framed bytes apache-avro makes of a value.
    pub(crate) fn avro_bytes(id: u32, value: Value) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(id.to_be_bytes());
        let schema = parsed(id);
        let writer = apache_avro::writer::datum::GenericDatumWriter::builder(&schema).build().unwrap();
        bytes.extend(writer.write_value_to_vec(value).unwrap());
        bytes
    }

    /// The value apache-avro reads from framed bytes.
    pub(crate) fn avro_value(id: u32, bytes: &[u8]) -> Value {
        let mut datum = &bytes[5..];
        let schema = parsed(id);
        let reader = apache_avro::reader::datum::GenericDatumReader::builder(&schema).build().unwrap();
        let value = reader.read_value(&mut datum).unwrap();
        assert!(datum.is_empty());
        value
    }

    #[test]
    fn ids_are_unique_and_texts_parse_to_their_names() {
        assert!(SCHEMAS.is_sorted_by(|a, b| a.id < b.id), "every id once, in order");
        for schema in &SCHEMAS {
            let name = parsed(schema.id).name().unwrap().fullname(None).clone();
            assert_eq!(name, schema.name);
        }
    }

    #[test]
    fn released_schemas_do_not_change() {
        // The canonical form's fingerprint: documentation may change, the bytes on the wire may not.
        let fingerprints: Vec<String> = SCHEMAS
            .iter()
            .map(|schema| parsed(schema.id).fingerprint::<apache_avro::rabin::Rabin>().to_string())
            .collect();
        assert_eq!(fingerprints, RELEASED);
    }

    const RELEASED: [&str; 26] = [
        "f317e3870fb3da8d",
        "8df1b4d44b6d202d",
        "6d29ca9da9fda6a7",
        "14e793d03051c95f",
        "5d3805c6ceea38ce",
        "f26b394e8cda7d3b",
        "83d5f5b664ed35b4",
        "c60783eb417b91ef",
        "406bc963569cbcd8",
        "131a43d249940661",
        "45467e94cb6119c5",
        "d89561a3be63e8c5",
        "9fbd37f586145a92",
        "4660506a98cbdd1b",
        "1f1cb68a4d488cb8",
        "1091217f56215f50",
        "603a4af454fa4303",
        "19138c13be5fc52e",
        "b7ccc7d30d1a954c",
        "243448e6e29a617f",
        "2092f8f63ca972b4",
        "5eebc8195e109f69",
        "478e8228087b3aaa",
        "5e0d0fdde9fb9810",
        "bac843a9eeea9a5a",
        "4f9464425665aefc",
    ];
}
