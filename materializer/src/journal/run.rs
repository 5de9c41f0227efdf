//! Hands the journal's sink to the log.

use std::time::Duration;

use millrace_base::Backoff;
use millrace_contracts::{Topic, metric};
use millrace_log::{GroupPosition, Limits, Log, LogError, RunOptions, Status};
use millrace_service::health::{Component, Health};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::config::JournalConfig;
use super::sink::JournalSink;

/// Bounds of one batch: as much as comes while the one before is synced.
const STEP: Limits = Limits { records: 50_000, bytes: 16 << 20, wait: Duration::from_millis(5) };
const MIN_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// The role of the journal of a name: its consumer group.
pub fn role(name: &str) -> String {
    format!("journal.{name}")
}

/// Writes the journal until `stop`. What stops it is reported in the readiness and tried again, without a bound. Only a
/// damaged log ends it.
pub fn run(
    config: JournalConfig,
    log: Log,
    instance: String,
    health: &Health,
    stop: CancellationToken,
) -> impl Future<Output = Result<(), LogError>> + Send + 'static {
    // Registered at once, not at the first poll: the process must not look ready before its services have begun.
    let component = health.component("journal");
    async move {
        let role = role(&config.name);
        for counter in [metric::JOURNAL_RECORDS, metric::JOURNAL_BYTES, metric::JOURNAL_FOREIGN] {
            metrics::counter!(counter.name).increment(0);
        }
        let mut backoff = Backoff::new(MIN_PAUSE, MAX_PAUSE);
        loop {
            let (status, seen) = watch::channel(Status::Starting);
            let options = RunOptions { role: role.clone(), instance: instance.clone(), workers: 1, step: STEP, status };
            let follow = tokio::spawn(follow(seen, component.clone()));
            let ended = match group_position(&log, &role).await {
                Ok(group) => {
                    let config = config.clone();
                    log.run_sink(move || JournalSink::new(config.clone(), group), options, stop.clone()).await
                }
                Err(error) => Err(error),
            };
            follow.abort();
            match ended {
                Ok(()) => return Ok(()),
                Err(error @ LogError::Damaged(_)) => return Err(error),
                Err(error @ (LogError::Refused(_) | LogError::Unavailable(_))) => {
                    let pause = backoff.next_pause();
                    tracing::error!(%error, "the journal stopped; retrying in {pause:?}");
                    component.not_ready(error.to_string());
                    if tokio::time::timeout(pause, stop.cancelled()).await.is_ok() {
                        return Ok(());
                    }
                }
            }
        }
    }
}

async fn group_position(log: &Log, role: &str) -> Result<Option<GroupPosition>, LogError> {
    let (log, role) = (log.clone(), role.to_owned());
    let read = tokio::task::spawn_blocking(move || log.group_position(&role, Topic::INTAKE_JOURNAL, 0)).await;
    read.unwrap_or_else(|error| Err(LogError::unavailable(error.to_string())))
}

async fn follow(mut status: watch::Receiver<Status>, component: Component) {
    loop {
        match status.borrow_and_update().not_ready() {
            None => component.ready(),
            Some(why) => component.not_ready(why),
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}
