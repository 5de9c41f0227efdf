//! The wish that an older hour be put into Redis, appended to the log.

use std::sync::{Arc, OnceLock};

use millrace_contracts::{RefillRequest, Topic};
use millrace_log::{Log, NewRecord};

use crate::{Refresh, system_clock};

/// Asks by `analytics.refill`. Until `log` is there, and whenever it refuses, the wish is dropped: the next read of the hour
/// makes another. Appending never waits, and what became of it is nobody's concern, so there is no queue here but the
/// log's own, which is bounded.
pub fn ask_by(log: Arc<OnceLock<Log>>) -> Refresh {
    let clock = system_clock();
    Arc::new(move |hour| {
        let Some(log) = log.get() else { return };
        let mut value = Vec::new();
        RefillRequest { hour, requested_at_ms: clock() }.encode(&mut value);
        let partition = hour.index().rem_euclid(i64::from(log.partitions()));
        let partition = u32::try_from(partition).unwrap_or_default();
        let key = hour.to_string();
        drop(log.append(&[NewRecord { topic: Topic::REFILL, partition, key: key.as_bytes(), value: &value }]));
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use millrace_contracts::{Hour, Names};
    use millrace_log::{Batch, EmbeddedConfig, EmbeddedLog, Limits, Polled};

    use super::*;

    #[tokio::test]
    async fn a_wish_stands_in_the_log_under_its_hour() {
        let folder = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig { directory: folder.path().join("data"), ..EmbeddedConfig::default() };
        let log = Log::Embedded(EmbeddedLog::open(config, Names::default()).unwrap());
        let later = Arc::new(OnceLock::new());
        let ask = ask_by(Arc::clone(&later));
        let hour: Hour = "2026-11-21T08Z".parse().unwrap();
        ask(hour);
        later.set(log.clone()).unwrap();
        ask(hour);

        let read = tokio::task::spawn_blocking(move || {
            let mut reader = log.reader(Topic::REFILL, &[(0, 0)]).unwrap();
            let limits = Limits { wait: Duration::from_millis(100), ..Limits::default() };
            let mut batch = Batch::default();
            while reader.poll(&mut batch, limits).unwrap() != Polled::Records {}
            batch
        });
        let batch = tokio::time::timeout(Duration::from_secs(20), read).await.unwrap().unwrap();
        let records: Vec<_> = batch.iter().collect();
        assert_eq!(records.len(), 1, "the first had no log to go to");
        assert_eq!(records[0].key, b"2026-11-21T08Z");
        assert_eq!(RefillRequest::decode(records[0].value.unwrap()).unwrap().hour, hour);
    }
}
