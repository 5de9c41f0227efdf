//! The log of one test, in its own directory.

use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use millrace_base::{Size, Span};
use millrace_contracts::{Names, Topic};
use millrace_log::{Batch, EmbeddedConfig, EmbeddedLog, Limits, Log, LogError, NewRecord, Outcome, PollOutcome};

/// Small memtables, so that little data makes tables; no retention unless a test configures it.
pub(crate) fn config(directory: &Path) -> EmbeddedConfig {
    EmbeddedConfig {
        directory: directory.join("data"),
        memtable_size: Size::from_mib(1),
        min_free_disk: Size(0),
        retention_check_interval: Span::from_secs(3_600),
        ..EmbeddedConfig::default()
    }
}

pub(crate) fn open(config: &EmbeddedConfig) -> Log {
    try_open(config).unwrap()
}

pub(crate) fn try_open(config: &EmbeddedConfig) -> Result<Log, LogError> {
    EmbeddedLog::open(config.clone(), Names::default()).map(Log::Embedded)
}

/// The value of a number: 1 to 200 incompressible bytes.
pub(crate) fn value(number: u64) -> Vec<u8> {
    use rand::{Rng, SeedableRng};
    let mut random = rand::rngs::StdRng::seed_from_u64(number);
    let length = random.random_range(1..200);
    (0..length).map(|_| random.random()).collect()
}

/// Appends numbered records, 500 per call; expects each to be acknowledged.
pub(crate) async fn append(log: &Log, topic: Topic, numbers: Range<u64>) {
    append_as(log, topic, numbers, |number| number.to_string()).await;
}

pub(crate) async fn append_as(log: &Log, topic: Topic, numbers: Range<u64>, key: impl Fn(u64) -> String) {
    let numbers: Vec<u64> = numbers.collect();
    for numbers in numbers.chunks(500) {
        let made: Vec<(String, Vec<u8>)> = numbers.iter().map(|&number| (key(number), value(number))).collect();
        let record = |(key, value)| NewRecord { topic, partition: 0, key: str::as_bytes(key), value };
        let records: Vec<NewRecord<'_>> = made.iter().map(|(key, value)| record((key, value.as_slice()))).collect();
        let outcomes = log.append(&records).await;
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Acknowledged(_))), "{outcomes:?}");
    }
}

/// Every record from `from` up to the end that the log reports, as (offset, key, value).
pub(crate) fn read_all(log: &Log, topic: Topic, from: u64) -> Result<Vec<(u64, String, Vec<u8>)>, LogError> {
    let mut reader = log.reader(topic, &[(0, from)])?;
    let (mut batch, mut seen) = (Batch::default(), Vec::new());
    let began = Instant::now();
    while began.elapsed() < Duration::from_mins(1) {
        match reader.poll(&mut batch, Limits::default())? {
            PollOutcome::Records => seen.extend(batch.iter().map(|record| {
                let key = String::from_utf8_lossy(record.key).into_owned();
                (record.offset, key, record.value.unwrap_or_default().to_vec())
            })),
            PollOutcome::CaughtUp { .. } => return Ok(seen),
            PollOutcome::Nothing => {}
        }
    }
    panic!("the log reports no end");
}
