//! The routes of the command service, and running it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use millrace_base::Clock;
use millrace_contracts::Names;
use millrace_contracts::topics::Coordinate;
use millrace_log::Log;
use millrace_service::export_agreed_settings;
use millrace_service::health::{Component, Health};
use millrace_service::http::serve;
use millrace_service::openapi;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::topics::NoCoordinator;
use crate::{Config, analytics, topics};

const HEALTH_INTERVAL: Duration = Duration::from_secs(1);

/// Every route of the public listener, without coordinators: those of topics end as unavailable.
pub fn router(config: &Config, log: Log, names: &Names, clock: Clock) -> Router {
    routes(App::new(config, log, names, clock, Arc::new(NoCoordinator)), &Health::new())
}

fn routes(app: Arc<App>, health: &Health) -> Router {
    let routes = analytics::routes(&app).merge(topics::routes(&app));
    openapi::serve(routes.with_state(app), health.router())
}

/// Serves the write side on `listener` until `stop` is canceled, the requests under way are answered, and the log has
/// reported on what was answered before its report.
pub fn run(
    config: Config,
    listener: TcpListener,
    log: Log,
    names: Names,
    coordinate: Arc<dyn Coordinate>,
    health: Health,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    // Registered at once, not at the first poll: the process must not look ready before its services have begun.
    let component = health.component("command");
    export_agreed_settings(config.event_window.by_key());
    async move {
        let app = App::new(&config, log.clone(), &names, Clock::system(), coordinate);
        let routes = routes(app.clone(), &health);
        // However this ends, the watch ends with it.
        let watching = stop.child_token();
        let _end = watching.clone().drop_guard();
        tokio::spawn(watch(log, component, health, watching));
        let drain = config.limits.drain_timeout.0;
        serve(listener, routes, config.limits, stop).await;
        app.appender.drain(drain).await;
    }
}

/// Keeps readiness equal to the log's health. Once stopping, readiness is false before the listener closes.
async fn watch(log: Log, component: Component, health: Health, stop: CancellationToken) {
    let mut every = tokio::time::interval(HEALTH_INTERVAL);
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
