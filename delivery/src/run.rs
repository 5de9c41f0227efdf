//! Running the coordinators, and turning their status into readiness.

use millrace_log::{LogError, Status};
use millrace_service::health::{Component, Health};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Coordinators;

/// Coordinates the partitions it is assigned until `stop` is canceled.
pub fn run(
    coordinators: Coordinators,
    instance: String,
    health: &Health,
    stop: CancellationToken,
) -> impl Future<Output = Result<(), LogError>> + Send + 'static {
    // Registered at once, not at the first poll: the process must not look ready before its services have begun.
    let component = health.component("delivery");
    async move {
        let (status, changes) = watch::channel(Status::Starting);
        tokio::select! {
            ended = coordinators.run(instance, status, stop) => ended,
            never = follow(changes, component) => match never {},
        }
    }
}

/// Ready while all partitions are at work. Never ends before the run does.
async fn follow(mut changes: watch::Receiver<Status>, component: Component) -> std::convert::Infallible {
    loop {
        match changes.borrow_and_update().not_ready() {
            None => component.ready(),
            Some(why) => component.not_ready(why),
        }
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}
