//! Hands one sink for each store to the log.

use millrace_contracts::Topic;
use millrace_log::{Log, LogError};
use millrace_service::health::Health;
use millrace_store::{Archive, Clock, LiveHours};
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::projection::Projection;
use crate::refill::{self, Refill};

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
#[expect(clippy::needless_pass_by_value, reason = "every service takes its own of what it runs with")]
pub fn run(
    config: Config,
    log: Log,
    instance: String,
    views: Views,
    health: Health,
    stop: CancellationToken,
) -> impl Future<Output = Result<(), LogError>> + Send + 'static {
    // Joined in at once, not at the first poll: the process must not look ready before its services have begun.
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
    let redis = views.live.map(|live| {
        let (archive, partitions, clock) = (views.archive.clone(), log.partitions(Topic::HOURLY), Clock::system());
        let refill = Refill { live: live.clone(), archive, partitions, clock };
        let refill = refill::run(refill, config.clone(), log.clone(), instance.clone(), stop.clone());
        (live, projection("redis", "materializer-redis"), refill)
    });
    async move {
        let archive = archive.run(move || views.archive.writer());
        match redis {
            // The embedded engine reads every hour from its archive: there is nothing to refill.
            None => archive.await,
            Some((live, redis, refill)) => {
                let redis = redis.run(move || live.writer());
                tokio::try_join!(archive, redis, refill).map(|_| ())
            }
        }
    }
}
