//! Every route of the public port.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use millrace_base::Clock;
use millrace_contracts::{Code, Names};
use millrace_service::Problem;
use millrace_service::health::Health;
use millrace_service::openapi::{document, route, serve};
use tokio_util::sync::CancellationToken;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::SizeAbove;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::analytics::live::LiveFeed;
use crate::analytics::{self, hour, live, range};
use crate::app::App;
use crate::config::Config;
use crate::stores::port::HourReader;
use crate::{compression, dashboard, registry};

/// Bodies of a known length below this are sent uncompressed.
const MIN_COMPRESSED_BYTES: u64 = 1_024;

/// Every route of the query service except the dashboard's. Live streams end when `stop` is canceled.
pub fn router(
    config: &Config,
    hours: Arc<dyn HourReader>,
    names: &Names,
    health: &Health,
    clock: Clock,
    stop: CancellationToken,
) -> Router {
    let app = App::new(config, hours, names, health, clock);
    let feed = LiveFeed::new(config, Arc::clone(&app), stop);
    routes(&app, feed, names, health, OpenApiRouter::default())
}

/// Every route, with those of the `dashboard`.
pub(crate) fn routes(
    app: &Arc<App>,
    feed: Arc<LiveFeed>,
    names: &Names,
    health: &Health,
    dashboard: OpenApiRouter,
) -> Router {
    let health = health.router().route_layer(middleware::from_fn_with_state(Arc::clone(app), probe));
    let compressed = OpenApiRouter::default()
        .routes(route("/analytics/range", analytics::openapi::range(app.max_range_hours), get(range::range)))
        .with_state(Arc::clone(app))
        .merge(registry::router(names))
        .layer(CompressionLayer::new().compress_when(SizeAbove::new(MIN_COMPRESSED_BYTES)))
        .layer(middleware::from_fn_with_state(app.encoders.clone(), compression::bounded));
    let live = OpenApiRouter::default()
        .routes(route("/analytics/live", analytics::openapi::live(), get(live::live)))
        .with_state(feed);
    let api = OpenApiRouter::with_openapi(about())
        .routes(route("/analytics", analytics::openapi::hour(), get(hour::hour).fallback(write_elsewhere)))
        .with_state(Arc::clone(app))
        .merge(live)
        .merge(compressed)
        .merge(dashboard);
    serve(api, health)
        .fallback(async || {
            let detail = "no such route on the read side, which /docs describes; events and topics are on the write side \
                          (command.listen, port 8081 by default)";
            Problem::new(Code::NotFound, detail)
        })
        .method_not_allowed_fallback(async || Problem::new(Code::MethodNotAllowed, "the route has no such method"))
}

/// Who posts here has taken the one side for the other.
async fn write_elsewhere() -> Problem {
    let detail = "this is the read side; POST events to the write side (command.listen, port 8081 by default)";
    Problem::new(Code::MethodNotAllowed, detail)
}

fn about() -> OpenApi {
    let about = "Unique users, clicks and impressions of each UTC hour, and how fresh they are. The schemas of the log \
                 are below `/registry`, with the errors of a schema registry.";
    let mut document = document("Millrace, read side", about);
    let components = document.components.get_or_insert_default();
    analytics::openapi::schemas(components);
    dashboard::openapi::schemas(components);
    registry::openapi::schemas(components);
    document
}

/// Probes the read models before `/readyz` answers.
async fn probe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if request.uri().path() == "/readyz" {
        app.probe().await;
    }
    next.run(request).await
}
