//! One store's projection: run, watched, and started anew when its store ends it.

use std::convert::Infallible;
use std::time::Duration;

use millrace_contracts::metric;
use millrace_log::{Log, LogError, RunOptions, Status};
use millrace_service::health::Component;
use millrace_store::HourlyStore;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{Config, HourlySink, Standing};

/// How one round of a projection ended.
enum Ended {
    /// As asked.
    Stopped,
    /// The store lost what it had confirmed.
    Lost,
    /// With an error that the log does not heal by itself.
    Failed(LogError),
}

/// What a projection is made of, but for its store.
pub(crate) struct Projection {
    pub(crate) config: Config,
    pub(crate) log: Log,
    /// The store's name in metrics and logs.
    pub(crate) name: &'static str,
    pub(crate) role: &'static str,
    pub(crate) instance: String,
    pub(crate) component: Component,
    pub(crate) stop: CancellationToken,
}

impl Projection {
    /// Projects until stopped. What ends a round is said in the readiness and tried again, without a bound: the other
    /// store's projection goes on meanwhile. Only a damaged log ends it.
    pub(crate) async fn run<S: HourlyStore>(
        self,
        writer: impl Fn() -> S + Clone + Send + Sync + 'static,
    ) -> Result<(), LogError> {
        let mut pause = self.config.retry_min_delay.0;
        loop {
            let began = tokio::time::Instant::now();
            match self.round(&writer).await {
                Ended::Stopped => return Ok(()),
                Ended::Lost => metrics::counter!(metric::STORE_LOSSES.name, "store" => self.name).increment(1),
                Ended::Failed(error @ LogError::Damaged(_)) => return Err(error),
                Ended::Failed(error @ (LogError::Refused(_) | LogError::Unavailable(_))) => {
                    tracing::error!(store = self.name, %error, "projection ended, starting anew in {pause:?}");
                    self.component.not_ready(error.to_string());
                }
            }
            if began.elapsed() > self.config.retry_max_delay.0 {
                pause = self.config.retry_min_delay.0;
            }
            if self.stopped_within(pause).await {
                return Ok(());
            }
            pause = (pause * 2).min(self.config.retry_max_delay.0);
        }
    }

    async fn round<S: HourlyStore>(&self, writer: &(impl Fn() -> S + Clone + Send + Sync + 'static)) -> Ended {
        let stop = self.stop.child_token();
        let standing = Standing::default();
        let (status, seen) = watch::channel(Status::Starting);
        let (trouble, troubled) = watch::channel(None);
        let options = RunOptions {
            role: self.role.into(),
            instance: self.instance.clone(),
            workers: self.config.workers,
            step: self.config.step(),
            status,
        };
        let sink = {
            let (writer, name, standing) = (writer.clone(), self.name, standing.clone());
            move || HourlySink::new(writer(), name, standing.clone())
        };
        let mut running = std::pin::pin!(self.log.run_sink(sink, options, stop.clone()));
        let tell = |why| {
            trouble.send_if_modified(|old| {
                *old != why && {
                    *old = why;
                    true
                }
            });
        };
        let lost = tokio::select! {
            ended = &mut running => return ended.map_or_else(Ended::Failed, |()| Ended::Stopped),
            never = follow(seen, troubled, &self.component) => match never {},
            partition = crate::standing::until_lost(writer(), &standing, self.config.probe_interval.0, tell) => partition,
        };
        tracing::warn!(store = self.name, partition = lost, "the store lost what it had: building it again");
        self.component.not_ready("the store lost what it had");
        stop.cancel();
        match running.await {
            Ok(()) if self.stop.is_cancelled() => Ended::Stopped,
            Ok(()) => Ended::Lost,
            Err(error) => Ended::Failed(error),
        }
    }

    async fn stopped_within(&self, pause: Duration) -> bool {
        tokio::time::timeout(pause, self.stop.cancelled()).await.is_ok()
    }
}

/// Ready while partitions are at work and the store answers. Never ends before the round does.
async fn follow(
    mut status: watch::Receiver<Status>,
    mut trouble: watch::Receiver<Option<String>>,
    component: &Component,
) -> Infallible {
    loop {
        match (&*status.borrow_and_update(), &*trouble.borrow_and_update()) {
            (Status::Running { .. }, None) => component.ready(),
            (Status::Running { .. }, Some(why)) | (Status::Retrying { why }, _) => component.not_ready(why.clone()),
            (Status::Starting, _) => component.not_ready("waiting for partitions"),
            (Status::Restoring { partitions, progress }, _) => {
                component.not_ready(format!("restoring partitions {partitions:?}: {progress}"));
            }
        }
        let changed = tokio::select! {
            changed = status.changed() => changed,
            changed = trouble.changed() => changed,
        };
        if changed.is_err() {
            return std::future::pending().await;
        }
    }
}
