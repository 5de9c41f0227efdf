//! What readers do with the messages they were handed: acknowledge, return, extend the lease.

use axum::response::Response;
use http::StatusCode;
use millrace_contracts::topics::{AckSelection, Reply, Request as Call};
use millrace_contracts::{Code, Refusal};
use serde_json::Value;

use super::directory::unexpected;
use super::exchange::{Application, Incoming};
use super::fields::{Fields, invalid};
use super::render;
use super::subscription::{LEASE_MS, act};

/// Most tokens of one call.
pub(super) const MAX_TOKENS: usize = 1_000;

pub(super) async fn ack(state: Application, request: Incoming) -> Response {
    let read = |subscription, fields: &mut Fields| Ok(Call::Ack { subscription, selection: selection(fields)? });
    act(&state.0, request, read, settled).await
}

pub(super) async fn nack(state: Application, request: Incoming) -> Response {
    let read = |subscription, fields: &mut Fields| {
        let tokens = tokens(fields)?;
        let delay_ms = fields.duration("delay", 0..=*LEASE_MS.end())?;
        Ok(Call::Nack { subscription, tokens, delay_ms })
    };
    act(&state.0, request, read, settled).await
}

pub(super) async fn extend(state: Application, request: Incoming) -> Response {
    let read = |subscription, fields: &mut Fields| {
        let tokens = tokens(fields)?;
        let lease = fields.duration("lease", LEASE_MS)?;
        let lease_ms = lease.ok_or_else(|| Refusal::new(Code::MissingField, "lease must be given").field("lease"))?;
        Ok(Call::Extend { subscription, tokens, lease_ms })
    };
    act(&state.0, request, read, settled).await
}

fn settled(reply: &Reply) -> Result<Response, Refusal> {
    let Reply::Acknowledged(answer) = reply else { return Err(unexpected()) };
    Ok(render::json(StatusCode::OK, answer))
}

fn selection(fields: &mut Fields) -> Result<AckSelection, Refusal> {
    let up_to = fields.text("up_to")?;
    match (up_to, fields.has("tokens")) {
        (Some(_), true) => {
            Err(Refusal::new(Code::DuplicateField, "tokens and up_to exclude each other").field("up_to"))
        }
        (Some(token), false) => Ok(AckSelection::UpTo(token)),
        (None, _) => tokens(fields).map(AckSelection::Tokens),
    }
}

fn tokens(fields: &mut Fields) -> Result<Vec<String>, Refusal> {
    let wrong = || invalid("tokens", format!("must be a list of 1..={MAX_TOKENS} texts"));
    let Some(value) = fields.take("tokens") else {
        return Err(Refusal::new(Code::MissingField, "tokens must be given").field("tokens"));
    };
    let Value::Array(values) = value else { return Err(wrong()) };
    if !(1..=MAX_TOKENS).contains(&values.len()) {
        return Err(wrong());
    }
    let text = |value: Value| match value {
        Value::String(text) => Some(text),
        _ => None,
    };
    values.into_iter().map(text).collect::<Option<Vec<_>>>().ok_or_else(wrong)
}
