//! The routes, and the way of one read through them.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use millrace_contracts::{Code, Hour, Names};
use millrace_service::Problem;
use millrace_service::health::Health;
use millrace_service::openapi::{route, serve};
use tokio_util::sync::CancellationToken;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::SizeAbove;
use utoipa_axum::router::OpenApiRouter;

use crate::accept::Format;
use crate::current::{Checked, Current, Outcome};
use crate::flights::Flights;
use crate::live::{self, Live};
use crate::metrics::{self, Metrics};
use crate::page::{Keep, Page};
use crate::readiness::Readiness;
use crate::{Config, Hours, Missed, openapi, params, range, registry};

/// Tells the time in ms since the epoch.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// When a client that got a 503 may ask again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The shortest body that is compressed where its length is known.
const COMPRESSED_FROM: u64 = 1_024;

/// The system's clock.
pub fn system_clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

/// Every route of the query service's public port. Live streams end when `stop` is cancelled.
pub fn router(
    config: &Config,
    hours: Arc<dyn Hours>,
    names: &Names,
    health: &Health,
    clock: Clock,
    stop: CancellationToken,
) -> Router {
    routes(&App::new(config, hours, health, clock, stop), names, health, OpenApiRouter::default())
}

/// All routes, those of the `page` among them.
pub(crate) fn routes(app: &Arc<App>, names: &Names, health: &Health, page: OpenApiRouter) -> Router {
    let health = health.router().route_layer(middleware::from_fn_with_state(Arc::clone(app), probe));
    let compressed = OpenApiRouter::default()
        .routes(route("/analytics/range", openapi::range(app.max_range_hours), get(range::range)))
        .with_state(Arc::clone(app))
        .merge(registry::router(names))
        .layer(CompressionLayer::new().compress_when(SizeAbove::new(COMPRESSED_FROM)));
    let api = OpenApiRouter::with_openapi(openapi::about())
        .routes(route("/analytics", openapi::hour(), get(analytics)))
        .routes(route("/analytics/live", openapi::live(), get(live::live)))
        .with_state(Arc::clone(app))
        .merge(compressed)
        .merge(page);
    serve(api, health)
        .fallback(async || Problem::new(Code::NotFound, "no such route"))
        .method_not_allowed_fallback(async || Problem::new(Code::MethodNotAllowed, "the route has no such method"))
}

pub(crate) struct App {
    pub(crate) hours: Arc<dyn Hours>,
    pub(crate) clock: Clock,
    pub(crate) live: Live,
    pub(crate) max_range_hours: u32,
    current: Current,
    flights: Flights,
    metrics: Metrics,
    readiness: Readiness,
}

async fn analytics(State(app): State<Arc<App>>, request: Request) -> Response {
    let timestamp_ms = match params::timestamp(request.uri().query()) {
        Ok(timestamp_ms) => timestamp_ms,
        Err(problem) => return problem.into_response(),
    };
    let Some(format) = Format::wanted(request.headers()) else {
        let detail = "served are text/plain, application/json and text/csv";
        return Problem::new(Code::NotAcceptable, detail).field("accept").into_response();
    };
    let now_ms = (app.clock)();
    let (hour, current) = (Hour::of_ms(timestamp_ms), Hour::of_ms(now_ms));
    if hour == current
        && let Some(fresh) = app.current.fresh(hour, now_ms)
        && let Some(checked) = fresh.as_ref()
    {
        return app.answer(&checked.outcome, format, request.headers());
    }
    // Boxed, so that the many requests that end above do not carry the room of the few that come here.
    Box::pin(app.read(hour, current, format, request.headers())).await
}

impl App {
    pub(crate) fn new(
        config: &Config,
        hours: Arc<dyn Hours>,
        health: &Health,
        clock: Clock,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            hours,
            clock,
            live: Live::new(config, stop),
            max_range_hours: config.max_range_hours,
            current: Current::new(config),
            flights: Flights::default(),
            metrics: Metrics::new(),
            readiness: Readiness::new(health.component("query")),
        })
    }

    /// Looks at the stores, unless that was done a moment ago, so that readiness is true on every listener.
    pub(crate) async fn look(&self) {
        self.check(Hour::of_ms((self.clock)())).await;
    }

    /// What is known of the current hour.
    pub(crate) async fn check(&self, current: Hour) -> Arc<Checked> {
        let checked = self.current.get(current, &*self.hours, &self.clock).await;
        self.readiness.note(checked.answered);
        checked
    }

    /// What is known of any other hour.
    pub(crate) async fn look_up(&self, hour: Hour, current: Hour) -> Arc<Outcome> {
        let read = async {
            let keep = if hour < current { Keep::Minute } else { Keep::Moment };
            match self.hours.read(hour, current).await {
                Ok(known) => Outcome::Known(Box::new(Page::new(known, keep, (self.clock)()))),
                Err(missed) => Outcome::Missed(missed),
            }
        };
        self.flights.join(hour, read).await
    }

    async fn read(&self, hour: Hour, current: Hour, format: Format, request: &HeaderMap) -> Response {
        if hour == current {
            return self.answer(&self.check(hour).await.outcome, format, request);
        }
        self.answer(&*self.look_up(hour, current).await, format, request)
    }

    fn answer(&self, outcome: &Outcome, format: Format, request: &HeaderMap) -> Response {
        match outcome {
            Outcome::Known(page) => {
                self.metrics.answered(page.known.tier, page.known.stale);
                page.respond(format, request)
            }
            Outcome::Missed(missed) => refused(*missed).into_response(),
        }
    }
}

/// The 503 of an hour that cannot be told. Counted here.
pub(crate) fn refused(missed: Missed) -> Problem {
    let (code, detail) = missed.code();
    metrics::unanswered(code);
    Problem::new(code, detail).retry_after(RETRY_AFTER)
}

/// Health is asked for: look at the stores, unless that was done a moment ago.
async fn probe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if request.uri().path() == "/readyz" {
        app.look().await;
    }
    next.run(request).await
}
