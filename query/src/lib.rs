//! The read side: the counts of an hour over HTTP, and the schemas of the log in a schema registry's read API.
//!
//! A datum comes in from a read model ([`Reads`]: Redis for live hours, the archive for all) and goes out as one of
//! three representations with headers that tell how fresh it is. The way of one request through the files: `http` parses
//! (`params`, `accept`), asks `current` for the hour that runs now or `flights` for any other, both of which read through
//! [`Hours`] and keep what they got as a ready-made `page`; `conditional` may turn that into a 304. [`Tiers`] decides which
//! read model answers, each behind its `breaker`, and never says less than it has `said`. `range` with `rows` and `live`
//! are the same numbers, many at once and as they change.
//!
//! Not here: how the stores keep their numbers (`millrace-store`), who fills them (`millrace-materializer`), and the
//! accept loop with its limits (`millrace-service`). Nothing but a look at the stores once a second, for readiness, runs
//! unless a request asks for it or a live stream is open.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod accept;
mod conditional;
mod config;
mod current;
mod dashboard;
mod flights;
mod hours;
mod http;
mod live;
mod metrics;
mod openapi;
mod page;
mod params;
mod range;
mod readiness;
mod refresh;
mod registry;
mod rows;
mod said;
mod tiers;

use std::sync::Arc;
use std::time::Duration;

use millrace_contracts::Names;
use millrace_service::health::Health;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use config::Config;
pub use hours::{Hours, Known, Missed, Tier};
pub use http::{Clock, router, system_clock};
pub use refresh::ask_by;
pub use tiers::{Reads, Refresh, Tiers};

/// Between two looks at the stores for readiness.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Serves reads on `listener` until `stop` is cancelled, which ends live streams at once.
///
/// The component `query` of `health` says whether a store could be read when it was last asked. `/readyz` asks, and so
/// does a look a second, for listeners that only show what is known.
#[expect(clippy::needless_pass_by_value, reason = "every service takes its own of what it runs with")]
pub fn run(
    config: Config,
    listener: TcpListener,
    reads: Reads,
    names: Names,
    health: Health,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    // Joined in at once, not at the first poll: the process must not look ready before its services have begun.
    let hours = Arc::new(Tiers::new(reads, &config, system_clock()));
    let app = http::App::new(&config, hours, &health, system_clock(), stop.clone());
    let status = dashboard::Status::new(config.watch.clone(), health.clone(), system_clock());
    let router = http::routes(&app, &names, &health, dashboard::router(status));
    async move {
        let looking = tokio::spawn(async move {
            loop {
                app.look().await;
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        millrace_service::http::serve(listener, router, config.limits, stop).await;
        looking.abort();
    }
}
