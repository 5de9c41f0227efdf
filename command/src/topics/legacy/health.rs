//! `GET /health`: whether the process answers.

use axum::response::Response;
use http::StatusCode;
use http::header::ACCEPT;

use super::exchange::{respond, text};
use crate::topics::exchange::Incoming;

/// The same text in whatever type the client names.
pub(super) async fn health(request: Incoming) -> Response {
    let named = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut types =
        named.flat_map(|line| line.split(',')).map(|range| range.split(';').next().unwrap_or_default().trim());
    let media_type = types.find(|range| range.contains('/') && !range.contains('*'));
    let media_type = format!("{};charset=utf-8", media_type.unwrap_or("application/json"));
    respond(Ok(text(StatusCode::OK, &media_type, br#"{"status":"healthy"}"#.to_vec())))
}
