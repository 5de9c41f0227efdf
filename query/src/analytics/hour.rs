//! `GET /analytics`: the counts of one hour.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use millrace_contracts::{Code, Hour};
use millrace_service::Problem;

use super::current::HourResult;
use super::format::Format;
use super::params;
use crate::app::{App, unavailable};

pub(crate) async fn hour(State(app): State<Arc<App>>, request: Request) -> Response {
    let timestamp_ms = match params::timestamp(request.uri().query()) {
        Ok(timestamp_ms) => timestamp_ms,
        Err(refusal) => return Problem::from(refusal).into_response(),
    };
    let Some(format) = Format::negotiate(request.headers()) else {
        let detail = "available are text/plain, application/json and text/csv";
        return Problem::new(Code::NotAcceptable, detail).field("accept").into_response();
    };
    let now_ms = app.clock.now_ms();
    let (hour, current) = (Hour::of_ms(timestamp_ms), Hour::of_ms(now_ms));
    if hour == current
        && let Some(fresh) = app.fresh_snapshot(hour, now_ms)
        && let Some(snapshot) = fresh.as_ref()
    {
        return respond(&app, &snapshot.result, format, request.headers());
    }
    // Boxed, so that the future of a hot read, which ends above, does not have the size of this one.
    Box::pin(read(&app, hour, current, format, request.headers())).await
}

async fn read(app: &App, hour: Hour, current: Hour, format: Format, request: &HeaderMap) -> Response {
    if hour == current {
        return respond(app, &app.current_hour(hour).await.result, format, request);
    }
    respond(app, &*app.other_hour(hour, current).await, format, request)
}

fn respond(app: &App, result: &HourResult, format: Format, request: &HeaderMap) -> Response {
    match result {
        Ok(response) => {
            app.metrics.answered(response.counts.tier, response.counts.stale);
            response.respond(format, request)
        }
        Err(error) => unavailable(*error).into_response(),
    }
}
