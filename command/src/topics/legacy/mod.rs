//! The earlier system's calls, below a prefix of the operator's: register, subscribe, publish, get, acknowledge, health.
//!
//! Topics, subscriptions and messages are those of `/v1/topics`; only the form differs. A principal has one subscription of a
//! topic, which has the principal's name, and acknowledges without a token. Errors are `{"error": text}`.

pub(super) mod config;
mod content;
mod exchange;
mod health;
mod messages;
mod openapi;
mod topics;

use std::sync::Arc;

use axum::routing::{any, get, post};
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// The routes below `base` and their OpenAPI document.
pub(super) fn routes(base: &str) -> OpenApiRouter<Arc<App>> {
    let routes = OpenApiRouter::new()
        .route(&format!("{base}/topic/register/{{topic}}"), post(topics::register))
        .route(&format!("{base}/topic/subscribe/{{topic}}"), post(topics::subscribe))
        .route(&format!("{base}/message/publish/{{topic}}"), post(messages::publish))
        // Every method, as axum would add HEAD to GET: it would hand out a message that nobody sees.
        .route(&format!("{base}/message/get/{{topic}}"), any(messages::get))
        .route(&format!("{base}/message/ack/{{topic}}"), post(messages::ack))
        .route(&format!("{base}/health"), get(health::health));
    openapi::describe(routes, base)
}
