//! Hands one sink for each store to the log.

use millrace_log::{Log, LogError};
use millrace_service::health::Health;
use millrace_store::{Archive, LiveHours};
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::projection::Projection;

/// The read models to fill.
#[derive(Debug, Clone)]
pub struct Views {
    /// The live hours in Redis; the embedded engine has none.
    pub live: Option<LiveHours>,
    /// Every hour.
    pub archive: Archive,
}

/// Projects until `stop`, each store by itself. `instance` names this process among the materializers, the same after a
/// restart. Ends with an error only when the log is damaged.
pub async fn run(
    config: Config,
    log: Log,
    instance: String,
    views: Views,
    health: Health,
    stop: CancellationToken,
) -> Result<(), LogError> {
    let projection = |name, role| Projection {
        config: config.clone(),
        log: log.clone(),
        name,
        role,
        instance: instance.clone(),
        component: health.component(role),
        stop: stop.clone(),
    };
    let archive = projection("archive", "materializer-archive");
    let archive = archive.run(move || views.archive.writer());
    match views.live {
        None => archive.await,
        Some(live) => {
            let redis = projection("redis", "materializer-redis");
            let redis = redis.run(move || live.writer());
            tokio::try_join!(archive, redis).map(|_| ())
        }
    }
}
