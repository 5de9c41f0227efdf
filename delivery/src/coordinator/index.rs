//! The index of messages as a coordinator uses it: while it answers, and if it is of this log.
//!
//! An index of another log, or from before `messages` was recreated, has a position past messages that it does not name: a
//! laggard would skip them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge};
use millrace_contracts::Topic;
use millrace_log::{Log, LogError};
use millrace_service::breaker::{Breaker, BreakerConfig, BreakerMetrics};
use millrace_store::{IndexPage, MessageIndex};

const BREAKER: BreakerConfig =
    BreakerConfig { window: 4, reset_timeout: Duration::from_secs(5), call_timeout: Duration::from_secs(2) };
/// From a check that failed to the next one.
const RECHECK_INTERVAL: Duration = Duration::from_secs(30);

/// The index, with the log that it has to be of.
pub(super) struct CheckedIndex {
    index: MessageIndex,
    log: Log,
    breaker: Breaker,
    /// The last check of each partition.
    checks: Mutex<BTreeMap<u32, Check>>,
}

#[derive(Debug, Clone, Copy)]
enum Check {
    /// The log has the record before the index's position. Once is enough: materializers check it before each run.
    Passed,
    Failed(Instant),
}

impl CheckedIndex {
    pub(super) fn new(index: MessageIndex, log: Log) -> Self {
        let metrics = BreakerMetrics { open: Gauge::noop(), errors: Counter::noop() };
        Self { index, log, breaker: Breaker::new("message-index", BREAKER, metrics), checks: Mutex::default() }
    }

    /// A topic's first offsets in a range, about `max` at most; `None` if the index does not reach it or cannot be used.
    pub(super) async fn page(
        &self,
        partition: u32,
        topic_id: u64,
        offsets: Range<u64>,
        max: usize,
    ) -> Option<IndexPage> {
        if !self.is_of_log(partition).await {
            return None;
        }
        let start = offsets.start;
        let page = self.breaker.call(Box::pin(self.index.page(partition, topic_id, offsets, max))).await.ok()?;
        (page.until > start).then_some(page)
    }

    /// Whether a partition's index is of this log.
    async fn is_of_log(&self, partition: u32) -> bool {
        let last = self.checks().get(&partition).copied();
        match last {
            Some(Check::Passed) => return true,
            Some(Check::Failed(at)) if at.elapsed() < RECHECK_INTERVAL => return false,
            Some(Check::Failed(_)) | None => {}
        }
        let stored = self.breaker.call(Box::pin(self.index.position(partition))).await;
        let Ok(Some(stored)) = stored else { return false };
        let (log, position) = (self.log.clone(), stored.position);
        let check = move || log.check_positions(Topic::MESSAGES, &[(partition, position)], None);
        let checked = tokio::task::spawn_blocking(check).await;
        let check = match checked.unwrap_or_else(|error| Err(LogError::unavailable(error.to_string()))) {
            Ok(()) => Check::Passed,
            Err(error) => {
                tracing::warn!(partition, %error, "cannot use the index of messages: scanning instead");
                Check::Failed(Instant::now())
            }
        };
        self.checks().insert(partition, check);
        matches!(check, Check::Passed)
    }

    fn checks(&self) -> MutexGuard<'_, BTreeMap<u32, Check>> {
        // Consistent between any two of its calls.
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
