//! Requests to refill Redis with an older hour, appended to the log.

use std::sync::{Arc, OnceLock};

use millrace_base::Clock;
use millrace_contracts::{Hour, RefillRequest, Topic};
use millrace_log::{Log, NewRecord};

/// Sends a request to refill Redis with an hour. Must not block. A request may get lost: a later read sends another.
pub type RefillSender = Arc<dyn Fn(Hour) + Send + Sync>;

/// A sender that appends to `analytics.refill`.
///
/// Appends without waiting and ignores the outcome, so the only queue is the log's own, which is bounded. Drops requests
/// until `log` is set, and those that the log refuses.
pub fn refill_sender(log: Arc<OnceLock<Log>>) -> RefillSender {
    let clock = Clock::system();
    Arc::new(move |hour| {
        let Some(log) = log.get() else { return };
        let mut value = Vec::new();
        RefillRequest { hour, requested_at_ms: clock.now_ms() }.encode(&mut value);
        let partition = hour.index().rem_euclid(i64::from(log.partitions(Topic::REFILL)));
        let partition = u32::try_from(partition).unwrap_or_default();
        let key = hour.to_string();
        drop(log.append(&[NewRecord { topic: Topic::REFILL, partition, key: key.as_bytes(), value: &value }]));
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use millrace_contracts::Names;
    use millrace_log::{Batch, EmbeddedConfig, EmbeddedLog, Limits, PollOutcome};

    use super::*;

    #[tokio::test]
    async fn appends_a_request_with_the_hour_as_key() {
        let folder = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig { directory: folder.path().join("data"), ..EmbeddedConfig::default() };
        let log = Log::Embedded(EmbeddedLog::open(config, Names::default()).unwrap());
        let slot = Arc::new(OnceLock::new());
        let send = refill_sender(Arc::clone(&slot));
        let hour: Hour = "2026-11-21T08Z".parse().unwrap();
        send(hour);
        slot.set(log.clone()).unwrap();
        send(hour);

        let read = tokio::task::spawn_blocking(move || {
            let mut reader = log.reader(Topic::REFILL, &[(0, 0)]).unwrap();
            let limits = Limits { wait: Duration::from_millis(100), ..Limits::default() };
            let mut batch = Batch::default();
            while reader.poll(&mut batch, limits).unwrap() != PollOutcome::Records {}
            batch
        });
        let batch = tokio::time::timeout(Duration::from_secs(20), read).await.unwrap().unwrap();
        let records: Vec<_> = batch.iter().collect();
        assert_eq!(records.len(), 1, "drops the request before the log is set");
        assert_eq!(records[0].key, b"2026-11-21T08Z");
        assert_eq!(RefillRequest::decode(records[0].value.unwrap()).unwrap().hour, hour);
    }
}
