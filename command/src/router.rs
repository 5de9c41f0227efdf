//! The routes of the command service, and running it.

use std::future::ready;
use std::sync::Arc;

use axum::Router;
use millrace_base::Clock;
use millrace_contracts::topics::Coordinate;
use millrace_contracts::{Code, Names};
use millrace_log::Log;
use millrace_service::auth::Authenticator;
use millrace_service::health::Health;
use millrace_service::{Problem, ServiceContext, export_agreed_settings, openapi};
use tokio::net::TcpListener;

use crate::app::App;
use crate::topics::NoCoordinator;
use crate::{Config, analytics, log_id, page, topics};

/// Every route of the public listener with authentication off, without coordinators: those of topics end as unavailable.
pub fn router(config: &Config, log: Log, names: &Names, clock: Clock) -> Router {
    let app = App::new(config, log, names, clock, Arc::new(NoCoordinator));
    Authenticator::off().protect(routes(app, &Health::new()))
}

fn routes(app: Arc<App>, health: &Health) -> Router {
    let page = page::routes(app.config.query_url.clone());
    let routes = analytics::routes(&app).merge(log_id::routes()).merge(topics::routes(&app)).merge(page);
    openapi::serve(routes.with_state(app), health.router()).fallback(async || {
        let detail = "no such route on the write side, which /docs describes; topics are at /topics, counts on the read side \
                      (query.listen, port 8082 by default)";
        Problem::new(Code::NotFound, detail)
    })
}

/// Serves the write side on `listener` until `context` stops, the requests under way are answered, and the log has
/// reported on what was answered before its report.
pub fn run(
    config: Config,
    listener: TcpListener,
    log: Log,
    names: Names,
    coordinate: Arc<dyn Coordinate>,
    context: ServiceContext,
) -> impl Future<Output = ()> + Send + 'static {
    // Registered at once, not at the first poll: the process must not look ready before its services have begun.
    let component = context.health.component("command");
    let context = context.with_proxy_protocol(config.proxy_protocol);
    export_agreed_settings(config.event_window.by_key());
    async move {
        let app = App::new(&config, log.clone(), &names, Clock::system(), coordinate);
        let routes = routes(app.clone(), &context.health);
        let drain = config.limits.drain_timeout.0;
        let probe = move || {
            match log.health() {
                Ok(()) => component.ready(),
                Err(reason) => component.not_ready(reason),
            }
            ready(())
        };
        context.serve_http(listener, routes, config.limits, probe).await;
        app.appender.drain(drain).await;
    }
}
