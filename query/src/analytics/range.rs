//! `GET /analytics/range`: the counts of many hours, read and streamed chunk by chunk.
//!
//! The first chunk is read before the response begins, so that unavailable stores are a 503. A failure after that aborts
//! the response: a body that ends regularly is complete.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use mediatype::names::{APPLICATION, CSV, JSON, TEXT};
use mediatype::{MediaType, Name};
use millrace_contracts::{Code, Hour};
use millrace_service::Problem;
use millrace_service::http::negotiate;

use super::current::HourResult;
use super::render::{AS_OF, COUNTED_UP_TO, MaxAge, VARIES, text};
use super::requirement::Requirement;
use super::rows::{RangeFormat, RowWriter, USERS};
use super::{body, params};
use crate::app::{App, unavailable};
use crate::metrics;
use crate::stores::port::{HourCounts, ReadError};
use crate::stores::position::MinPositions;

/// Hours of a chunk: a week.
const CHUNK_HOURS: i64 = 168;

/// Concurrent reads of live hours for one range.
const MAX_CONCURRENT_READS: usize = 8;

static AVAILABLE: [MediaType<'static>; 3] = [
    MediaType::new(APPLICATION, JSON),
    MediaType::new(TEXT, CSV),
    MediaType::new(APPLICATION, Name::new_unchecked("x-ndjson")),
];

pub(crate) async fn range(State(app): State<Arc<App>>, request: Request) -> Response {
    let parsed = params::range(request.uri().query(), app.max_range_hours).and_then(|(range, terms)| {
        Requirement::of(&terms, request.headers(), app.events()).map(|requirement| (range, requirement))
    });
    let (range, requirement) = match parsed {
        Ok(parsed) => parsed,
        Err(refusal) => return Problem::from(refusal).into_response(),
    };
    let Some(format) = negotiate(request.headers(), &AVAILABLE).map(|i| RangeFormat::ALL[i]) else {
        let detail = "available are application/json, text/csv and application/x-ndjson";
        return Problem::new(Code::NotAcceptable, detail).field("accept").into_response();
    };
    let terms = match Terms::after_wait(&app, requirement).await {
        Ok(terms) => terms,
        Err(error) => return unavailable(error).into_response(),
    };
    let (begin_ms, mut counted_up_to) = (app.clock.now_ms(), app.hours.counted_up_to());
    let current = Hour::of_ms(begin_ms);
    // The current hour comes from memory, where it was read before this.
    if (range.from..range.to).contains(&current)
        && !matches!(terms, Terms::With(..))
        && let Ok(response) = &app.current_hour(current).await.result
    {
        counted_up_to = counted_up_to.min(response.counts.coverage.up_to_ms);
    }
    let is_stale = matches!(terms, Terms::Stale);
    let mut reader = RangeReader { app, next: range.from, to: range.to, current, terms };
    let mut rows = RowWriter::new(format, range);
    let (first, counted_up_to) = match reader.read_chunk().await {
        Ok(chunk) => {
            let of_chunk = chunk.iter().map(|(_, counts)| counts.coverage.up_to_ms);
            (rows.write(&chunk), of_chunk.fold(counted_up_to, Ord::min))
        }
        Err(error) => return unavailable(error).into_response(),
    };
    let rest = stream::try_unfold(Some((reader, rows)), async |state| {
        let Some((mut reader, mut rows)) = state else { return Ok(None) };
        if reader.next >= reader.to {
            return Ok(Some((rows.finish(), None)));
        }
        let chunk = reader.read_chunk().await.map_err(|error| {
            tracing::debug!(?error, "aborting the response to a range");
            io::Error::other("cannot read the rest of the range")
        })?;
        Ok(Some((rows.write(&chunk), Some((reader, rows)))))
    });
    let body = stream::once(async { Ok::<Bytes, io::Error>(first) }).chain(rest);
    let mut response = Response::new(Body::from_stream(body));
    *response.headers_mut() = headers(format, range.to, current, begin_ms);
    if let Some(up_to_ms) = counted_up_to {
        response.headers_mut().insert(COUNTED_UP_TO, text(&body::time(up_to_ms)));
    }
    if is_stale {
        // The next read may have the events.
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

/// On which terms the hours are read.
enum Terms {
    /// As they are.
    Any,
    /// Marked stale: they may lack the events that the request requires.
    Stale,
    /// With these events, for which the request waits until then.
    With(MinPositions, Instant),
}

impl Terms {
    /// The terms of a request, once its events are counted or it takes counts without them.
    async fn after_wait(app: &App, requirement: Option<Requirement>) -> Result<Self, ReadError> {
        let Some(Requirement { positions, wait, stale_ok }) = requirement else { return Ok(Self::Any) };
        let end = Instant::now() + wait;
        match app.hours.range_at(&positions, wait).await {
            Ok(()) => Ok(Self::With(positions, end)),
            Err(ReadError::NotYetVisible) if stale_ok => Ok(Self::Stale),
            Err(error) => Err(error),
        }
    }
}

fn headers(format: RangeFormat, to: Hour, current: Hour, begin_ms: i64) -> HeaderMap {
    let max_age = if to <= current { MaxAge::Minute } else { MaxAge::Second };
    HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static(format.content_type())),
        (CACHE_CONTROL, max_age.cache_control()),
        (VARY, HeaderValue::from_static(VARIES)),
        (AS_OF, text(&body::time(begin_ms))),
        (USERS, HeaderValue::from_static("per hour; they do not add up")),
    ])
}

/// Reads the hours of a range in order.
struct RangeReader {
    app: Arc<App>,
    next: Hour,
    to: Hour,
    current: Hour,
    terms: Terms,
}

impl RangeReader {
    /// The counts of the next hours: from the archive in one read, but each live hour from its own read model.
    async fn read_chunk(&mut self) -> Result<Vec<(Hour, HourCounts)>, ReadError> {
        let (from, first_live, after) = (self.next, self.app.hours.first_live(self.current), self.current.plus(1));
        let live = (first_live..after).contains(&from);
        let edge = if live {
            after
        } else if from < first_live {
            first_live
        } else {
            self.to
        };
        let to = from.plus(CHUNK_HOURS).min(edge).min(self.to);
        let hours = (from.index()..to.index()).map(Hour::from_index);
        let mut chunk: Vec<(Hour, HourCounts)> = if live {
            let this = &*self;
            let read = |hour| async move { this.live(hour).await.map(|counts| (hour, counts)) };
            stream::iter(hours).map(read).buffered(MAX_CONCURRENT_READS).try_collect().await?
        } else {
            hours.zip(self.app.hours.read_range(from, to, self.current).await?).collect()
        };
        if matches!(self.terms, Terms::Stale) {
            for (_, counts) in &mut chunk {
                counts.stale = true;
            }
        }
        self.next = to;
        metrics::range_hours(chunk.len());
        Ok(chunk)
    }

    async fn live(&self, hour: Hour) -> Result<HourCounts, ReadError> {
        let counts = |result: &HourResult| match result {
            Ok(response) => Ok(response.counts),
            Err(error) => Err(*error),
        };
        if let Terms::With(positions, end) = &self.terms {
            let wait = end.saturating_duration_since(Instant::now());
            return self.app.hours.read_at(hour, self.current, positions, wait).await;
        }
        if hour == self.current {
            return counts(&self.app.current_hour(hour).await.result);
        }
        counts(&*self.app.other_hour(hour, self.current).await)
    }
}
