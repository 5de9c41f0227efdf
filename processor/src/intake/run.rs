//! Hands the intake stage to the log.

use millrace_log::{Log, LogError, RunOptions, Status};
use millrace_service::health::Health;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::stage::Dedup;
use super::state::DedupBounds;
use crate::Config;
use crate::run::follow_status;

/// Drops duplicates of TCP intake until `stop`. `instance` names this process among the processors, the same after a
/// restart.
#[expect(clippy::needless_pass_by_value, reason = "every service takes its own of what it runs with")]
pub fn run(
    config: Config,
    log: Log,
    instance: String,
    health: Health,
    stop: CancellationToken,
) -> impl Future<Output = Result<(), LogError>> + Send + 'static {
    // Registered at once, not at the first poll: the process must not look ready before its services have begun.
    let component = health.component("intake");
    async move {
        let (status, receiver) = watch::channel(Status::Starting);
        let follow = tokio::spawn(follow_status(receiver, component));
        let options =
            RunOptions { role: "intake".into(), instance, workers: config.workers, step: config.step(), status };
        let ended = log.run_stage(Dedup::new(DedupBounds::default()), options, stop).await;
        follow.abort();
        ended
    }
}
