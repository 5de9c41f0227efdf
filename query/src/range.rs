//! `GET /analytics/range`: the counts of many hours, read and sent piece by piece.
//!
//! The first piece is read before the answer begins, so that stores that are away are a 503. One that goes away later cuts
//! the answer: a body that ends in order is whole.

use std::io;
use std::sync::Arc;

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

use crate::current::Outcome;
use crate::http::{App, refused};
use crate::page::{AS_OF, Keep, text, time};
use crate::rows::{Form, Rows, USERS};
use crate::{Known, Missed, accept, metrics, params};

/// Hours read at once: a week.
const PIECE: i64 = 168;

/// Reads of live hours at the same time, for one range.
const AT_ONCE: usize = 8;

static AVAILABLE: [MediaType<'static>; 3] = [
    MediaType::new(APPLICATION, JSON),
    MediaType::new(TEXT, CSV),
    MediaType::new(APPLICATION, Name::new_unchecked("x-ndjson")),
];

pub(crate) async fn range(State(app): State<Arc<App>>, request: Request) -> Response {
    let asked = match params::range(request.uri().query(), app.max_range_hours) {
        Ok(asked) => asked,
        Err(problem) => return problem.into_response(),
    };
    let Some(form) = accept::chosen(request.headers(), &AVAILABLE).map(|i| Form::ALL[i]) else {
        let detail = "served are application/json, text/csv and application/x-ndjson";
        return Problem::new(Code::NotAcceptable, detail).field("accept").into_response();
    };
    let begun_ms = (app.clock)();
    let current = Hour::of_ms(begun_ms);
    let mut pieces = Pieces { app, next: asked.from, to: asked.to, current };
    let mut rows = Rows::new(form, asked);
    let first = match pieces.read().await {
        Ok(piece) => rows.add(piece),
        Err(missed) => return refused(missed).into_response(),
    };
    let rest = stream::try_unfold(Some((pieces, rows)), async |state| {
        let Some((mut pieces, mut rows)) = state else { return Ok(None) };
        if pieces.next >= pieces.to {
            return Ok(Some((rows.end(), None)));
        }
        let piece = pieces.read().await.map_err(|missed| {
            tracing::debug!(?missed, "a range is cut short");
            io::Error::other("the rest cannot be read")
        })?;
        Ok(Some((rows.add(piece), Some((pieces, rows)))))
    });
    let body = stream::once(async { Ok::<Bytes, io::Error>(first) }).chain(rest);
    let mut response = Response::new(Body::from_stream(body));
    *response.headers_mut() = headers(form, asked.to, current, begun_ms);
    response
}

fn headers(form: Form, to: Hour, current: Hour, begun_ms: i64) -> HeaderMap {
    let keep = if to <= current { Keep::Minute } else { Keep::Moment };
    HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static(form.content_type())),
        (CACHE_CONTROL, keep.cache_control()),
        (VARY, HeaderValue::from_static("Accept")),
        (AS_OF, text(&time(begun_ms))),
        (USERS, HeaderValue::from_static("per hour; they do not add up")),
    ])
}

/// The hours of a range that have not been read yet.
struct Pieces {
    app: Arc<App>,
    next: Hour,
    to: Hour,
    current: Hour,
}

impl Pieces {
    /// The next hours with their counts: from the archive in one read, but those that have a fresher place each from there.
    async fn read(&mut self) -> Result<Vec<(Hour, Known)>, Missed> {
        let (from, first_live, after) = (self.next, self.app.hours.first_live(self.current), self.current.plus(1));
        let live = (first_live..after).contains(&from);
        let edge = if live {
            after
        } else if from < first_live {
            first_live
        } else {
            self.to
        };
        let to = from.plus(PIECE).min(edge).min(self.to);
        let hours = (from.index()..to.index()).map(Hour::from_index);
        let piece: Vec<(Hour, Known)> = if live {
            let this = &*self;
            let read = |hour| async move { this.live(hour).await.map(|known| (hour, known)) };
            stream::iter(hours).map(read).buffered(AT_ONCE).try_collect().await?
        } else {
            hours.zip(self.app.hours.bulk(from, to, self.current).await?).collect()
        };
        self.next = to;
        metrics::range_hours(piece.len());
        Ok(piece)
    }

    async fn live(&self, hour: Hour) -> Result<Known, Missed> {
        let known = |outcome: &Outcome| match outcome {
            Outcome::Known(page) => Ok(page.known),
            Outcome::Missed(missed) => Err(*missed),
        };
        if hour == self.current {
            return known(&self.app.check(hour).await.outcome);
        }
        known(&*self.app.look_up(hour, self.current).await)
    }
}
