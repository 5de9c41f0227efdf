//! The routes of the write side, and running them.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{any, post};
use millrace_contracts::{Names, Topic};
use millrace_log::Log;
use millrace_service::health::{Component, Health};
use millrace_service::http::{BodyMemory, serve};
use millrace_service::openapi::{self, route};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;

use crate::append::Appender;
use crate::clock::{Clock, system_clock};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::{batch, openapi as said, pixel, single};

const HEALTH_EVERY: Duration = Duration::from_secs(1);

/// What all requests share.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) appender: Appender,
    pub(crate) bodies: BodyMemory,
    pub(crate) topic: String,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
}

/// Why the write side ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The HTTP server failed.
    #[error("the HTTP server failed: {0}")]
    Http(#[from] std::io::Error),
}

/// The routes that take events.
pub fn router(config: &Config, log: Log, names: &Names, clock: Clock) -> Router {
    routes(App::new(config, log, names, clock), &Health::new())
}

impl App {
    fn new(config: &Config, log: Log, names: &Names, clock: Clock) -> Arc<Self> {
        let metrics = Arc::new(Metrics::new());
        Arc::new(Self {
            appender: Appender::new(log, metrics.clone()),
            bodies: BodyMemory::new(config.body_memory.0),
            topic: names.topic(&Topic::EVENTS),
            config: config.clone(),
            clock,
            metrics,
        })
    }
}

fn routes(app: Arc<App>, health: &Health) -> Router {
    let config = &app.config;
    let api = OpenApiRouter::with_openapi(said::about())
        .routes(route("/analytics", said::single(config), post(single::post)))
        .routes(route("/analytics/batch", said::batch(config), post(batch::post)))
        .routes(route("/pixel.gif", said::pixel(config), any(pixel::get)));
    openapi::serve(api.with_state(app), health.router())
}

/// Serves the write side on `listener` until `stop` is cancelled, the requests under way are answered, and the log has
/// reported on what was answered before its report.
pub fn run(
    config: Config,
    listener: TcpListener,
    log: Log,
    names: Names,
    health: Health,
    stop: CancellationToken,
) -> impl Future<Output = Result<(), Error>> + Send + 'static {
    // Joined in at once, not at the first poll: the process must not look ready before its services have begun.
    let component = health.component("command");
    async move {
        let app = App::new(&config, log.clone(), &names, system_clock());
        let routes = routes(app.clone(), &health);
        // Whatever way this ends, the watch ends with it.
        let watching = stop.child_token();
        let _end = watching.clone().drop_guard();
        tokio::spawn(watch(log, component, health, watching));
        let drain = config.limits.drain_timeout.0;
        let served = serve(listener, routes, config.limits, stop).await;
        app.appender.drain(drain).await;
        Ok(served?)
    }
}

/// Keeps readiness true to the log's health. Once stopping, readiness is false before the listener closes.
async fn watch(log: Log, component: Component, health: Health, stop: CancellationToken) {
    let mut every = tokio::time::interval(HEALTH_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return health.drain(),
            _ = every.tick() => match log.health() {
                Ok(()) => component.ready(),
                Err(why) => component.not_ready(why),
            },
        }
    }
}
