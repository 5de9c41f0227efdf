//! Runs one sink per store on the log.

use millrace_base::Clock;
use millrace_contracts::Topic;
use millrace_log::{Log, LogError};
use millrace_service::health::Health;
use millrace_store::{Archive, LiveHours, MessageIndex};
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::index::{self, Indexing};
use crate::projection::Projection;
use crate::refill::{self, Refill};

/// The read models to fill.
#[derive(Debug, Clone)]
pub struct Views {
    /// The live hours in Redis; `None` on the embedded engine.
    pub live: Option<LiveHours>,
    /// The archive of every hour.
    pub archive: Archive,
    /// The index of messages; `None` to leave it as it is.
    pub index: Option<MessageIndex>,
}

/// Projects until `stop`, each store independently. `instance` identifies this process among the materializers and survives
/// restarts. Returns an error only if the log is damaged.
#[expect(clippy::needless_pass_by_value, reason = "every service owns its arguments")]
pub fn run(
    config: Config,
    log: Log,
    instance: String,
    views: Views,
    health: Health,
    stop: CancellationToken,
) -> impl Future<Output = Result<(), LogError>> + Send + 'static {
    // Registered now, not at the first poll: the process must not report ready before its services run.
    let projection = |name, role, interval| Projection {
        config: config.clone(),
        log: log.clone(),
        name,
        role,
        interval,
        instance: instance.clone(),
        component: health.component(role),
        stop: stop.clone(),
    };
    // On the embedded engine readers have the current hour from the archive, otherwise from Redis.
    let archive_interval = views.live.is_some().then_some(config.archive_interval.0);
    let archive = projection("archive", "materializer-archive", archive_interval);
    let redis = views.live.map(|live| {
        let (archive, partitions, clock) = (views.archive.clone(), log.partitions(Topic::HOURLY), Clock::system());
        let refill = Refill { live: live.clone(), archive, partitions, clock };
        let refill = refill::run(refill, config.clone(), log.clone(), instance.clone(), stop.clone());
        (live, projection("redis", "materializer-redis", None), refill)
    });
    let index = views.index.map(|index| Indexing {
        index,
        config: config.clone(),
        log: log.clone(),
        instance: instance.clone(),
        component: health.component(index::ROLE),
        stop: stop.clone(),
    });
    async move {
        let archive = archive.run(move || views.archive.writer());
        let index = async {
            match index {
                None => Ok(()),
                Some(index) => index.run().await,
            }
        };
        match redis {
            // The embedded engine reads every hour from its archive and needs no refill.
            None => tokio::try_join!(archive, index).map(|_| ()),
            Some((live, redis, refill)) => {
                let redis = redis.run(move || live.writer());
                tokio::try_join!(archive, index, redis, refill).map(|_| ())
            }
        }
    }
}
