//! Runs the counting stage on the log, and reports its status.

use millrace_contracts::Topic;
use millrace_log::{Log, LogError, RunOptions, Status};
use millrace_service::export_agreed_settings;
use millrace_service::health::{Component, Health};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{Config, Counting};

/// Counts until `stop`. `instance` identifies this process among the processors and survives restarts.
#[expect(clippy::needless_pass_by_value, reason = "every service owns its arguments")]
pub fn run(
    config: Config,
    log: Log,
    instance: String,
    health: Health,
    stop: CancellationToken,
) -> impl Future<Output = Result<(), LogError>> + Send + 'static {
    // Registered now, not at the first poll: the process must not report ready before its services run.
    let component = health.component("processor");
    export_agreed_settings(config.event_window.by_key());
    async move {
        let (status, receiver) = watch::channel(Status::Starting);
        let follow = tokio::spawn(follow_status(receiver, component.clone()));
        let step = config.step();
        let options = RunOptions { role: "processor".into(), instance, workers: config.workers, step, status };
        let counting = Counting::new(
            log.partitions(Topic::EVENTS),
            config.event_window,
            config.bounds(),
            config.scratch_directory,
        );
        let warn = tokio::spawn(warn_on_disagreement(counting.disagreement(), component));
        let result = log.run_stage(counting, options, stop).await;
        follow.abort();
        warn.abort();
        result
    }
}

/// Reports ready while all its partitions run, and not ready during a restore or a retry, or if one failed.
pub(crate) async fn follow_status(mut status: watch::Receiver<Status>, component: Component) {
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

/// Warns once processes disagree on settings, until the process restarts: it takes a restart to change them.
async fn warn_on_disagreement(mut disagreement: watch::Receiver<bool>, component: Component) {
    if disagreement.wait_for(|found| *found).await.is_ok() {
        component.warn(
            "quarantined accepted events: processes disagree on analytics.accept_from or analytics.future_tolerance",
        );
    }
}
