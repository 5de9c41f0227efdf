//! The contracts between the services of Millrace: event types and their Avro schemas, the table of topics, the map from
//! users to partitions, outcome codes and refusals, the table of metrics.
//!
//! The types convert between bytes of a log record and plain structs. This crate has no I/O, no clock and no HTTP:
//! `millrace-service` maps codes to HTTP statuses, `millrace-log` makes records durable.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod audit;
mod changes;
mod codec;
mod count;
mod counted;
mod event;
mod event_window;
mod hash_key;
mod hour;
mod intake;
pub mod metric;
mod outcome;
mod position;
mod projection;
mod quarantine;
mod refill;
mod refusal;
mod schema;
mod shard;
mod state;
mod time;
mod topic;
pub mod topics;

pub use audit::{AuditOutcome, AuditRecord};
pub use changes::{HourTotals, IdWindow, LogTime, Marker, SketchSwitch, UserDelta, UserSketch};
pub use codec::{DecodeError, MAX_FIELD_BYTES};
pub use count::{Exactness, HourlyCount};
pub use counted::CountedPosition;
pub use event::{AnalyticsEvent, EventRef, Kind};
pub use event_window::EventWindow;
pub use hash_key::HashKey;
pub use hour::{Hour, HourError};
pub use intake::{ClientRanges, IntakeKey, IntakeMessage, IntakeProgress, JournalRecord, Sender, SeqRange, Series};
pub use outcome::{Code, Next};
pub use position::{NumberRange, Position, ProducerRecords};
pub use projection::{ProjectionPosition, ProjectionWrite, StoreError, WriteOutcome};
pub use quarantine::{QuarantineReason, QuarantineRecord};
pub use refill::RefillRequest;
pub use refusal::Refusal;
pub use schema::{Schema, schemas};
pub use shard::{GENERATION, SHARDS, UserHash, partition_of};
pub use state::StateKey;
pub use time::{TIME_FORM, time_ms};
pub use topic::{Cleanup, Names, Partitions, PrefixError, TOPICS, Topic};
