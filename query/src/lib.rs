//! The read side: hourly counts over HTTP, the dashboard, and the log's schemas in a schema registry's read API.
//!
//! Counts come in from the read models ([`ReadModels`]: Redis for live hours, the archive for all) and go out as text, JSON
//! or CSV, with headers that state how fresh they are. The path of a read: [`router`] dispatches to a handler below
//! `analytics`, which parses (`params`, `format`) and reads through `app`: the current hour from a snapshot in memory
//! (`current`), any other hour through a single flight. Both read through the port [`HourReader`], and hold the result
//! as a rendered response (`render`). [`Tiers`] implements the port: it selects
//! the read model, each behind a circuit breaker, guarantees monotonic reads (`high_water`), and compares what the read models
//! have counted with the end of the log (`freshness`), for which a read may wait (`wait`). `range` and `live` serve the same
//! counts, many hours at once and as they change.
//!
//! Not here: how the stores store counts (`millrace-store`), who fills them (`millrace-materializer`), and the accept loop
//! with its limits (`millrace-service`). Nothing runs in the background except a probe of the stores once a second for
//! readiness, a look at the ends of the log and the positions of the stores four times a second, and the publisher of live
//! events while a stream is open.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod analytics;
mod app;
mod compression;
mod config;
mod dashboard;
mod metrics;
mod readiness;
mod registry;
mod router;
mod stores;

use std::sync::Arc;

use millrace_base::Clock;
use millrace_contracts::Names;
use millrace_service::ServiceContext;
use tokio::net::TcpListener;

pub use config::Config;
pub use router::router;
pub use stores::port::{HourCounts, HourReader, ReadError, Tier};
pub use stores::position::{Coverage, MinPositions, PositionError};
pub use stores::refill::{RefillSender, refill_sender};
pub use stores::tiers::{ReadModels, Tiers};

/// Serves reads on `listener` until `context` stops, which also ends live streams.
///
/// The component `query` of its health reports whether a store was available at the last read. A probe every second and
/// every request for `/readyz` update it.
#[expect(clippy::needless_pass_by_value, reason = "every service owns what it runs with")]
pub fn run(
    config: Config,
    listener: TcpListener,
    models: ReadModels,
    names: Names,
    context: ServiceContext,
) -> impl Future<Output = ()> + Send + 'static {
    // Registers the health component now, not at the first poll: the process must not be ready before its services are.
    let engine = if models.live.is_some() { "kafka" } else { "embedded" };
    let hours = Arc::new(Tiers::new(models, &config, Clock::system()));
    let follower = Arc::clone(&hours);
    let app = app::App::new(&config, hours, &names, &context.health, Clock::system());
    let feed = analytics::live::LiveFeed::new(&config, Arc::clone(&app), context.stop.clone());
    let reporter =
        dashboard::status::StatusReporter::new(&config, engine, app.hours.clone(), &context, Clock::system());
    let context = context.with_proxy_protocol(config.proxy_protocol);
    let router =
        router::routes(&app, feed, &names, &context.health, dashboard::router(reporter, config.command_url.clone()));
    async move {
        let probe = move || {
            let app = Arc::clone(&app);
            async move { app.probe().await }
        };
        let serving = context.serve_http(listener, router, config.limits, probe);
        tokio::select! {
            () = serving => {}
            () = follower.follow() => {}
        }
    }
}
