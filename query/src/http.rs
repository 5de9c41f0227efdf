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
use millrace_store::Answer;

use crate::accept::Format;
use crate::current::{Current, Outcome};
use crate::flights::Flights;
use crate::metrics::{self, Metrics};
use crate::page::{Keep, Page};
use crate::readiness::Readiness;
use crate::{Config, Hours, params, registry};

/// Tells the time in ms since the epoch.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// When a client that got a 503 may ask again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The system's clock.
pub fn system_clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

/// Every route of the query service's public port.
pub fn router(config: &Config, hours: Arc<dyn Hours>, names: &Names, health: &Health, clock: Clock) -> Router {
    routes(&App::new(config, hours, health, clock), names, health)
}

pub(crate) fn routes(app: &Arc<App>, names: &Names, health: &Health) -> Router {
    let health = health.router().route_layer(middleware::from_fn_with_state(Arc::clone(app), probe));
    Router::new()
        .route("/analytics", get(analytics))
        .with_state(Arc::clone(app))
        .merge(health)
        .merge(registry::router(names))
        .fallback(async || Problem::new(Code::NotFound, "no such route"))
        .method_not_allowed_fallback(async || Problem::new(Code::MethodNotAllowed, "the route has no such method"))
}

pub(crate) struct App {
    hours: Arc<dyn Hours>,
    clock: Clock,
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
    pub(crate) fn new(config: &Config, hours: Arc<dyn Hours>, health: &Health, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            hours,
            clock,
            current: Current::new(config),
            flights: Flights::default(),
            metrics: Metrics::new(),
            readiness: Readiness::new(health.component("query")),
        })
    }

    /// Looks at the stores, unless that was done a moment ago, so that readiness is true on every listener.
    pub(crate) async fn look(&self) {
        let hour = Hour::of_ms((self.clock)());
        let checked = self.current.get(hour, &*self.hours, &self.clock).await;
        self.readiness.note(&checked.outcome);
    }

    async fn read(&self, hour: Hour, current: Hour, format: Format, request: &HeaderMap) -> Response {
        if hour == current {
            let checked = self.current.get(hour, &*self.hours, &self.clock).await;
            self.readiness.note(&checked.outcome);
            return self.answer(&checked.outcome, format, request);
        }
        let keep = if hour < current { Keep::Minute } else { Keep::Moment };
        let outcome = self.flights.join(hour, self.look_up(hour, current, keep)).await;
        self.answer(&outcome, format, request)
    }

    async fn look_up(&self, hour: Hour, current: Hour, keep: Keep) -> Outcome {
        let begun_ms = (self.clock)();
        match self.hours.read(hour, current).await {
            Ok(found) => match found.answer {
                Answer::Known(totals) => Outcome::Known(Box::new(Page::new(&totals, found.tier, keep, begun_ms))),
                Answer::Rebuilding => Outcome::Rebuilding,
            },
            Err(_) => Outcome::Unavailable,
        }
    }

    fn answer(&self, outcome: &Outcome, format: Format, request: &HeaderMap) -> Response {
        let (code, detail) = match outcome {
            Outcome::Known(page) => {
                self.metrics.answered(page.tier(), page.is_stale());
                return page.respond(format, request);
            }
            Outcome::Rebuilding => (Code::Rebuilding, "the hour's counts are being built again; try again soon"),
            Outcome::Unavailable => (Code::Unavailable, "no read model can be reached; try again soon"),
        };
        metrics::unanswered(code);
        Problem::new(code, detail).retry_after(RETRY_AFTER).into_response()
    }
}

/// Health is asked for: look at the stores, unless that was done a moment ago.
async fn probe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if request.uri().path() == "/readyz" {
        app.look().await;
    }
    next.run(request).await
}
