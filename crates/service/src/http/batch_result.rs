//! The answer to a batch: a result for each item, in order, rendered from the same refusals as single requests.

use ::http::header::{CONTENT_TYPE, RETRY_AFTER};
use ::http::{HeaderValue, StatusCode};
use axum::body::Body;
use axum::response::Response;
use millrace_contracts::{Code, Refusal};
use serde::Serialize;
use utoipa::ToSchema;

use super::{FinalBody, status_of};

/// The result of one item of a batch.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Result)]
pub struct ItemResult<'a> {
    /// The status that this item alone would have.
    status: u16,
    /// `accepted`, or the code of a problem.
    code: &'static str,
    /// The field at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    field: Option<&'a str>,
    /// What is wrong, as a sentence for people; may change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    detail: Option<&'a str>,
    /// The position of an accepted event in the log, if the log has reported it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    position: Option<String>,
}

impl ItemResult<'_> {
    /// The result of an accepted item.
    pub fn accepted(status: StatusCode, position: Option<String>) -> Self {
        Self { status: status.as_u16(), code: Code::Accepted.as_str(), field: None, detail: None, position }
    }
}

impl<'a> From<&'a Refusal> for ItemResult<'a> {
    fn from(refusal: &'a Refusal) -> Self {
        Self {
            status: status_of(refusal.code).as_u16(),
            code: refusal.code.as_str(),
            field: refusal.field.as_deref(),
            detail: Some(&refusal.detail),
            position: None,
        }
    }
}

/// The answer of a batch whose accepted items have the status `accepted`.
///
/// Its status is 200 (or `accepted`, if that allows a body) when every item is accepted, and 207 when some are. When none
/// is, it is the status of the first, or that of the first failure of the server, with its `Retry-After`.
pub fn batch_response<T>(
    results: &[Result<T, Refusal>],
    accepted: StatusCode,
    position: impl Fn(&T) -> Option<String>,
) -> Response {
    let items: Vec<ItemResult<'_>> = results
        .iter()
        .map(|result| match result {
            Ok(item) => ItemResult::accepted(accepted, position(item)),
            Err(refusal) => refusal.into(),
        })
        .collect();
    let mut refusals = results.iter().filter_map(|result| result.as_ref().err());
    let refused = refusals.clone().count();
    let failure = refusals.clone().find(|refusal| status_of(refusal.code).is_server_error());
    let status = match refusals.next() {
        // The results are the body.
        None if accepted == StatusCode::NO_CONTENT => StatusCode::OK,
        None => accepted,
        Some(_) if refused < results.len() => StatusCode::MULTI_STATUS,
        Some(first) => status_of(failure.unwrap_or(first).code),
    };
    let mut body = serde_json::to_vec(&items).unwrap_or_default();
    body.push(b'\n');
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(after) = failure.and_then(|refusal| refusal.retry_after) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
    }
    response.extensions_mut().insert(FinalBody);
    response
}
