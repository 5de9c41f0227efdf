//! A sample request to an endpoint, and what became of a message.

use axum::response::Response;
use http::StatusCode;
use millrace_contracts::topics::{AttemptError, ExplanationView, Reply, Request as Call};
use millrace_contracts::{Code, Refusal};
use millrace_service::http::query_string::{Unknown, parameters};
use serde_json::{Map, Value, json};

use super::directory::unexpected;
use super::exchange::{Application, Incoming, principal, respond};
use super::fields::{query_number, time_text};
use super::path::Path;
use super::render;
use super::subscription::act;

/// `POST …/{subscription}:test`
pub(super) async fn test(state: Application, request: Incoming) -> Response {
    act(&state.0, request, |subscription, _| Ok(Call::Sample(subscription)), sample).await
}

fn sample(reply: &Reply) -> Result<Response, Refusal> {
    let Reply::Sample(sample) = reply else { return Err(unexpected()) };
    let headers: Map<String, Value> =
        sample.headers.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    let body = json!({
        "request": { "url": sample.url, "headers": headers, "body": sample.body },
        "addresses": sample.addresses,
        "status": sample.status,
        "latency_ms": sample.latency_ms,
        "error": sample.error.map(AttemptError::as_str),
        "answer": sample.answer,
    });
    Ok(render::json(StatusCode::OK, &body))
}

/// `GET …/{subscription}:explain?offset=`
pub(super) async fn explain(state: Application, request: Incoming) -> Response {
    let result = async move {
        let by = principal(&request);
        let mut path = Path::of(request.uri());
        let (topic, subscription) = (path.topic()?, path.subscription_of_verb()?);
        let [offset] = parameters(request.uri().query().unwrap_or_default(), ["offset"], Unknown::Refuse)?;
        let missing = || Refusal::new(Code::MissingField, "offset must be given").field("offset");
        let offset = query_number(&offset.ok_or_else(missing)?, "offset", &(0..=u64::MAX))?;
        let call = Call::Explain { subscription, offset };
        let Reply::Explanation(explained) = state.0.directory.call(&topic, by, call).await? else {
            return Err(unexpected());
        };
        let ExplanationView { verdict, attempts, next_attempt_ms, last_error } = explained;
        let body = json!({
            "offset": offset,
            "verdict": verdict.as_str(),
            "attempts": attempts,
            "next_attempt_at": next_attempt_ms.and_then(time_text),
            "last_error": last_error,
        });
        Ok(render::json(StatusCode::OK, &body))
    };
    respond(result.await)
}
