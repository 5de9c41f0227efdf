//! Watches how far journals are behind: what expires in the log before a journal has it is lost to the journal.

use std::sync::Arc;
use std::time::Duration;

use millrace_base::Clock;
use millrace_contracts::{Cleanup, Topic};
use millrace_log::{Batch, Limits, Log, LogError, PollOutcome};

use super::intake::TcpIntake;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(10);
/// Share of the retention, in percent, that a journal may be behind.
const MAX_LAG_PERCENT: u64 = 80;

/// Refuses messages while a journal lags, and takes them again when it does not.
pub(crate) async fn watch(intake: Arc<TcpIntake>) {
    let Cleanup::Delete { retention_ms } = Topic::INTAKE_JOURNAL.cleanup else { return };
    let max_ms = i64::try_from(retention_ms / 100 * MAX_LAG_PERCENT).unwrap_or(i64::MAX);
    let mut every = tokio::time::interval(INTERVAL);
    loop {
        every.tick().await;
        let mut oldest: Option<(i64, &str)> = None;
        let mut known = true;
        for name in &intake.config.journals {
            match lag_ms(intake.log.clone(), name).await {
                Ok(Some(lag)) if oldest.is_none_or(|(oldest, _)| lag > oldest) => oldest = Some((lag, name)),
                Ok(_) => {}
                Err(error) => {
                    known = false;
                    tracing::debug!(%error, journal = name, "the journal's position cannot be read");
                }
            }
        }
        let lagging = oldest.is_some_and(|(lag, _)| lag > max_ms);
        // What is not known changes nothing.
        if lagging != intake.is_lagging() && (lagging || known) {
            if let Some((lag_ms, journal)) = oldest.filter(|_| lagging) {
                tracing::error!(journal, lag_ms, "the journal lags: messages are refused");
            } else {
                tracing::info!("no journal lags: messages are taken again");
            }
            intake.set_lagging(lagging);
        }
    }
}

/// The age of the first record that a journal does not have; `None` if it has all, or was never written.
async fn lag_ms(log: Log, journal: &str) -> Result<Option<i64>, LogError> {
    let role = format!("journal.{journal}");
    let read = move || {
        let Some(position) = log.group_position(&role, Topic::INTAKE_JOURNAL, 0)? else { return Ok(None) };
        let mut reader = log.reader(Topic::INTAKE_JOURNAL, &[(0, position.next_offset)])?;
        let (mut batch, limits) = (Batch::default(), Limits { records: 1, bytes: 1, wait: Duration::from_secs(2) });
        match reader.poll(&mut batch, limits)? {
            PollOutcome::Records => {
                Ok(batch.iter().next().map(|record| Clock::system().now_ms() - record.timestamp_ms))
            }
            PollOutcome::CaughtUp { .. } | PollOutcome::Nothing => Ok(None),
        }
    };
    let read = tokio::task::spawn_blocking(read).await;
    read.unwrap_or_else(|error| Err(LogError::unavailable(error.to_string())))
}
