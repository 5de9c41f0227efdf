//! `POST /analytics/batch`: up to a thousand events as NDJSON or as a JSON array, with a result for each, in order.
//!
//! A bad item spoils no other. A body that is no batch at all (a broken array, too many items) is refused as a whole,
//! before anything is appended.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use millrace_contracts::{Code, EventRef, Refusal};
use millrace_service::http::{FinalBody, read_body};
use millrace_service::shown;
use millrace_service::{Problem, status_of};
use serde::Serialize;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::event::Window;
use super::event_id;
use super::item::{Item, malformed};
use crate::app::App;
use crate::intake::{Encoded, Placed, Terms};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Lines,
    Array,
}

/// What became of an item of a batch.
#[derive(Serialize, ToSchema)]
#[schema(as = Result)]
pub(crate) struct Reply<'a> {
    /// What this item alone would have been answered.
    status: u16,
    /// `accepted`, or the code of a problem.
    code: &'static str,
    /// What is at fault, where something is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    field: Option<&'a str>,
    /// What is wrong, where something is; for people, and may change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    detail: Option<&'a str>,
    /// Where an accepted event stands in the log, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    position: Option<String>,
}

pub(crate) async fn post(State(app): State<Arc<App>>, request: Request) -> Response {
    let terms = Terms::of(&app.config, request.headers());
    match accept(&app, request, terms).await {
        Ok(results) => {
            let code = |result: &Placed| result.as_ref().map_or_else(|refusal| refusal.code, |_| Code::Accepted);
            for result in &results {
                app.metrics.count(code(result));
            }
            answer(&app, &results, terms)
        }
        Err(refusal) => {
            app.metrics.count(refusal.code);
            Problem::from(refusal).into_response()
        }
    }
}

async fn accept(app: &App, request: Request, terms: Terms) -> Result<Vec<Placed>, Refusal> {
    let form = form_of(request.headers())?;
    let key = event_id::of_batch(request.headers())?.map(Cow::into_owned);
    let body = read_body(request, &app.config.limits, &app.bodies).await?;
    if body.starts_with(b"\xef\xbb\xbf") {
        return Err(Refusal::new(Code::MalformedBody, "the body begins with a byte order mark"));
    }
    let most = app.config.max_batch_items;
    let items = match form {
        Form::Lines => lines(&body, most)?,
        Form::Array => array(&body, most)?,
    };
    let window = Window::new(&app.config, app.clock.now_ms());
    let (mut encoded, partitions) = (Encoded::default(), app.appender.partitions());
    let mut scratch = String::new();
    let mut encode = |(index, json): (usize, Result<&str, Refusal>)| {
        let item = Item::parse(json?)?;
        let event = item.event(window)?;
        let event_id = event_id::of_item(item.event_id(), key.as_deref(), index, &mut scratch)?;
        encoded.push(&EventRef { event_id, ..event }, partitions);
        Ok(())
    };
    let checked: Vec<Result<(), Refusal>> = items.into_iter().enumerate().map(&mut encode).collect();
    let mut appended = app.appender.all(&encoded, terms.durability).await.into_iter();
    let unknown = || Err(Refusal::new(Code::OutcomeUnknown, "the event may or may not have been stored"));
    Ok(checked.into_iter().map(|good| good.and_then(|()| appended.next().unwrap_or_else(unknown))).collect())
}

/// The body's form by its media type.
fn form_of(headers: &HeaderMap) -> Result<Form, Refusal> {
    let refuse = |why: String| Err(Refusal::new(Code::UnsupportedMediaType, why).field("content-type"));
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let text = match (types.next(), types.next()) {
        (Some(text), None) => text.to_str().unwrap_or("?"),
        _ => return refuse("content-type is application/x-ndjson or application/json, once".into()),
    };
    let mut parts = text.split(';').map(str::trim);
    let form = match parts.next() {
        Some(name) if name.eq_ignore_ascii_case("application/x-ndjson") => Form::Lines,
        Some(name) if name.eq_ignore_ascii_case("application/json") => Form::Array,
        _ => return refuse(format!("application/x-ndjson and application/json are served, not \"{}\"", shown(text))),
    };
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        if name.eq_ignore_ascii_case("charset") && !value.trim_matches('"').eq_ignore_ascii_case("utf-8") {
            return refuse(format!("charset is utf-8, not \"{}\"", shown(value)));
        }
    }
    Ok(form)
}

fn not_utf8() -> Refusal {
    Refusal::new(Code::InvalidEncoding, "not valid UTF-8")
}

fn too_many(most: usize) -> Refusal {
    Refusal::new(Code::TooManyItems, format!("more than {most} items"))
}

/// One item a line; blank lines are none.
fn lines(body: &[u8], most: usize) -> Result<Vec<Result<&str, Refusal>>, Refusal> {
    let lines = body.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let items: Vec<_> = lines.take(most + 1).map(|line| std::str::from_utf8(line).map_err(|_| not_utf8())).collect();
    if items.len() > most { Err(too_many(most)) } else { Ok(items) }
}

/// The elements of an array, none looked into.
fn array(body: &[u8], most: usize) -> Result<Vec<Result<&str, Refusal>>, Refusal> {
    let text = std::str::from_utf8(body).map_err(|_| not_utf8())?;
    let mut parser = serde_json::Deserializer::from_str(text);
    let (items, more) = Elements { most }.deserialize(&mut parser).map_err(|error| malformed(&error))?;
    if more {
        return Err(too_many(most));
    }
    parser.end().map_err(|error| malformed(&error))?;
    Ok(items.into_iter().map(|raw| Ok(raw.get())).collect())
}

/// Reads at most so many elements, and whether there are more.
struct Elements {
    most: usize,
}

impl<'de> DeserializeSeed<'de> for Elements {
    type Value = (Vec<&'de RawValue>, bool);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Elements {
    type Value = (Vec<&'de RawValue>, bool);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        let mut more = false;
        // Past the bound the rest is only skipped, so that the array is still read to its end.
        while let Some(item) = elements.next_element::<&RawValue>()? {
            if items.len() < self.most {
                items.push(item);
            } else {
                more = true;
            }
        }
        Ok((items, more))
    }
}

/// 200, or 202 at a weaker level, when all are good, 207 when some are; when none is, the first one's status, or 503 if any
/// was our failure.
fn answer(app: &App, results: &[Placed], terms: Terms) -> Response {
    let replies: Vec<_> = results.iter().map(|result| reply(app, result, terms)).collect();
    let mut failures = results.iter().filter_map(|result| result.as_ref().err());
    let failed = failures.clone().count();
    let ours = failures.clone().find(|problem| status_of(problem.code).is_server_error());
    let status = match failures.next() {
        // What there is to say is in the body.
        None if terms.status() == StatusCode::NO_CONTENT => StatusCode::OK,
        None => terms.status(),
        Some(_) if failed < results.len() => StatusCode::MULTI_STATUS,
        Some(first) => status_of(ours.unwrap_or(first).code),
    };
    let mut response = Response::new(Body::from(serde_json::to_vec(&replies).unwrap_or_default()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(after) = ours.and_then(|problem| problem.retry_after) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
    }
    terms.add_header(response.headers_mut());
    response.extensions_mut().insert(FinalBody);
    response
}

fn reply<'a>(app: &App, result: &'a Placed, terms: Terms) -> Reply<'a> {
    match result {
        Ok(at) => Reply {
            status: terms.status().as_u16(),
            code: Code::Accepted.as_str(),
            field: None,
            detail: None,
            position: at.map(|at| app.position(at)),
        },
        Err(problem) => Reply {
            status: status_of(problem.code).as_u16(),
            code: problem.code.as_str(),
            field: problem.field.as_ref().map(Cow::as_ref),
            detail: Some(&problem.detail),
            position: None,
        },
    }
}
