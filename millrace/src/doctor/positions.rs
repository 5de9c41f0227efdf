//! Whether the read models and the journal are of this log.

use std::time::Duration;

use millrace_contracts::{ProjectionPosition, StoreError, Topic};
use millrace_log::{Log, LogError, SinkCopy};
use millrace_materializer::journal::{self, From, JournalConfig, JournalError, JournalReader};
use millrace_materializer::remedy;
use millrace_store::HourlyStore;
use tokio::time::timeout;

use super::Finding;

/// Timeout of the comparison of one sink; the log waits up to 10 s for a record.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Compares the positions of a store.
pub(super) async fn store(log: &Log, name: &str, mut writer: impl HourlyStore) -> Finding {
    let what = format!("{name} positions");
    match stored(log, &mut writer).await {
        Ok(positions) => {
            let stored = Stored { topic: Topic::HOURLY, positions, copy: None };
            compare(log, &what, stored, &remedy(name)).await
        }
        Err(error) => Finding::fail(&what, error.to_string(), "see the log of the store"),
    }
}

async fn stored(log: &Log, writer: &mut impl HourlyStore) -> Result<Vec<(u32, ProjectionPosition)>, StoreError> {
    let mut positions = Vec::new();
    for partition in 0..log.partitions(Topic::HOURLY) {
        positions.extend(writer.position(partition).await?.map(|position| (partition, position)));
    }
    Ok(positions)
}

/// Compares the position of the configured journal; `None` if there is none.
pub(super) async fn journal(log: &Log, config: &JournalConfig) -> Option<Finding> {
    let (what, directory) = ("journal", &config.directory);
    if directory.as_os_str().is_empty() {
        return None;
    }
    Some(match JournalReader::open(directory, From::Start) {
        Ok(reader) => {
            let end = reader.end();
            let positions = end.projected().map(|position| (0, position)).into_iter().collect();
            let copy = Some((journal::role(&config.name), end.journal_id));
            compare(log, what, Stored { topic: Topic::INTAKE_JOURNAL, positions, copy }, journal::REMEDY).await
        }
        Err(JournalError::Missing(_)) => Finding::ok(what, format!("none yet in {}", directory.display())),
        Err(error) => Finding::fail(what, error.to_string(), "see what `millrace journal verify` finds"),
    })
}

/// The positions of a read model, and its role and copy id if it has one.
struct Stored {
    topic: Topic,
    positions: Vec<(u32, ProjectionPosition)>,
    copy: Option<(String, u64)>,
}

async fn compare(log: &Log, what: &str, stored: Stored, remedy: &str) -> Finding {
    let (log, Stored { topic, positions, copy }) = (log.clone(), stored);
    let check = tokio::task::spawn_blocking(move || {
        let copy = copy.as_ref().map(|(role, id)| SinkCopy { role, id: *id });
        log.check_positions(topic, &positions, copy)
    });
    let checked = match timeout(TIMEOUT, check).await {
        Ok(Ok(checked)) => checked,
        Ok(Err(error)) => Err(LogError::unavailable(error.to_string())),
        Err(_) => Err(LogError::unavailable(format!("no response within {TIMEOUT:?}"))),
    };
    match checked {
        Ok(()) => Finding::ok(what, "the log has the records that were written last"),
        Err(error @ LogError::Refused(_)) => Finding::fail(what, error.to_string(), remedy),
        Err(error) => Finding::fail(what, error.to_string(), "retry; if it persists, see the brokers' logs"),
    }
}
