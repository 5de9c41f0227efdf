//! The projection into one store: runs the sink, probes the store, reports the status, and restarts after a failure.

use std::convert::Infallible;
use std::time::Duration;

use millrace_base::Backoff;
use millrace_contracts::metric;
use millrace_log::{Log, LogError, RunOptions, Status};
use millrace_service::health::Component;
use millrace_store::HourlyStore;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::pace::Pace;
use crate::probe::until_lost;
use crate::{Config, ConfirmedPositions, HourlySink};

/// Why one run of a projection ended.
enum End {
    /// A shutdown.
    Stopped,
    /// The store lost data that it had confirmed.
    DataLoss,
    /// An error that the log does not retry internally.
    Failed(LogError),
}

/// A projection, without its store.
pub(crate) struct Projection {
    pub(crate) config: Config,
    pub(crate) log: Log,
    /// The store's name in metrics and logs.
    pub(crate) name: &'static str,
    pub(crate) role: &'static str,
    /// The least time between two writes, if another store is ahead of this one.
    pub(crate) interval: Option<Duration>,
    pub(crate) instance: String,
    pub(crate) component: Component,
    pub(crate) stop: CancellationToken,
}

impl Projection {
    /// Projects until stopped. After a failure it reports not ready and restarts with backoff, forever; the projection into
    /// the other store continues meanwhile. Only a damaged log ends it.
    pub(crate) async fn run<S: HourlyStore>(
        self,
        writer: impl Fn() -> S + Clone + Send + Sync + 'static,
    ) -> Result<(), LogError> {
        let max_delay = self.config.retry_max_delay.0;
        let mut backoff = Backoff::new(self.config.retry_min_delay.0, max_delay);
        loop {
            let began = Instant::now();
            let end = self.run_once(&writer).await;
            if began.elapsed() > max_delay {
                backoff.reset();
            }
            let pause = backoff.next_pause();
            match end {
                End::Stopped => return Ok(()),
                End::DataLoss => metrics::counter!(metric::STORE_LOSSES.name, "store" => self.name).increment(1),
                End::Failed(error @ LogError::Damaged(_)) => return Err(error),
                End::Failed(error @ (LogError::Refused(_) | LogError::Unavailable(_))) => {
                    tracing::error!(store = self.name, %error, "projection failed, restarting in {pause:?}");
                    self.component.not_ready(error.to_string());
                }
            }
            if self.stopped_within(pause).await {
                return Ok(());
            }
        }
    }

    async fn run_once<S: HourlyStore>(&self, writer: &(impl Fn() -> S + Clone + Send + Sync + 'static)) -> End {
        let stop = self.stop.child_token();
        let confirmed = ConfirmedPositions::default();
        let (status, statuses) = watch::channel(Status::Starting);
        let (probe_error, probe_errors) = watch::channel(None);
        let options = RunOptions {
            role: self.role.into(),
            instance: self.instance.clone(),
            workers: self.config.workers,
            step: self.config.step(),
            status,
        };
        let sink = {
            let (writer, name, confirmed) = (writer.clone(), self.name, confirmed.clone());
            let (interval, limits, stop) = (self.interval, self.config.step(), stop.clone());
            move || {
                let sink = HourlySink::new(writer(), name, confirmed.clone());
                match interval {
                    None => sink,
                    Some(interval) => sink.paced(Pace::new(interval, limits, stop.clone())),
                }
            }
        };
        let mut running = std::pin::pin!(self.log.run_sink(sink, options, stop.clone()));
        let report = |error| {
            probe_error.send_if_modified(|last| {
                *last != error && {
                    *last = error;
                    true
                }
            });
        };
        let partition = tokio::select! {
            result = &mut running => return result.map_or_else(End::Failed, |()| End::Stopped),
            never = report_status(statuses, probe_errors, &self.component) => match never {},
            partition = until_lost(writer(), &confirmed, self.config.probe_interval.0, report) => partition,
        };
        tracing::warn!(
            store = self.name,
            partition,
            "the store lost data that it had confirmed: rebuilding from the log"
        );
        self.component.not_ready("the store lost data: rebuilding from the log");
        stop.cancel();
        match running.await {
            Ok(()) if self.stop.is_cancelled() => End::Stopped,
            Ok(()) => End::DataLoss,
            Err(error) => End::Failed(error),
        }
    }

    async fn stopped_within(&self, pause: Duration) -> bool {
        tokio::time::timeout(pause, self.stop.cancelled()).await.is_ok()
    }
}

/// Reports ready while partitions run and probes succeed. Never returns.
async fn report_status(
    mut status: watch::Receiver<Status>,
    mut probe_error: watch::Receiver<Option<String>>,
    component: &Component,
) -> Infallible {
    loop {
        let not_ready = status.borrow_and_update().not_ready();
        match not_ready.or_else(|| probe_error.borrow_and_update().clone()) {
            None => component.ready(),
            Some(why) => component.not_ready(why),
        }
        let changed = tokio::select! {
            changed = status.changed() => changed,
            changed = probe_error.changed() => changed,
        };
        if changed.is_err() {
            return std::future::pending().await;
        }
    }
}
