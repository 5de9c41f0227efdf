//! `GET /analytics`: the counts of one hour.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use millrace_contracts::{Code, Hour};
use millrace_service::Problem;

use super::current::HourResult;
use super::format::Format;
use super::params;
use super::render::{HourResponse, MaxAge};
use super::requirement::Requirement;
use crate::app::{App, unavailable};
use crate::stores::port::ReadError;

pub(crate) async fn hour(State(app): State<Arc<App>>, request: Request) -> Response {
    let parsed = params::timestamp(request.uri().query()).and_then(|(timestamp_ms, terms)| {
        Requirement::of(&terms, request.headers(), app.events()).map(|requirement| (timestamp_ms, requirement))
    });
    let (timestamp_ms, requirement) = match parsed {
        Ok(parsed) => parsed,
        Err(refusal) => return Problem::from(refusal).into_response(),
    };
    let Some(format) = Format::negotiate(request.headers()) else {
        let detail = "available are text/plain, application/json and text/csv";
        return Problem::new(Code::NotAcceptable, detail).field("accept").into_response();
    };
    let now_ms = app.clock.now_ms();
    let (hour, current) = (Hour::of_ms(timestamp_ms), Hour::of_ms(now_ms));
    if let Some(requirement) = requirement {
        return Box::pin(read_at(&app, (hour, current), &requirement, format, request.headers())).await;
    }
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

/// Reads counts that contain the required events. They come from no cache.
async fn read_at(
    app: &App,
    (hour, current): (Hour, Hour),
    requirement: &Requirement,
    format: Format,
    request: &HeaderMap,
) -> Response {
    let max_age = if hour < current { MaxAge::Minute } else { MaxAge::Second };
    match app.hours.read_at(hour, current, &requirement.positions, requirement.wait).await {
        Ok(counts) => {
            let response = HourResponse::new(counts, max_age, app.clock.now_ms());
            respond(app, &Ok(Box::new(response)), format, request)
        }
        Err(ReadError::NotYetVisible) if requirement.stale_ok => {
            let stale = |result: &HourResult| match result {
                Ok(response) => Ok(Box::new(response.to_stale(app.clock.now_ms()))),
                Err(error) => Err(*error),
            };
            let result = if hour == current {
                stale(&app.current_hour(hour).await.result)
            } else {
                stale(&*app.other_hour(hour, current).await)
            };
            let mut response = respond(app, &result, format, request);
            // The next read may have the events.
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(error) => unavailable(error).into_response(),
    }
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
