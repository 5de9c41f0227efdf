//! Hands the counting stage to the log.

use std::time::Duration;

use millrace_log::{Limits, Log, LogError, RunOptions, Status};
use millrace_service::health::{Component, Health};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Counting;

/// Settings of the processor. `millrace/default.toml` documents each.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address of the admin listener: health and metrics.
    pub admin: std::net::SocketAddr,
    /// Worker threads of this process.
    pub workers: usize,
    /// Most records of one step.
    pub step_records: usize,
    /// Most bytes of one step.
    pub step_bytes: millrace_service::config::Size,
    /// Longest time a step collects records.
    pub step_time: millrace_service::config::Span,
}

impl Config {
    /// What is wrong, as (key below the section, what is allowed).
    pub fn validate(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut check = |ok: bool, key: &str, allowed: &str| {
            if !ok {
                problems.push((key.to_owned(), allowed.to_owned()));
            }
        };
        check((1..=64).contains(&self.workers), "workers", "1 to 64");
        check((1..=50_000).contains(&self.step_records), "step_records", "1 to 50000");
        check((1_024..=256 << 20).contains(&self.step_bytes.0), "step_bytes", "1KiB to 256MiB");
        let time = Duration::from_millis(1)..=Duration::from_millis(100);
        check(time.contains(&self.step_time.0), "step_time", "1ms to 100ms");
        problems
    }
}

/// Counts until `stop`. `instance` names this process among the processors, the same after a restart.
#[expect(clippy::needless_pass_by_value, reason = "every service takes its own of what it runs with")]
pub fn run(
    config: Config,
    log: Log,
    instance: String,
    health: Health,
    stop: CancellationToken,
) -> impl Future<Output = Result<(), LogError>> + Send + 'static {
    // Joined in at once, not at the first poll: the process must not look ready before its services have begun.
    let component = health.component("processor");
    async move {
        let (status, seen) = watch::channel(Status::Starting);
        let follow = tokio::spawn(follow_status(seen, component));
        let bounds = Limits {
            records: config.step_records,
            bytes: usize::try_from(config.step_bytes.0).unwrap_or(usize::MAX),
            wait: config.step_time.0,
        };
        let options = RunOptions { role: "processor".into(), instance, workers: config.workers, step: bounds, status };
        let ended = log.run_stage(Counting, options, stop).await;
        follow.abort();
        ended
    }
}

/// Ready while partitions are at work: one that restores or retries is not.
async fn follow_status(mut status: watch::Receiver<Status>, component: Component) {
    loop {
        match &*status.borrow_and_update() {
            Status::Starting => component.not_ready("waiting for partitions"),
            Status::Restoring { partitions } => component.not_ready(format!("restoring partitions {partitions:?}")),
            Status::Running { .. } => component.ready(),
            Status::Retrying { why } => component.not_ready(why.clone()),
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}
