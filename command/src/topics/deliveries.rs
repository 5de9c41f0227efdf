//! What became of messages: the last attempts, dead letters, and redrives of them.

use axum::response::Response;
use http::StatusCode;
use millrace_contracts::topics::{AttemptError, AttemptView, DeadLetterView, RedriveFilter, Reply, Request as Call};
use millrace_contracts::{Refusal, TIME_FORM};
use millrace_service::http::query_string::{Unknown, parameters};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::directory::unexpected;
use super::exchange::{Application, Incoming, principal, respond};
use super::fields::{Fields, invalid, query_number, time, time_text};
use super::path::{Path, redrive_id};
use super::render;
use super::subscription::act;
use super::topic::no_parameters;

/// Most attempts, and most dead letters of a page.
pub(super) const MAX_LISTED_ATTEMPTS: usize = 100;
pub(super) const MAX_LETTERS: usize = 1_000;
/// Most messages a second of a redrive.
pub(super) const MAX_RATE: u64 = 100_000;

/// `GET …/{subscription}/attempts?limit=`
pub(super) async fn attempts(state: Application, request: Incoming) -> Response {
    let result = async move {
        let by = principal(&request);
        let mut path = Path::of(request.uri());
        let (topic, subscription) = (path.topic()?, path.subscription()?);
        let [limit] = parameters(request.uri().query().unwrap_or_default(), ["limit"], Unknown::Refuse)?;
        let limit = limit
            .map(|text| query_number(&text, "limit", &(1..=MAX_LISTED_ATTEMPTS)))
            .transpose()?
            .unwrap_or(MAX_LISTED_ATTEMPTS);
        let reply = state.0.directory.call(&topic, by, Call::Attempts { subscription, limit }).await?;
        let Reply::Attempts(attempts) = reply else { return Err(unexpected()) };
        let attempts: Vec<_> = attempts.iter().map(attempt).collect();
        Ok(render::json(StatusCode::OK, &json!({ "attempts": attempts })))
    };
    respond(result.await)
}

fn attempt(attempt: &AttemptView) -> Value {
    json!({
        "offset": attempt.offset,
        "at": time_text(attempt.at_ms),
        "attempt": attempt.attempt,
        "status": attempt.status,
        "latency_ms": attempt.latency_ms,
        "error": attempt.error.map(AttemptError::as_str),
        "answer": attempt.answer,
    })
}

/// `GET …/{subscription}/dead-letters?after=&limit=`
pub(super) async fn dead_letters(state: Application, request: Incoming) -> Response {
    let result = async move {
        let by = principal(&request);
        let mut path = Path::of(request.uri());
        let (topic, subscription) = (path.topic()?, path.subscription()?);
        let query = request.uri().query().unwrap_or_default();
        let [after, limit] = parameters(query, ["after", "limit"], Unknown::Refuse)?;
        let after = after.map(|text| query_number(&text, "after", &(0..=u64::MAX))).transpose()?;
        let limit = limit.map(|text| query_number(&text, "limit", &(1..=MAX_LETTERS))).transpose()?.unwrap_or(100);
        let call = Call::DeadLetters { subscription, after, limit };
        let Reply::DeadLetters(letters, next) = state.0.directory.call(&topic, by, call).await? else {
            return Err(unexpected());
        };
        let letters: Vec<_> = letters.iter().map(letter).collect();
        Ok(render::json(StatusCode::OK, &Letters { dead_letters: letters, next }))
    };
    respond(result.await)
}

#[derive(Serialize)]
struct Letters<'a> {
    dead_letters: Vec<Letter<'a>>,
    next: Option<u64>,
}

#[derive(Serialize)]
struct Letter<'a> {
    offset: u64,
    dead_lettered_at: Option<String>,
    reason: &'a str,
    attempts: u32,
    first_attempt_at: Option<String>,
    last_attempt_at: Option<String>,
    last_status: Option<u16>,
    last_error: Option<&'a str>,
    message: Option<Box<RawValue>>,
}

fn letter(letter: &DeadLetterView) -> Letter<'_> {
    let mut line = Vec::with_capacity(letter.message.body.len() + 512);
    letter.message.write_line(None, &mut line);
    Letter {
        offset: letter.offset,
        dead_lettered_at: time_text(letter.dead_lettered_ms),
        reason: &letter.reason,
        attempts: letter.attempts,
        first_attempt_at: letter.first_attempt_ms.and_then(time_text),
        last_attempt_at: letter.last_attempt_ms.and_then(time_text),
        last_status: letter.last_status,
        last_error: letter.last_error.as_deref(),
        message: String::from_utf8(line).ok().and_then(|line| RawValue::from_string(line).ok()),
    }
}

/// `POST …/{subscription}/dead-letters:redrive`
pub(super) async fn redrive(state: Application, request: Incoming) -> Response {
    let moment = |fields: &mut Fields, name: &'static str| match fields.take(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => time(&value).map(Some).ok_or_else(|| invalid(name, format!("must be {TIME_FORM}"))),
    };
    let read = |subscription, fields: &mut Fields| {
        let filter = RedriveFilter {
            from_ms: moment(fields, "from")?,
            to_ms: moment(fields, "to")?,
            status: fields.number("status", 100..=599)?.and_then(|status| u16::try_from(status).ok()),
            rate: fields.number("rate", 1..=MAX_RATE)?.and_then(|rate| u32::try_from(rate).ok()),
        };
        Ok(Call::Redrive { subscription, filter })
    };
    act(&state.0, request, read, redriven).await
}

fn redriven(reply: &Reply) -> Result<Response, Refusal> {
    let Reply::Redriven { id, selected } = reply else { return Err(unexpected()) };
    Ok(render::json(StatusCode::ACCEPTED, &json!({ "redrive": redrive_id(*id), "selected": selected })))
}

/// `GET …/{subscription}/redrives/{redrive}`
pub(super) async fn describe_redrive(state: Application, request: Incoming) -> Response {
    let result = async move {
        let by = principal(&request);
        let mut path = Path::of(request.uri());
        let (topic, subscription, id) = (path.topic()?, path.subscription()?, path.redrive()?);
        no_parameters(&request)?;
        let call = Call::DescribeRedrive { subscription, id };
        let Reply::Redrive(redrive) = state.0.directory.call(&topic, by, call).await? else {
            return Err(unexpected());
        };
        let body = json!({
            "redrive": redrive_id(id),
            "selected": redrive.selected,
            "done": redrive.done,
            "failed": redrive.failed,
            "state": redrive.state(),
        });
        Ok(render::json(StatusCode::OK, &body))
    };
    respond(result.await)
}
